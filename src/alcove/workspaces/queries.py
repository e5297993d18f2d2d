"""The transactions of workspaces: the uid that a session's programs run as, and what its files take."""

from __future__ import annotations

import msgspec

from alcove.clock import Micros
from alcove.database.op import Statement, Steps
from alcove.errors import StorageError
from alcove.sessions import heads
from alcove.workspaces.model import Usage


class Totals(msgspec.Struct, frozen=True):
    """What all workspaces take, as last measured."""

    workspaces: int
    files: int
    size_bytes: int


def usage(now: Micros, session_id: str) -> Steps[Usage]:
    """Return what the workspace took when it was last measured."""
    rows = yield Statement("SELECT size_bytes, files FROM workspaces WHERE session_id = ?", (session_id,))
    return Usage(size_bytes=rows[0][0], files=rows[0][1]) if rows else Usage(size_bytes=0, files=0)


def totals(now: Micros) -> Steps[Totals]:
    """Return what all workspaces take."""
    rows = yield Statement("SELECT COUNT(*), COALESCE(SUM(files), 0), COALESCE(SUM(size_bytes), 0) FROM workspaces")
    return Totals(*(int(value) for value in rows[0]))


def measured(now: Micros, session_id: str, taken: Usage) -> Statement:
    """Return the statement that records what a workspace takes."""
    return Statement(
        "UPDATE workspaces SET files = ?, size_bytes = ?, measured_at = ? WHERE session_id = ?",
        (taken.files, taken.size_bytes, now, session_id),
    )


def measure(now: Micros, session_id: str, taken: Usage) -> Steps[None]:
    """Record what a workspace takes."""
    yield measured(now, session_id, taken)


def find(now: Micros, session_id: str) -> Steps[int | None]:
    """Return the uid of a session's workspace, 0 for the server's own; None where there is no workspace to use."""
    rows = yield Statement(
        "SELECT w.uid FROM workspaces w JOIN heads h ON h.session_id = w.session_id "
        "WHERE w.session_id = ? AND h.trashed = 0",
        (session_id,),
    )
    return rows[0][0] if rows else None


def there(now: Micros, session_id: str) -> Steps[bool]:
    """Return whether there is such a session, out of the trash."""
    rows = yield Statement("SELECT epoch FROM heads WHERE session_id = ? AND trashed = 0", (session_id,))
    return bool(rows)


def settle(now: Micros, session_id: str, uids: tuple[int, int] | None) -> Steps[int]:
    """Record that a session has a workspace, and lease a uid to it when `uids` (both inclusive) is given; return it.

    Raises:
        SessionNotFoundError: There is no such session, or it is in the trash.
        StorageError: Every uid of the range is leased.
    """
    # Held fast, so that no purge passes by and leaves this record behind.
    there = yield Statement(
        "UPDATE heads SET trashed = 0 WHERE session_id = ? AND trashed = 0 RETURNING session_id", (session_id,)
    )
    if not there:
        raise (yield from heads.refusal(now, session_id))
    rows = yield Statement(
        "INSERT INTO workspaces (session_id, uid, files, size_bytes, measured_at) VALUES (?, 0, 0, 0, ?) "
        "ON CONFLICT (session_id) DO UPDATE SET session_id = workspaces.session_id RETURNING uid",
        (session_id, now),
    )
    [[uid]] = rows
    if uid or uids is None:
        return uid
    low, high = uids
    [[highest]] = yield Statement("SELECT COALESCE(MAX(uid), 0) FROM uids WHERE uid >= ? AND uid <= ?", (low, high))
    uid = max(highest + 1, low)
    if uid > high:
        free = yield Statement(
            "SELECT f.uid FROM (SELECT CAST(? AS BIGINT) AS uid UNION ALL "
            "SELECT uid + 1 FROM uids WHERE uid >= ? AND uid < ?) f "
            "WHERE NOT EXISTS (SELECT 1 FROM uids v WHERE v.uid = f.uid) ORDER BY f.uid LIMIT 1",
            (low, low, high),
        )
        if not free:
            raise StorageError(
                f"all {high - low + 1} uids of this installation are leased", remedy="purge sessions that are done"
            )
        uid = free[0][0]
    yield Statement("INSERT INTO uids (uid, session_id) VALUES (?, ?)", (uid, session_id))
    yield Statement("UPDATE workspaces SET uid = ? WHERE session_id = ?", (uid, session_id))
    return uid


def forget(now: Micros, session_id: str) -> Steps[None]:
    """Drop the record and give the uid back; only once nothing of that uid is left."""
    yield Statement("DELETE FROM workspaces WHERE session_id = ?", (session_id,))
    yield Statement("DELETE FROM uids WHERE session_id = ?", (session_id,))
