"""The transactions that remove a session's rows, a bounded number at a time."""

from __future__ import annotations

import msgspec

from alcove.clock import Micros
from alcove.database.op import Statement, Steps

_SMALL = (
    "DELETE FROM turns WHERE session_id = ?",
    "DELETE FROM session_metadata WHERE session_id = ?",
    "DELETE FROM session_keys WHERE session_id = ?",
    "DELETE FROM heads WHERE session_id = ?",
    "DELETE FROM sessions WHERE id = ?",
)


class Gone(msgspec.Struct, frozen=True):
    """Rows that one step removed, and whether there is more."""

    messages: int
    events: int
    more: bool


def purge(now: Micros, session_id: str, limit: int) -> Steps[Gone]:
    """Remove up to `limit` messages or events of a trashed session; with none left, the session itself."""
    messages = yield Statement(
        "DELETE FROM messages WHERE session_id = ? AND seq IN "
        "(SELECT seq FROM messages WHERE session_id = ? ORDER BY seq LIMIT ?) RETURNING seq",
        (session_id, session_id, limit),
    )
    if messages:
        return Gone(len(messages), 0, more=True)
    runs = yield Statement("SELECT id FROM runs WHERE session_id = ? LIMIT 1", (session_id,))
    if runs:
        [(run_id,)] = runs
        events = yield Statement(
            "DELETE FROM events WHERE run_id = ? AND n IN "
            "(SELECT n FROM events WHERE run_id = ? ORDER BY n LIMIT ?) RETURNING n",
            (run_id, run_id, limit),
        )
        if len(events) < limit:
            yield Statement("DELETE FROM runs WHERE id = ?", (run_id,))
        return Gone(0, len(events), more=True)
    for scope in (f"append:{session_id}", f"run:{session_id}"):
        yield Statement("DELETE FROM idempotency WHERE scope = ?", (scope,))
    for sql in _SMALL:
        yield Statement(sql, (session_id,))
    return Gone(0, 0, more=False)
