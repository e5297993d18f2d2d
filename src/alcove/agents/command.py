"""Agents that are programs: how to start one, what to give it, and what of its output is the answer."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

from msgspec import UnsetType

from alcove import limits
from alcove.agents.base import AgentInfo, Invocation, Line, Prompt
from alcove.agents.cleaning import plain, without
from alcove.agents.secrets import VARIABLE, Secrets
from alcove.agents.table import CommandTable
from alcove.agents.transcript import Transcript
from alcove.durations import duration_s
from alcove.errors import AgentUnavailableError, ConfigurationError, InvalidError, TooLargeError
from alcove.patterns import may_explode
from alcove.rights.model import Network, Rights
from alcove.rights.writing import bound
from alcove.sandbox.limits import Limits, Written
from alcove.settings.parsing import absolute

_OURS: Final = frozenset({"HOME", "TMPDIR", "TRACE_ID", "SESSION_ID"})
# Whatever some program takes for the end of a line.
_LINE_ENDS: Final = r"\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
# Where every sandbox lets a program be read.
_SYSTEM_FOLDERS: Final = ("/usr/", "/bin/", "/sbin/")


@final
class CommandAgent:
    """An agent that is a program.

    Attributes:
        name: Its name.
        description: One sentence.
        history_rounds: Rounds of history that it wants in a `Prompt`.
        timeout_s: Wall time of a run.
        secrets: Names of the secrets that its runs are given.
        declared: What its runs may be granted at most.
        network: Of that, what they may reach.
        limits: What they may take, where that is not the installation's default.
    """

    kind: Final = "command"

    def __init__(
        self,
        name: str,
        table: CommandTable,
        *,
        folder: Path,
        environ: Mapping[str, str],
        secrets: Secrets | None = None,
    ) -> None:
        """Check a table and prepare what can be prepared.

        Args:
            name: The agent's name.
            table: Its table.
            folder: What relative paths in the table are relative to.
            environ: The server's environment: `PATH` and `HOME` are taken from it.
            secrets: Gives the values of those that the table names; None for variables of `environ`.

        Raises:
            ConfigurationError: A key has a value that cannot work; `field` names it.
        """
        self.name = name
        self.description = table.description
        self._table = table
        self._folder = folder
        self._environ = environ
        self._secrets = secrets or Secrets({}, folder=folder, environ=environ)
        self.secrets = tuple(dict.fromkeys(table.secrets))
        self._command = self._argv("command", table.command)
        self._check = self._argv("check", table.check) if table.check else []
        self.history_rounds = self._checked_rounds()
        self.timeout_s = self._checked_timeout_s()
        self._strip = [self._pattern(index, pattern) for index, pattern in enumerate(table.strip)]
        self._command_line = self._checked_commands()
        self._check_variables()
        self.limits: Written = table.limits
        Limits().changed(self.limits, where=f"agents.{name}.limits")
        if table.preamble.count("{history}") != 1:
            raise self._refusal("preamble", "has no single {history} in it", "write {history} once")
        self._read = tuple(str(absolute(path, folder, environ)) for path in table.read)
        self.declared = self._rights()
        self.network: Network = "none" if isinstance(self.declared.network, UnsetType) else self.declared.network

    def invocation(self, prompt: Prompt) -> Invocation:
        """Return how to run the program on a message.

        Raises:
            InvalidError: The message holds NUL or a lone surrogate, or the language is not a name.
            TooLargeError: The message is over `limits.CHAT_BYTES`, or `limits.ARGUMENT_BYTES` as an argument.
            AgentUnavailableError: The program is missing, or a secret is, or cannot be given.
        """
        text = self._text(prompt)
        as_argument = self._table.message == "argument"
        separator = () if self._command[-1] == "--" else ("--",)
        return self._invoke(
            (*self._command, *((*separator, text) if as_argument else ())),
            stdin=("" if as_argument else text) + self._table.stdin_suffix,
            timeout_s=self.timeout_s,
            secrets=self.secrets,
        )

    def check_invocation(self) -> Invocation | None:
        """Return how to find out whether the program works (it exits with 0), None when no check is declared.

        A check is given no secret.

        Raises:
            AgentUnavailableError: The program is missing.
        """
        return self._invoke(self._check, stdin="", timeout_s=limits.CHECK_TIMEOUT_S) if self._check else None

    def transcript(self) -> Transcript:
        """Return a collector for the output of one run, to be handed to `answer`."""
        return Transcript(("stdout", "stderr") if self._table.answer == "both" else ("stdout",))

    def answer(self, transcript: Transcript, exit_code: int | None) -> str:
        """Return the answer in a program's output: cleaned, and head and tail only past `limits.ANSWER_BYTES`.

        Args:
            transcript: What `transcript()` returned, fed.
            exit_code: None when a signal ended the program.
        """
        kept = transcript.kept()
        explanation = "" if exit_code is None else self._table.explain.get(exit_code, "")
        parts = (self._cleaned(kept.head), kept.note(), self._cleaned(kept.tail), explanation)
        return "\n".join(part for part in parts if part)

    def info(self) -> AgentInfo:
        """Return this agent as `doctor` and the API show it; the program is looked for, not run."""
        program, reason = self._locate(self._command[0])
        missing = [found for found in map(self._secrets.info, self.secrets) if not found.available]
        reason = reason or (missing[0].reason if missing else "")
        return AgentInfo(
            name=self.name,
            kind=self.kind,
            description=self.description,
            program=program or self._command[0],
            network=self.network,
            available=not reason,
            reason=reason,
        )

    # What the program is given.

    def _invoke(self, command: Sequence[str], *, stdin: str, timeout_s: int, secrets: Sequence[str] = ()) -> Invocation:
        program, reason = self._locate(command[0])
        if reason:
            raise AgentUnavailableError(
                f"agent {self.name!r} cannot run: {reason}",
                field="agent",
                remedy=f"install the program or correct [agents.{self.name}]; `alcove doctor` shows every agent",
            )
        try:
            values = self._secrets.give(secrets)
        except AgentUnavailableError as error:
            raise AgentUnavailableError(
                f"agent {self.name!r} cannot run: {error.message}", field="agent", remedy=error.remedy
            ) from None
        files = {program, os.path.realpath(program)}
        return Invocation(
            argv=(program, *command[1:]),
            stdin=stdin.encode(),
            env=self._table.env,
            secrets=values,
            network=self.network,
            read=self._read,
            needs=tuple(sorted(path for path in files if not path.startswith(_SYSTEM_FOLDERS))),
            nest=self._table.inner_sandbox == "nest",
            timeout_s=timeout_s,
        )

    def _locate(self, program: str) -> tuple[str, str]:
        """Return the absolute path of a program, and why it cannot be run or `''`."""
        # A relative folder on PATH would be the session's own, where anybody may put a program of that name.
        folders = self._environ.get("PATH", os.defpath).split(os.pathsep)
        path = os.pathsep.join(folder for folder in folders if os.path.isabs(folder))
        found = shutil.which(program, path=path)
        if found is None:
            place = "is no program that this user may run" if "/" in program else "is not on the server's PATH"
            return "", f"{program} {place}"
        return found, ""

    def _text(self, prompt: Prompt) -> str:
        _check_message(prompt.message)
        body = self._escaped(prompt.message + self._instruction(prompt.language))
        as_argument = self._table.message == "argument"
        limit = limits.ARGUMENT_BYTES if as_argument else limits.PROMPT_BYTES
        size = len(body.encode())
        if size > limit:
            raise TooLargeError(
                f"the message takes {size} bytes, and agent {self.name!r} takes {limit}",
                field="message",
                limit=limit,
                remedy="shorten it, or put it into a file of the workspace",
            )
        before, after = self._table.preamble.split("{history}")
        history = self._history(prompt.history, limit - size - len((before + after).encode()))
        return f"{before}{history}{after}{body}" if history else body

    def _history(self, lines: Sequence[Line], room_bytes: int) -> str:
        """Return the last rounds, as many messages as there is room for."""
        entries: list[str] = []
        rounds = 0
        for role, text in reversed(lines):
            # Indented, so that no message can pass for the beginning of another.
            said = text.replace("\x00", "\ufffd").encode(errors="replace").decode().replace("\n", "\n  ")
            entry = self._escaped(f"{role.capitalize()}: {said}")
            room_bytes -= len(entry.encode()) + 1
            if rounds == self.history_rounds or room_bytes < 0:
                break
            entries.append(entry)
            rounds += role == "user"
        return "\n".join(reversed(entries))

    def _instruction(self, language: str | None) -> str:
        language = self._table.language if language is None else language
        if not language:
            return ""
        if not language.isprintable() or len(language) > limits.LANGUAGE_CHARS:
            raise InvalidError(
                f"{language[:40]!r} is not the name of a language",
                field="language",
                limit=limits.LANGUAGE_CHARS,
                remedy="give a short name on one line",
            )
        return self._table.instruction.replace("{language}", language)

    def _escaped(self, text: str) -> str:
        if self._command_line is None:
            return text
        # Programs differ in whether a lone carriage return ends a line; none needs one.
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return self._command_line.sub(lambda start: start[0] + self._table.escape, text)

    def _cleaned(self, text: str) -> str:
        text = plain(text) if self._table.ansi else text
        return without(text, self._strip).strip("\n")

    # Checks of the table.

    def _refusal(self, key: str, problem: str, remedy: str) -> ConfigurationError:
        return ConfigurationError(
            f"[agents.{self.name}] {key}: {problem}", field=f"agents.{self.name}.{key}", remedy=remedy
        )

    def _rights(self) -> Rights:
        table = self._table
        try:
            return bound(
                resources=table.resources,
                storage=table.storage,
                read=self._read,
                write=[str(absolute(path, self._folder, self._environ)) for path in table.write],
                network=table.network,
                state=table.state,
            )
        except InvalidError as error:
            raise self._refusal(error.field, error.message, error.remedy) from error

    def _argv(self, key: str, command: str | list[str]) -> list[str]:
        try:
            argv = shlex.split(command) if isinstance(command, str) else command
        except ValueError as error:
            raise self._refusal(key, f"{error} in {command!r}", 'write a list: ["program", "argument"]') from error
        if not argv or not argv[0] or "\x00" in "".join(argv):
            raise self._refusal(key, "names no program, or holds NUL", 'write a list: ["program", "argument"]')
        if "/" in argv[0] or argv[0].startswith("~"):
            argv = [str(absolute(argv[0], self._folder, self._environ)), *argv[1:]]
        return argv

    def _checked_rounds(self) -> int:
        if not 0 <= self._table.history <= limits.WINDOW_ROUNDS:
            raise self._refusal(
                "history", f"{self._table.history} rounds", f"use 0 (no history) to {limits.WINDOW_ROUNDS}"
            )
        return self._table.history

    def _checked_timeout_s(self) -> int:
        try:
            timeout_s = duration_s(self._table.timeout)
        except InvalidError as error:
            raise self._refusal("timeout", error.message, error.remedy) from error
        if timeout_s is None or not 0 < timeout_s <= limits.RUN_TIMEOUT_S_MAX:
            raise self._refusal("timeout", f"{self._table.timeout!r}", f"use 1s to {limits.RUN_TIMEOUT_S_MAX // 3600}h")
        return timeout_s

    def _pattern(self, index: int, pattern: str) -> re.Pattern[str]:
        key = f"strip[{index}]"
        if may_explode(pattern):
            remedy = "make the outer repeat possessive: (a+)++ instead of (a+)+"
            raise self._refusal(key, f"{pattern!r} repeats a group with a repeat or a choice in it", remedy)
        try:
            return re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise self._refusal(key, f"{pattern!r} is not a regex: {error}", "correct it") from error

    def _checked_commands(self) -> re.Pattern[str] | None:
        """Return what finds the place before each line that the program would take for a command."""
        words = {line.strip() for line in self._table.stdin_suffix.splitlines()}.union(self._table.commands) - {""}
        if not words:
            return None
        escape = self._table.escape
        if not escape.strip() or not escape.isprintable() or escape.lstrip().startswith(tuple(words)):
            raise self._refusal("escape", f"{escape!r} protects nothing", 'use one that is no command, such as ">"')
        choice = "|".join(map(re.escape, sorted(words)))
        return re.compile(rf"(?:\A|[{_LINE_ENDS}])(?=(?:[^\S{_LINE_ENDS}]|\ufeff)*+(?:{choice}))")

    def _check_variables(self) -> None:
        for key, names in (("env", self._table.env), ("secrets", self._table.secrets)):
            for name in names:
                if not VARIABLE.fullmatch(name) or name in _OURS or name.startswith("ALCOVE_"):
                    raise self._refusal(
                        key, f"{name!r} cannot be given to a run", "Alcove sets it itself; leave it out"
                    )
        if both := sorted(self._table.env.keys() & set(self._table.secrets)):
            raise self._refusal("secrets", f"{both[0]!r} stands in env too", "take it out of one of them")
        if "\x00" in "".join(self._table.env.values()):
            raise self._refusal("env", "a value holds NUL", "remove it")


def _check_message(message: str) -> None:
    try:
        size = len(message.encode())
    except UnicodeEncodeError as error:
        raise InvalidError("the message holds a lone surrogate", field="message", remedy="remove it") from error
    if "\x00" in message:
        # Shells drop it, C ends there, an argument cannot hold it: each would run something else than was sent.
        raise InvalidError("a message to a program cannot hold NUL", field="message", remedy="remove it")
    if size > limits.CHAT_BYTES:
        raise TooLargeError(
            f"the message has {size} bytes",
            field="message",
            limit=limits.CHAT_BYTES,
            remedy="shorten it, or put it into a file of the workspace",
        )
