"""The transactions of imports and exports: what exists already is not changed, and times are those of then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alcove import limits
from alcove.archive import dialogs
from alcove.archive.lines import History, MessageLine, SessionLine, StepLine, TurnLine, ceiling, micros_of
from alcove.archive.messages import kept as kept_of
from alcove.archive.rules import Dated
from alcove.clock import SECOND, Micros
from alcove.database.op import Statement, Steps
from alcove.errors import SessionNotFoundError, StaleSequenceError
from alcove.messages import queries as messages
from alcove.messages.model import Stored, Turn
from alcove.runs import grant_queries
from alcove.sessions import queries as sessions
from alcove.sessions.heads import take
from alcove.sessions.model import Changes, NewSession


def create(now: Micros, new: NewSession, created_us: Micros) -> Steps[None]:
    """Create a session as of then. Raises what creating one does: AlreadyExistsError when there is one of that id."""
    yield from sessions.create(created_us, new, None)


def append(now: Micros, session_id: str, history: Sequence[Dated], expected_seq: int) -> Steps[int]:
    """Append messages, each as of then, if `expected_seq` is the last one; return the last seq.

    Raises:
        StaleSequenceError: Somebody else has appended.
        SessionBusyError, SessionNotFoundError, SessionExpiredError: It cannot be appended to now.
    """
    last_seq, _ = yield from take(now, session_id, 0, 0, None)
    for dated in history:
        appended = yield from messages.append(
            dated.at, session_id, [dated.message], expected_seq=expected_seq if dated is history[0] else None
        )
        last_seq = appended.last_seq
    return last_seq


def settle(now: Micros, session_id: str, active_us: Micros) -> Steps[None]:
    """Say when the session was last active: it was not today."""
    yield Statement("UPDATE heads SET last_activity = ? WHERE session_id = ?", (active_us, session_id))


def present(now: Micros) -> Steps[Micros]:
    """Return the database's present."""
    yield from ()
    return now


def turns(now: Micros, session_id: str, after: int, last: int, limit: int) -> Steps[list[Turn]]:
    """Return turns after a number up to the last one, ascending."""
    rows = yield Statement(
        "SELECT number, status, run_id, opened_at, closed_at FROM turns "
        "WHERE session_id = ? AND number > ? AND number <= ? ORDER BY number LIMIT ?",
        (session_id, after, last, limit),
    )
    return [Turn(*row) for row in rows]


def cleared(now: Micros, session_id: str) -> Steps[int]:
    """Return the seq up to which a session was cleared."""
    rows = yield Statement("SELECT cleared_seq FROM heads WHERE session_id = ?", (session_id,))
    return rows[0][0] if rows else 0


def add(
    now: Micros,
    session_id: str,
    opened: Sequence[TurnLine],
    said: Sequence[tuple[MessageLine, Stored]],
    stepped: Sequence[StepLine],
    kept: Mapping[tuple[str, int], str],
    files: Mapping[str, str],
) -> Steps[None]:
    """Add turns, messages and steps of an archive, each where it stands there; what is there of the others stays.

    `kept` has the ids of the definitions by name and number, `files` the file of each object of the messages.

    Raises:
        ObjectGoneError: An object was swept meanwhile; write it again.
        StaleSequenceError: Somebody else has appended.
        SessionBusyError, SessionNotFoundError: It cannot be appended to now.
    """
    last_seq, _ = yield from take(now, session_id, len(said), 0, None)
    if said and said[0][0].seq != last_seq - len(said) + 1:
        raise StaleSequenceError(
            f"session {session_id} was appended to while it was imported",
            field="archive",
            remedy="purge it, and try again",
        )
    if opened:
        yield Statement(
            "INSERT INTO turns (session_id, number, status, run_id, opened_at, closed_at) "
            "VALUES (?, ?, ?, '', ?, ?) ON CONFLICT (session_id, number) DO NOTHING",
            [(session_id, t.turn, t.status, micros_of(t.opened_at), micros_of(t.closed_at)) for t in opened],
            many=True,
        )
    if said:
        yield Statement(
            "INSERT INTO messages (session_id, seq, turn, role, format, content, detail, hidden, created_at, "
            "kept) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (session_id, line.seq, line.turn, message.role, message.format, message.content, message.detail)
                + (int(line.hidden), micros_of(line.created_at), kept_of(line))
                for line, message in said
            ],
            many=True,
        )
    if files:
        yield from messages.claim(now, session_id, said[0][0].seq, [message for _, message in said], files)
    if stepped:
        yield dialogs.add(session_id, stepped, kept)


def complete(now: Micros, new: NewSession, line: SessionLine, history: History) -> Steps[None]:
    """Say that all of a session is here: it gets its own metadata, counts, times and TTL.

    One that may expire has its idle time before it, and a day at least: it is not to go because it was away.
    """
    active = now if line.ttl_s else min(micros_of(line.last_activity), now)
    rows = yield Statement(
        "UPDATE heads SET message_count = ?, turn_count = ?, last_activity = ? WHERE session_id = ? AND trashed = 0 "
        "RETURNING session_id",
        (history.visible, line.turns, active, new.id),
    )
    if not rows:
        raise SessionNotFoundError(f"session {new.id} went while it was imported", session_id=new.id)
    if history.last_step:
        yield dialogs.settle(new.id, history.last_step)
    created = micros_of(line.created_at)
    yield from sessions.replace_metadata(new.tenant, new.id, created, new.metadata_json, new.indexed)
    ends = micros_of(line.ends_at or 0)
    ends = max(ends, now + limits.RESTORED_S * SECOND) if ends else 0
    yield Statement("UPDATE sessions SET ends_at = ? WHERE id = ?", (ends, new.id))
    yield from sessions.update(now, new.id, Changes(pinned=line.pinned, ttl_s=line.ttl_s), None)
    if within := ceiling(line):
        yield from grant_queries.set_ceiling(now, new.id, within)
