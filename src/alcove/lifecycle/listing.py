"""The transactions that list what is in the trash, and what was done to sessions."""

from __future__ import annotations

import msgspec

from alcove.clock import Micros
from alcove.database.op import Statement, Steps, Value
from alcove.lifecycle.model import Deed, DeedPage, Gone, Trashing, TrashPage
from alcove.lifecycle.trashing import TRASHING
from alcove.pages import decode_cursor, encode_cursor
from alcove.sessions.heads import NEVER


def page(now: Micros, tenant: str, limit: int, cursor: str | None) -> Steps[TrashPage]:
    """Return trashings, newest first."""
    at, after = decode_cursor(cursor) if cursor else (NEVER, "")
    rows = yield Statement(
        f"SELECT {TRASHING} FROM trashings WHERE tenant = ? AND (trashed_at, id) < (?, ?) "
        "ORDER BY trashed_at DESC, id DESC LIMIT ?",
        (tenant, at, after, limit + 1),
    )
    found = [Trashing(*row) for row in rows[:limit]]
    return TrashPage(found, encode_cursor(found[-1].trashed_us, found[-1].id) if len(rows) > limit else None)


def log(now: Micros, tenant: str, session_id: str | None, limit: int, cursor: str | None) -> Steps[DeedPage]:
    """Return deeds, newest first: of one session, or of all."""
    at, after = decode_cursor(cursor) if cursor else (NEVER, "/")
    after_id, _, after_what = after.partition("/")
    condition, values = ("session_id = ? AND ", (session_id,)) if session_id is not None else ("", ())
    narrowed: tuple[Value, ...] = (*values, tenant, at, after_id, after_what, limit + 1)
    rows = yield Statement(
        "SELECT session_id, trash_id, what, tenant, why, who, created_at, removed FROM deeds "
        f"WHERE {condition}tenant = ? AND (created_at, session_id, what) < (?, ?, ?) "
        "ORDER BY created_at DESC, session_id DESC, what DESC LIMIT ?",
        narrowed,
    )
    found = [Deed(*row[:-1], removed=_removed(row[-1])) for row in rows[:limit]]
    last = found[-1] if len(rows) > limit else None
    return DeedPage(found, encode_cursor(last.created_us, f"{last.session_id}/{last.what}") if last else None)


def _removed(text: str) -> Gone | None:
    return msgspec.json.decode(text, type=Gone) if text else None
