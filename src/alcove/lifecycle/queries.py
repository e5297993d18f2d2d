"""The transactions that remove a session's rows, a bounded number at a time."""

from __future__ import annotations

import msgspec

from alcove.clock import Micros
from alcove.database.op import Statement, Steps

_SMALL = (
    "DELETE FROM session_metadata WHERE session_id = ?",
    "DELETE FROM session_keys WHERE session_id = ?",
    "DELETE FROM ceilings WHERE session_id = ?",
    "DELETE FROM heads WHERE session_id = ?",
    "DELETE FROM sessions WHERE id = ?",
)
_OF_RUN = (
    "DELETE FROM grant_changes WHERE run_id = ?",
    "DELETE FROM grants WHERE run_id = ?",
    "DELETE FROM runs WHERE id = ?",
)


class Gone(msgspec.Struct, frozen=True):
    """Rows that one step removed, and whether there is more."""

    messages: int
    events: int
    more: bool


def purge(now: Micros, session_id: str, limit: int) -> Steps[Gone]:
    """Remove up to `limit` messages, turns, answers or events of a trashed session; with none left, the session itself.

    The answer to its creation stays under its idempotency key: a late repetition must not create it anew.
    """
    messages = yield from _some("messages", "session_id", session_id, "seq", limit)
    if messages:
        return Gone(messages, 0, more=True)
    for table, column, value, order in (
        ("turns", "session_id", session_id, "number"),
        ("dialog_steps", "session_id", session_id, "version"),
        ("idempotency", "scope", f"append:{session_id}", "key"),
        ("idempotency", "scope", f"dialog:{session_id}", "key"),
        ("idempotency", "scope", f"run:{session_id}", "key"),
    ):
        if (yield from _some(table, column, value, order, limit)):
            return Gone(0, 0, more=True)
    runs = yield Statement("SELECT id FROM runs WHERE session_id = ? LIMIT 1", (session_id,))
    if runs:
        [(run_id,)] = runs
        events = yield from _some("events", "run_id", run_id, "n", limit)
        if events < limit:
            for sql in _OF_RUN:
                yield Statement(sql, (run_id,))
        return Gone(0, events, more=True)
    for sql in _SMALL:
        yield Statement(sql, (session_id,))
    return Gone(0, 0, more=False)


def _some(table: str, column: str, value: str, order: str, limit: int) -> Steps[int]:
    """Delete the first rows that have a value, at most `limit` of them; return how many."""
    rows = yield Statement(
        f"DELETE FROM {table} WHERE {column} = ? AND {order} IN "
        f"(SELECT {order} FROM {table} WHERE {column} = ? ORDER BY {order} LIMIT ?) RETURNING {order}",
        (value, value, limit),
    )
    return len(rows)


def uncreate(now: Micros, scope: str, key: str) -> Steps[None]:
    """Forget the answer to a creation that was taken back, so that it may be tried again under the same key."""
    yield Statement("DELETE FROM idempotency WHERE scope = ? AND key = ?", (scope, key))
