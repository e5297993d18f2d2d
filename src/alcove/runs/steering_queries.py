"""The transactions of messages for runs that go on: put, taken by the run, and returned when it has ended before."""

from __future__ import annotations

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.database.idempotency import Once, remember
from alcove.database.op import Statement, Steps, Value
from alcove.errors import AlcoveError, ConflictError, QueueFullError, RunEndedError, RunNotFoundError
from alcove.events.model import NewEvent
from alcove.messages.model import Draft, Stored
from alcove.messages.rules import stored
from alcove.values import Json

_TAKES = "ended_at = 0 AND status IN ('running', 'waiting') AND cancelling = 0 AND (due_at = 0 OR due_at > ?)"


class Steered(msgspec.Struct, frozen=True):
    """A message that was put to a run.

    Attributes:
        run_id: Which run.
        n: Its number among those that were put to that run, from 1.
        waiting: How many wait for the run now, this one included.
        replayed: Whether an earlier call with the same idempotency key put it.
    """

    run_id: str
    n: int
    waiting: int
    replayed: bool = False


class Taken(msgspec.Struct, frozen=True):
    """A message that its run has taken.

    Attributes:
        seq: Its place in the session's history, 0 for a run without a session.
        text: What it says.
    """

    seq: int
    text: str


class Pulled(msgspec.Struct, frozen=True):
    """What a run has taken, oldest first, and how many still wait for it."""

    messages: list[Taken]
    waiting: int


class Unread(msgspec.Struct, frozen=True):
    """A message that was put to a run, which has not taken it.

    Attributes:
        n: Its number.
        text: What it says.
        made_by: Who put it.
        returned: Whether the run has ended without it.
        created_us: When it was put.
    """

    n: int
    text: str
    made_by: str
    returned: bool
    created_us: Micros


def put(now: Micros, run_id: str, text: str, made_by: str, request: Once | None) -> Steps[Steered]:
    """Put a message to a run that goes on.

    Raises:
        RunNotFoundError, RunEndedError, ConflictError: It cannot take any: there is none, it ends, it has not begun.
        QueueFullError: `limits.STEERING_MESSAGES` wait for it already.
    """
    rows = yield Statement(
        f"UPDATE runs SET steered = steered + 1 WHERE id = ? AND {_TAKES} RETURNING steered", (run_id, now)
    )
    if not rows:
        raise (yield from _refusal(now, run_id))
    waiting = yield from count(now, run_id)
    if waiting >= limits.STEERING_MESSAGES:
        raise QueueFullError(
            f"{waiting} messages wait for run {run_id}",
            field="message",
            limit=limits.STEERING_MESSAGES,
            remedy="wait until it takes some",
            run_id=run_id,
        )
    n = rows[0][0]
    yield Statement(
        "INSERT INTO steering (run_id, n, message, made_by, returned, created_at) VALUES (?, ?, ?, ?, 0, ?)",
        (run_id, n, text, made_by, now),
    )
    steered = Steered(run_id, n, waiting + 1)
    if request:
        yield remember(now, request, steered)
    return steered


def find(now: Micros, session_id: str, agent: str, hosted: bool = True) -> Steps[str | None]:
    """Return the newest run of a session that takes messages: of one agent when that is named, hosted ones too."""
    condition, values = ("AND agent = ? ", (agent,)) if agent else ("", ())
    if not hosted:
        condition += "AND hosted = 0 "
    rows = yield Statement(
        f"SELECT id FROM runs WHERE session_id = ? {condition}AND {_TAKES} ORDER BY created_at DESC, id DESC LIMIT 1",
        (session_id, *values, now),
    )
    return rows[0][0] if rows else None


def take(now: Micros, run_id: str, limit: int) -> Steps[tuple[list[str], int]]:
    """Take the oldest messages that wait for a run, at most `limit`; return them, and how many still wait."""
    rows = yield Statement(
        "SELECT n, message FROM steering WHERE run_id = ? AND returned = 0 ORDER BY n LIMIT ?", (run_id, limit)
    )
    if rows:
        last = rows[-1][0]
        yield Statement("DELETE FROM steering WHERE run_id = ? AND returned = 0 AND n <= ?", (run_id, last))
    return [text for _, text in rows], (yield from count(now, run_id))


def count(now: Micros, run_id: str) -> Steps[int]:
    """Return how many messages wait for a run."""
    [[number]] = yield Statement("SELECT COUNT(*) FROM steering WHERE run_id = ? AND returned = 0", (run_id,))
    return int(number)


def unread(now: Micros, run_id: str) -> Steps[list[Unread]]:
    """Return the messages that were put to a run and that it has not taken, oldest first."""
    rows = yield Statement(
        "SELECT n, message, made_by, returned, created_at FROM steering WHERE run_id = ? ORDER BY n", (run_id,)
    )
    return [Unread(n, text, made_by, bool(returned), created) for n, text, made_by, returned, created in rows]


def give_back(now: Micros, run_id: str) -> Steps[list[NewEvent]]:
    """Return what a run that ends has not taken to whoever put it there; return the event that tells, if any."""
    rows = yield Statement(
        "UPDATE steering SET returned = 1 WHERE run_id = ? AND returned = 0 RETURNING n, message", (run_id,)
    )
    if not rows:
        return []
    # A character takes four bytes at most; what is too long for an event is read by its number.
    room = limits.EVENT_BYTES // 4
    told: list[Json] = []
    for n, text in sorted((n, text) for n, text in rows):
        room -= len(text)
        told.append({"n": n, "text": text if room >= 0 else None})
    return [NewEvent("steering.returned", {"messages": told})]


def spoken(text: str) -> Stored:
    """Return a message as its run takes it into the history."""
    return stored(Draft("user", text, metadata={"steered": True}))


def _refusal(now: Micros, run_id: str) -> Steps[AlcoveError]:
    values: tuple[Value, ...] = (run_id,)
    rows = yield Statement("SELECT status, ended_at, cancelling FROM runs WHERE id = ?", values)
    if not rows:
        return RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)
    [(status, ended_at, cancelling)] = rows
    if status == "queued":
        return ConflictError(
            f"run {run_id} is queued: it has not begun", field="run_id", remedy="queue this too", run_id=run_id
        )
    how = f"has ended ({status})" if ended_at else "is to end" if cancelling else "was not heard of in time: it is lost"
    return RunEndedError(f"run {run_id} {how}", field="run_id", remedy="start another", run_id=run_id)
