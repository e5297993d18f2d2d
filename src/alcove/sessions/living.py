"""The transactions of the live session of a user: the one that holds a key, until it expires."""

from __future__ import annotations

import msgspec

from alcove.clock import Micros
from alcove.database.op import Statement, Steps
from alcove.sessions.heads import EXPIRES
from alcove.sessions.model import NewSession, Session
from alcove.sessions.queries import get, insert


class Lived(msgspec.Struct, frozen=True):
    """A live session.

    Attributes:
        session: Which.
        made: Whether it was made.
        replaced: The expired one whose place it took, `''` for none.
    """

    session: Session
    made: bool
    replaced: str = ""


def live(now: Micros, new: NewSession) -> Steps[Lived]:
    """Return the user's live session of that key, touched, or make `new` it.

    An expired one keeps its history and gives up the key.
    """
    where = (new.tenant, new.app or "", new.user_id or "", new.key)
    rows = yield Statement(
        "INSERT INTO session_keys (tenant, app, user_id, key, session_id) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (tenant, app, user_id, key) DO UPDATE SET session_id = session_keys.session_id "
        "RETURNING session_id",
        (*where, new.id),
    )
    holder = rows[0][0]
    if holder != new.id:
        touched = yield Statement(
            "UPDATE heads SET last_activity = ? WHERE session_id = ? AND trashed = 0 "
            f"AND {EXPIRES.format('')} > ? RETURNING session_id",
            (now, holder, now),
        )
        if touched:
            return Lived((yield from get(now, holder)), made=False)
        yield Statement("UPDATE sessions SET key = NULL, version = version + 1 WHERE id = ?", (holder,))
        yield Statement(
            "UPDATE session_keys SET session_id = ? WHERE tenant = ? AND app = ? AND user_id = ? AND key = ?",
            (new.id, *where),
        )
    yield from insert(now, new)
    return Lived((yield from get(now, new.id)), made=True, replaced="" if holder == new.id else holder)


def active_count(now: Micros, tenant: str, app: str | None) -> Steps[int]:
    """Return how many sessions with a key are active."""
    condition, values = ("AND k.app = ? ", (app,)) if app is not None else ("", ())
    [[number]] = yield Statement(
        "SELECT COUNT(*) FROM session_keys k JOIN heads h ON h.session_id = k.session_id "
        f"WHERE k.tenant = ? {condition}AND {EXPIRES.format('h.')} > ?",
        (tenant, *values, now),
    )
    return int(number)
