"""The table of an agent in `alcove.toml`, as written."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from alcove import limits


class CommandTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table `[agents.NAME]` of `alcove.toml`; `docs/agents.md` explains each key.

    Attributes:
        command: The program and its arguments; a string is split as a shell would.
        description: One sentence for listings.
        message: By which way the message gets there.
        stdin_suffix: Text written after the message, such as a line `/quit`.
        commands: Beginnings of lines that the program takes for commands of its own.
        escape: What is put before a line of a message that begins so, or equals a line of `stdin_suffix`.
        history: Rounds given before the message.
        preamble: How they are given; `{history}` stands for them.
        language: Language to reply in, `""` for no instruction.
        instruction: How that is asked; `{language}` stands for it.
        strip: Regexes of what is no part of the answer; a line of which nothing is left is dropped.
        ansi: Whether terminal sequences are removed and overwritten text is dropped.
        answer: Which streams are the answer, in order of arrival.
        explain: Sentences added to the answer, by exit code.
        timeout: Wall time of a run.
        limits: What its runs may take of the machine, where that differs from `[sandbox.limits]`.
        network: What it may reach: `none`, `host`, or a list of hosts.
        env: Fixed variables, none of them secret.
        secrets: Names of the secrets that its runs are given, as variables of these names.
        read: Further paths that it may read.
        write: Further paths that it may write.
        resources: What its runs may be granted at most, per type: ids, or ids with operations; `*` for any.
        storage: The same for storage, `plugin` and `workspace`.
        state: The same for scopes of state.
        inner_sandbox: Whether the program may put a sandbox of its own inside ours.
        check: A command that succeeds where the program works, such as `q --version`.
    """

    command: str | list[str]
    description: str = ""
    message: Literal["stdin", "argument"] = "stdin"
    stdin_suffix: str = ""
    commands: list[str] = []
    escape: str = ">"
    history: int = 0
    preamble: str = "Previous conversation history:\n{history}\n\nCurrent message:\n"
    language: str = ""
    instruction: str = "\n\nReply in {language}."
    strip: list[str] = []
    ansi: bool = True
    answer: Literal["stdout", "both"] = "stdout"
    explain: dict[int, str] = {}
    timeout: str = f"{limits.RUN_TIMEOUT_S}s"
    limits: dict[str, str | int] = {}
    network: str | list[str] = "none"
    env: dict[str, str] = {}
    secrets: list[str] = []
    read: list[str] = []
    write: list[str] = []
    resources: dict[str, list[str] | dict[str, list[str]]] | UnsetType = UNSET
    storage: list[str] | UnsetType = UNSET
    state: list[str] | UnsetType = UNSET
    inner_sandbox: Literal["off", "nest"] = "off"
    check: str | list[str] = []
