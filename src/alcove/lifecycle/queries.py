"""The transactions that remove a session's rows, a bounded number at a time."""

from __future__ import annotations

import msgspec

from alcove.audit.model import Witness
from alcove.audit.queries import forget_session, record
from alcove.clock import Micros
from alcove.database.op import Row, Statement, Steps
from alcove.lifecycle.model import By, Gone

_SMALL = (
    "DELETE FROM session_metadata WHERE session_id = ?",
    "DELETE FROM session_keys WHERE session_id = ?",
    "DELETE FROM ceilings WHERE session_id = ?",
    "DELETE FROM state_values WHERE tenant = '' AND app = '' AND scope = 'session' AND owner = ?",
    "DELETE FROM heads WHERE session_id = ?",
)
_OF_RUN = (
    "DELETE FROM queue WHERE run_id = ?",
    "DELETE FROM steering WHERE run_id = ?",
    "DELETE FROM grant_changes WHERE run_id = ?",
    "DELETE FROM grants WHERE run_id = ?",
    "DELETE FROM state_values WHERE tenant = '' AND app = '' AND scope = 'run' AND owner = ?",
    "DELETE FROM runs WHERE id = ?",
)


def purge(
    now: Micros, session_id: str, limit: int, by: By | None, before: Gone, witness: Witness | None = None
) -> Steps[tuple[Gone, bool]]:
    """Remove up to `limit` messages, turns, answers or events of a trashed session; with none left, the session itself.

    The answer to its creation stays under its idempotency key: a late repetition must not create it anew. What was
    audited in it keeps its codes and digests, and loses its words.

    Args:
        now: The time.
        session_id: Which session.
        limit: How many rows at most.
        by: Why and by whom, for the log; None leaves no trace.
        before: What was removed of this session by the steps before.
        witness: Writes the row of the audit.

    Returns:
        What this step removed, and whether there is more.
    """
    messages = yield from _some("messages", "session_id", session_id, "seq", limit)
    if messages:
        return Gone(messages=messages, rows=messages), True
    for table, column, value, order in (
        ("turns", "session_id", session_id, "number"),
        ("dialog_steps", "session_id", session_id, "version"),
        ("idempotency", "scope", f"append:{session_id}", "key"),
        ("idempotency", "scope", f"dialog:{session_id}", "key"),
        ("idempotency", "scope", f"run:{session_id}", "key"),
        ("idempotency", "scope", f"steer:{session_id}", "key"),
    ):
        if rows := (yield from _some(table, column, value, order, limit)):
            return Gone(rows=rows), True
    runs = yield Statement("SELECT id FROM runs WHERE session_id = ? LIMIT 1", (session_id,))
    if runs:
        [(run_id,)] = runs
        return (yield from purge_run(now, run_id, limit)), True
    if by and (yield from forget_session(now, witness, session_id, limit)):
        return Gone(), True  # the rows stay
    rows = 0
    for sql in _SMALL:
        rows += len((yield Statement(f"{sql} RETURNING 1", (session_id,))))
    session = yield Statement("DELETE FROM sessions WHERE id = ? RETURNING trash_id, tenant", (session_id,))
    gone = Gone(rows=rows + len(session))
    if session and by:
        yield deeds(now, [(session_id, *session[0], before + gone)], "purged", by)
        yield from _audited(now, witness, session_id, session[0], by, before + gone)
    return gone, False


def _audited(now: Micros, witness: Witness | None, session_id: str, found: Row, by: By, gone: Gone) -> Steps[None]:
    """Audit a purge: by the digest of the session, whose id is found in the log of deeds and nowhere else."""
    if witness is None:
        return
    trash_id, tenant = found
    removed = msgspec.structs.asdict(gone)
    subject = witness.seals.digest(f"session:{session_id}")
    yield from record(
        now, witness, "session.purged", subject, tenant=tenant, why=by.why, trash_id=trash_id, removed=removed
    )


def purge_run(now: Micros, run_id: str, limit: int) -> Steps[Gone]:
    """Remove up to `limit` answers or events of a run; with none left its grant and itself: then `runs` is 1."""
    for table, column, value, order in (
        ("idempotency", "scope", f"report:{run_id}", "key"),
        ("idempotency", "scope", f"approval:{run_id}", "key"),
        ("idempotency", "scope", f"steer:{run_id}", "key"),
        ("approvals", "run_id", run_id, "id"),
    ):
        if rows := (yield from _some(table, column, value, order, limit)):
            return Gone(rows=rows)
    events = yield from _some("events", "run_id", run_id, "n", limit)
    rows = events
    if events == limit:
        return Gone(events=events, rows=rows)
    for sql in _OF_RUN:
        rows += len((yield Statement(f"{sql} RETURNING 1", (run_id,))))
    return Gone(events=events, runs=1, rows=rows)


def deeds(now: Micros, sessions: list[tuple[str, str, str, Gone | None]], what: str, by: By) -> Statement:
    """Return the statement that logs what was done to sessions: each by id, trashing, tenant and what was removed."""
    return Statement(
        "INSERT INTO deeds (session_id, trash_id, what, tenant, why, who, created_at, removed) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (session_id, trash_id, what) DO NOTHING",
        [
            (session_id, trash_id, what, tenant, by.why, by.who, now)
            + (msgspec.json.encode(removed).decode() if removed else "",)
            for session_id, trash_id, tenant, removed in sessions
        ],
        many=True,
    )


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
