"""The transactions of the queue of a session: runs that wait until it is free, each started exactly once, in order."""

from __future__ import annotations

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.database.idempotency import Once, remember
from alcove.database.op import Statement, Steps
from alcove.errors import QueueFullError
from alcove.events import queries as events
from alcove.events.model import NewEvent
from alcove.runs import queries, steering_queries
from alcove.runs.grants import Asked
from alcove.runs.model import Ending, NewRun
from alcove.runs.queries import Lost, Started
from alcove.sessions import heads
from alcove.sessions.heads import Fence

_ORDER = "ORDER BY urgent DESC, position"


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it was asked for: all that is needed to start it later, in another process.

    Attributes:
        session_id: Where.
        message: What the user says.
        agent: Who answers.
        language: Language to reply in.
        timeout_s: Wall time.
        grant: What the run is to be allowed.
        parent_run: The run that hands its rights on, `''` for none.
        by: Who asks.
    """

    session_id: str
    message: str
    agent: str
    language: str | None
    timeout_s: float | None
    grant: Asked
    parent_run: str
    by: str


class Queued(msgspec.Struct, frozen=True):
    """A message that waits in a session.

    Attributes:
        run_id: The run that is to answer it.
        position: Its place in the queue, from 1.
        message: What the user says.
        agent: Who is to answer.
        interrupts: Whether it came to interrupt: such ones go first.
        made_by: Who asked.
        created_us: When it was queued.
    """

    run_id: str
    position: int
    message: str
    agent: str
    interrupts: bool
    made_by: str
    created_us: Micros


class Claimed(msgspec.Struct, frozen=True):
    """The first of a queue, and the right to start it.

    Attributes:
        run_id: Its run.
        wish: What was asked for.
        fence: Holds the session for it.
        lost: Whose lease was taken over: what that has left is ended before anything begins.
    """

    run_id: str
    wish: Wish
    fence: Fence
    lost: Lost | None


class Waiting(msgspec.Struct, frozen=True):
    """The first of a queue, looked at.

    Attributes:
        run_id: Its run.
        agent: Who is to answer.
        urgent: Whether it came to interrupt.
        free: Whether nobody holds the session.
        waited_us: For how long it has been waiting.
    """

    run_id: str
    agent: str
    urgent: bool
    free: bool
    waited_us: Micros


def put(now: Micros, new: NewRun, wish: Wish, urgent: bool, request: Once | None) -> Steps[Started]:
    """Queue a run behind those that are queued, one that interrupts before those that do not. That is activity.

    Raises:
        SessionNotFoundError, SessionExpiredError: There is no session for it.
        QueueFullError: `limits.QUEUE_MESSAGES` wait there already.
    """
    yield from heads.stir(now, new.session_id)
    [[waiting, last]] = yield Statement(
        "SELECT COUNT(*), COALESCE(MAX(position), 0) FROM queue WHERE session_id = ?", (new.session_id,)
    )
    if waiting >= limits.QUEUE_MESSAGES:
        raise QueueFullError(
            f"{waiting} messages wait in session {new.session_id}",
            field="message",
            limit=limits.QUEUE_MESSAGES,
            remedy="wait for some, or cancel their runs",
            session_id=new.session_id,
        )
    yield queries.insert_queued(now, new)
    yield Statement(
        "INSERT INTO queue (run_id, session_id, urgent, position, wish, holder, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (new.id, new.session_id, int(urgent), last + 1, msgspec.json.encode(wish).decode(), new.holder, now),
    )
    [[before]] = yield Statement(
        "SELECT COUNT(*) FROM queue WHERE session_id = ? AND (urgent > ? OR (urgent = ? AND position <= ?))",
        (new.session_id, int(urgent), int(urgent), last + 1),
    )
    told = queries.queued(new)
    yield events.insert(now, new.id, 1, [NewEvent(told.type, {**told.data, "position": before})])
    started = Started(new.id, new.session_id, 0, 0, 0, how="queued")
    if request:
        yield remember(now, request, started)
    return started


def join(now: Micros, run_id: str, wish: Wish, request: Once | None) -> Steps[Started]:
    """Put a message to the run that holds its session, instead of starting one: see `steering_queries.put`."""
    yield from steering_queries.put(now, run_id, wish.message, wish.by, None)
    started = Started(run_id, wish.session_id, 0, 0, 0, how="steered")
    if request:
        yield remember(now, request, started)
    return started


def first(now: Micros, session_id: str) -> Steps[Waiting | None]:
    """Return the first of a queue, and whether its session is free."""
    rows = yield Statement(
        "SELECT q.run_id, r.agent, q.urgent, h.lease_until <= ?, q.created_at FROM queue q "
        "JOIN heads h ON h.session_id = q.session_id JOIN runs r ON r.id = q.run_id "
        f"WHERE q.session_id = ? {_ORDER} LIMIT 1",
        (now, session_id),
    )
    if not rows:
        return None
    [(run_id, agent, urgent, free, created)] = rows
    return Waiting(run_id, agent, bool(urgent), bool(free), now - created)


def check_free(now: Micros, session_id: str) -> Steps[None]:
    """Look whether a run could start now; raises what `queries.start` would, and changes nothing."""
    yield from heads.check_free(now, session_id)
    yield from queries.check_queue(now, session_id)


def claim(now: Micros, session_id: str, holder: str) -> Steps[Claimed | None]:
    """Take the session for the first of its queue, which stays there until it starts; None when nothing waits.

    A run that has lost its lease is marked lost here. Until its processes are ended, the row of the claimed run names
    them, so that whoever has to take over from this claim ends them, and removes what the claim had prepared.

    Raises:
        SessionBusyError: Somebody holds it; another claim, for one.
        SessionNotFoundError, SessionExpiredError: Nothing can start there any more.
    """
    rows = yield Statement(f"SELECT run_id, wish FROM queue WHERE session_id = ? {_ORDER} LIMIT 1", (session_id,))
    if not rows:
        return None
    [(run_id, wish)] = rows
    fence = yield from heads.hold(now, session_id, run_id, queries.LEASE)
    lost = yield from queries.supersede(now, session_id)
    before = yield Statement("SELECT epoch, tree FROM runs WHERE id = ? AND status = 'queued'", (run_id,))
    if not before:
        # It was cancelled between the two: the next one is first.
        yield from heads.release(now, session_id, fence)
        return None
    [(claimed_before, tree)] = before
    if lost is None and claimed_before:
        lost = Lost(run_id, tree)
    yield Statement(
        "UPDATE runs SET holder = ?, epoch = ?, tree = ? WHERE id = ?",
        (holder, fence.epoch, lost.tree if lost else "", run_id),
    )
    return Claimed(run_id, msgspec.json.decode(wish, type=Wish), fence, lost)


def claims(now: Micros) -> Steps[list[tuple[str, Fence, str]]]:
    """Return the claims that hold a session: where, by which fence, and which process made it."""
    rows = yield Statement(
        "SELECT r.session_id, r.id, r.epoch, r.holder FROM queue q JOIN runs r ON r.id = q.run_id "
        "JOIN heads h ON h.session_id = r.session_id WHERE h.lease_run = r.id AND h.epoch = r.epoch"
    )
    return [(session_id, Fence(run_id, epoch), holder) for session_id, run_id, epoch, holder in rows]


def drop(now: Micros, run_id: str, ending: Ending) -> Steps[bool]:
    """End a run that is queued; return whether it was."""
    rows = yield Statement("DELETE FROM queue WHERE run_id = ? RETURNING 1", (run_id,))
    if not rows:
        return False
    yield Statement(
        "UPDATE runs SET status = ?, error = ?, ended_at = ? WHERE id = ?", (ending.status, ending.error, now, run_id)
    )
    yield from events.add_last(now, run_id, [queries.finished(ending)])
    return True


def waiting(now: Micros, session_id: str) -> Steps[list[Queued]]:
    """Return what waits in a session, the next one first."""
    rows = yield Statement(
        f"SELECT run_id, urgent, wish, created_at FROM queue WHERE session_id = ? {_ORDER}", (session_id,)
    )
    found: list[Queued] = []
    for number, (run_id, urgent, text, created) in enumerate(rows, 1):
        wish = msgspec.json.decode(text, type=Wish)
        found.append(Queued(run_id, number, wish.message, wish.agent, bool(urgent), wish.by, created))
    return found


def sessions(now: Micros, quiet: Micros, after: str, limit: int) -> Steps[list[tuple[str, str, bool]]]:
    """Return free sessions in which something waits, by id: one of those who took it in, and whether it is quiet."""
    rows = yield Statement(
        "SELECT q.session_id, MIN(q.holder), MAX(CASE WHEN h.last_activity <= ? THEN 1 ELSE 0 END) FROM queue q "
        "JOIN heads h ON h.session_id = q.session_id WHERE h.trashed = 0 AND h.lease_until <= ? AND q.session_id > ? "
        "GROUP BY q.session_id ORDER BY q.session_id LIMIT ?",
        (now - quiet, now, after, limit),
    )
    return [(session_id, holder, bool(long)) for session_id, holder, long in rows]
