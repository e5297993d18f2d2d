"""The transactions of imports: what exists already is not changed, and times are those of then."""

from __future__ import annotations

from collections.abc import Sequence

from alcove.archive.rules import Dated
from alcove.clock import Micros
from alcove.database.op import Statement, Steps
from alcove.messages import queries as messages
from alcove.sessions import queries as sessions
from alcove.sessions.heads import take
from alcove.sessions.model import NewSession


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
