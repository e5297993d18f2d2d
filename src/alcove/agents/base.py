"""The records that pass between an agent and the run that uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from alcove import limits
from alcove.errors import ClosedError
from alcove.rights.approvals import Approval
from alcove.rights.model import Network
from alcove.values import Json
from alcove.workspaces.bound import RunFiles

Kind: TypeAlias = Literal["command", "function"]


class Line(NamedTuple):
    """One earlier message, as text."""

    role: str
    text: str


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What a program is asked.

    Attributes:
        message: The user's message, at most `limits.CHAT_BYTES` as UTF-8.
        history: Earlier messages, oldest first; an agent takes the last rounds that it was configured for.
        language: Language to reply in; None for the agent's own, empty for no instruction.
    """

    message: str
    history: Sequence[Line] = ()
    language: str | None = None


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a program once.

    Attributes:
        argv: Absolute path of the program, then its arguments.
        stdin: All that it reads; then end of file.
        env: Variables added to those that every run has.
        secrets: Further ones, to be told to nobody else.
        network: What it may reach at most.
        read: Further absolute paths that it may read at most.
        needs: Absolute paths that have to be readable for it to start at all: the program itself.
        nest: Whether it may put a sandbox of its own inside ours.
        timeout_s: Wall time after which it is ended.
    """

    argv: tuple[str, ...]
    stdin: bytes
    env: Mapping[str, str]
    secrets: Mapping[str, str]
    network: Network
    read: tuple[str, ...]
    needs: tuple[str, ...]
    nest: bool
    timeout_s: int


class AgentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An agent as `doctor` and the API show it.

    Attributes:
        name: Its name.
        kind: `command` or `function`.
        description: One sentence.
        program: What would be run, `''` for a function.
        network: What it may reach: `none`, `host`, or the hosts; a function may reach what this process may.
        available: Whether a run could start; the program itself was not run.
        reason: Why not.
    """

    name: str
    kind: Kind
    description: str
    program: str
    network: Network
    available: bool
    reason: str = ""


class Ask(Protocol):
    """Asks a person."""

    async def __call__(
        self,
        kind: str,
        name: str,
        operation: str = "",
        arguments: Json = None,
        *,
        message: str = "",
        expires_s: float = limits.APPROVAL_S,
    ) -> Approval:
        """Ask, wait for the answer and return it: true for a yes; see `Runs.ask`."""
        ...


async def nobody(
    kind: str,
    name: str,
    operation: str = "",
    arguments: Json = None,
    *,
    message: str = "",
    expires_s: float = limits.APPROVAL_S,
) -> Approval:
    """Stand for a person where there is none.

    Raises:
        ClosedError: Always.
    """
    del kind, name, operation, arguments, message, expires_s
    raise ClosedError("nobody can be asked here", remedy="take it for a no")


class Pull(Protocol):
    """Takes messages that came since the run began."""

    async def __call__(self, limit: int = limits.STEERING_MESSAGES) -> list[str]:
        """Take the oldest messages that wait, at most `limit`, and return what they say; see `Runs.pull`."""
        ...


async def nothing(limit: int = limits.STEERING_MESSAGES) -> list[str]:
    """Stand for messages where none can come."""
    del limit
    return []


class AgentContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a function agent gets.

    Attributes:
        session_id: The session.
        run_id: The run.
        message: The user's message.
        workspace: Absolute path of the session's workspace.
        history: Returns the last rounds before this message, oldest first; the argument is their number.
        emit: Streams a piece of output to whoever listens. May be called from any thread: a thread waits in it while
            much is not yet written; in the event loop it is an error to be `limits.EMIT_BYTES` ahead. Once the run has
            ended it raises `ClosedError`.
        drain: Waits until there is room again, for code in the event loop that emits much.
        files: The session's files, to be changed while the run holds it; None in a hub without workspaces. What
            comes by this way never leaves the workspace, whatever a path or a link says.
        ask: Asks a person whether something may be done, and waits for the answer, which is true for a yes. Meanwhile
            the run is `waiting` and its time stands still.
        pull: Takes the messages that came meanwhile to steer the run, oldest first: all of them, or `pull(1)` for one
            at a time. What is not taken before the end is returned to whoever sent it.
    """

    session_id: str
    run_id: str
    message: str
    workspace: str
    history: Callable[[int], Awaitable[Sequence[Line]]]
    emit: Callable[[str], None]
    drain: Callable[[], Awaitable[None]]
    files: RunFiles | None = None
    ask: Ask = nobody
    pull: Pull = nothing
