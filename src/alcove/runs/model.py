"""What a run is, as records. Instants are microseconds since the epoch."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from alcove.clock import Micros, instant
from alcove.messages.model import TurnStatus


class RunStatus(StrEnum):
    """Where a run is. Everything but `queued`, `running` and `waiting` is an end."""

    QUEUED = "queued"  # until its session is free; it may nothing yet
    RUNNING = "running"
    WAITING = "waiting"  # for a person's answer
    FINISHED = "finished"  # the program ended by itself, with any exit code: that is its answer
    FAILED = "failed"  # the agent could not be run, or broke
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # it gave way to a newer message
    TIMED_OUT = "timed_out"
    LOST = "lost"  # whoever looked after it is gone


LIVE: Final = frozenset({RunStatus.RUNNING, RunStatus.WAITING})
"""Where a run is that has started and not ended: only then has it any authority."""

TURN_ENDS: dict[str, TurnStatus] = {
    RunStatus.FINISHED: "done",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
    RunStatus.INTERRUPTED: "cancelled",
    RunStatus.TIMED_OUT: "cancelled",
    RunStatus.LOST: "lost",
}


class Run(msgspec.Struct, frozen=True):
    """A run as it stood when it was read. The fields are in the order of `queries._COLUMNS`.

    Attributes:
        turn: The turn that it answers, 0 while it is queued.
        exit_code: The program's, or 128 + the signal that ended it; None while it runs and for functions.
        error: Why it failed, `''` otherwise.
        answer_seq: The `seq` of its answer, 0 while there is none.
        epoch: The session's epoch while it held the lease.
        holder: The process that looks after it.
        tree: The tree of processes that it started, `''` for none.
        digest: SHA-256, in hex, of its grant: what it may do, frozen when it started (`Runs.grant`); `''` while it is
            queued.
        rung: The sandbox that it ran in, `''` until it started, `in-process` for a function, `hosted` for one that a
            host framework executes.
        guarantees_json: What that rung was proven to guarantee on this machine.
        ended_us: 0 while it runs.
        tenant: Whose it is.
        user_id: Which user's, `''` for nobody's.
        parent_run: The run that handed its rights on, `''` for none.
        root_run: The run at the top of its tree; its own id for one without a parent.
        hosted: Whether a host framework executes it.
        due_us: When it is lost unless it is heard of before; 0 for those that Alcove executes.
        cancelling: Whether somebody asked to end it: 1 to cancel it, 2 to have it give way.
        replayed: Whether it was started by an earlier call with the same idempotency key.
        steered: Whether it was going on already, and the message waits for it to take.
    """

    id: str
    session_id: str
    turn: int
    agent: str
    status: str
    exit_code: int | None
    error: str
    answer_seq: int
    epoch: int
    holder: str
    tree: str
    digest: str
    rung: str
    guarantees_json: str
    created_us: Micros
    ended_us: Micros
    tenant: str = "default"
    user_id: str = ""
    parent_run: str = ""
    root_run: str = ""
    hosted: int = 0
    due_us: Micros = 0
    cancelling: int = 0
    replayed: bool = False
    steered: bool = False

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.status not in LIVE and self.status != RunStatus.QUEUED

    def as_started(self, *, replayed: bool) -> Run:
        """Return it as it was when it started: what every repetition of the start is answered."""
        return msgspec.structs.replace(
            self,
            status=RunStatus.RUNNING,
            exit_code=None,
            error="",
            answer_seq=0,
            tree="",
            rung="",
            guarantees_json="",
            ended_us=0,
            replayed=replayed,
        )

    def as_queued(self, *, replayed: bool) -> Run:
        """Return it as it was when it was queued: what every repetition is answered."""
        told = self.as_started(replayed=replayed)
        return msgspec.structs.replace(told, status=RunStatus.QUEUED, turn=0, epoch=0, holder="", digest="")

    @property
    def created_at(self) -> datetime:
        """When it started, or was queued."""
        return instant(self.created_us)


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run before it starts."""

    id: str
    session_id: str
    agent: str
    holder: str
    tenant: str
    user_id: str
    parent_run: str
    root_run: str
    grant_json: str
    cuts_json: str
    digest: str


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended, and what it said.

    Attributes:
        status: An end.
        text: The answer as it becomes a message; `''` leaves none.
        limit: The name of the limit that ended it, `''` for none; `error` has its value and a remedy.
        files: Paths that changed in the workspace, None when they were not compared.
    """

    status: str
    text: str = ""
    exit_code: int | None = None
    error: str = ""
    limit: str = ""
    files: tuple[str, ...] | None = None


class Reply(msgspec.Struct, frozen=True):
    """A run that has ended and its answer.

    Attributes:
        run: The run.
        text: What it answered.
        returned: Messages that were put to it and that it has not taken, oldest first.
    """

    run: Run
    text: str
    returned: tuple[str, ...] = ()


class RunFilters(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs; every one that is given must hold. The names are those of the columns, but for `active`.

    Attributes:
        session_id: Of this session.
        tenant: Of this tenant.
        user_id: Of this user.
        agent: Of this agent.
        status: With this status.
        parent_run: Handed on by this run.
        root_run: Of the tree below this run.
        hosted: 1 for those that a host framework executes, 0 for those that Alcove does.
        active: Whether they have not ended.
    """

    session_id: str | None = None
    tenant: str | None = None
    user_id: str | None = None
    agent: str | None = None
    status: str | None = None
    parent_run: str | None = None
    root_run: str | None = None
    hosted: int | None = None
    active: bool | None = None


class RunPage(msgspec.Struct, frozen=True):
    """Runs, newest first, and the cursor of the next page (None on the last)."""

    runs: list[Run]
    next_cursor: str | None
