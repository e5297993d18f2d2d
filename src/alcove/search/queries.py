"""What search reads of sessions and messages, and where the index stands: transactions of the main database."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Rows, Statement, Steps
from alcove.messages.model import Message
from alcove.search.model import Behind, Filters, Place

_MESSAGE = "m.seq, m.turn, m.role, m.format, m.content, m.detail, m.hidden, m.created_at, m.kept"


def behind(now: Micros, after: str, limit: int) -> Steps[list[Behind]]:
    """Return sessions above `after` that the index does not have wholly."""
    rows = yield Statement(
        "SELECT s.id, s.tenant, s.app, s.user_id, s.title, h.indexed_seq, h.last_seq "
        "FROM (SELECT session_id, indexed_seq, last_seq FROM heads WHERE last_seq > indexed_seq AND trashed = 0 "
        "AND session_id > ? ORDER BY session_id LIMIT ?) h JOIN sessions s ON s.id = h.session_id ORDER BY s.id",
        (after, limit),
    )
    return [Behind(*row) for row in rows]


def lag(now: Micros) -> Steps[int]:
    """Return how many messages and titles the index does not have."""
    [[count]] = yield Statement(
        "SELECT COALESCE(SUM(last_seq - indexed_seq + CASE WHEN indexed_seq < 0 THEN 2 * indexed_seq + 2 ELSE 0 END), "
        "0) FROM heads WHERE last_seq > indexed_seq AND trashed = 0"
    )
    return int(count)


def unread(now: Micros, sessions: Sequence[Behind]) -> Steps[list[tuple[Behind, list[Message], int]]]:
    """Return the next messages of sessions and up to where they go, bounded in number and size over all of them."""
    found: list[tuple[Behind, list[Message], int]] = []
    left, room = limits.SEARCH_BATCH_MESSAGES, limits.SEARCH_BATCH_CHARS
    for session in sessions:
        if left <= 0 or room <= 0:
            break
        messages: list[Message] = []
        upto = session.from_seq
        while upto < session.last_seq and left > 0 and room > 0:
            rows = yield Statement(
                f"SELECT {_MESSAGE} FROM messages m WHERE m.session_id = ? AND m.seq > ? AND m.seq <= ? "
                "ORDER BY m.seq LIMIT ?",
                (session.session_id, upto, session.last_seq, min(left, limits.SEARCH_PLACE_MESSAGES)),
            )
            for row in rows:
                if messages and room <= 0:
                    break
                messages.append(Message(*row))
                room -= min(len(row[4]), limits.SEARCH_TEXT_CHARS)
                left -= 1
            upto = messages[-1].seq if rows else session.last_seq
        found.append((session, messages, upto))
    return found


def indexed(now: Micros, done: Sequence[tuple[str, int, int]]) -> Steps[list[str]]:
    """Note up to where the index has sessions now: id, what was noted before, what is now.

    Returns those of which it should have nothing new, because they are in the trash or gone.
    """
    gone: list[str] = []
    for session_id, before, after in done:
        rows = yield Statement(
            "UPDATE heads SET indexed_seq = ? WHERE session_id = ? AND indexed_seq = ? AND trashed = 0 "
            "RETURNING session_id",
            (after, session_id, before),
        )
        if not rows:
            rows = yield Statement("SELECT trashed FROM heads WHERE session_id = ?", (session_id,))
            if not rows or rows[0][0]:
                gone.append(session_id)
    return gone


def stale(now: Micros, sessions: Sequence[str]) -> Steps[None]:
    """Note that the index has nothing of sessions any more, titles included."""
    yield Statement("UPDATE heads SET indexed_seq = -1 WHERE session_id = ?", [(one,) for one in sessions], many=True)


def all_stale(now: Micros, after: str, limit: int) -> Steps[str | None]:
    """Note that the index has nothing of sessions above `after`; return where to go on."""
    rows = yield Statement(
        "UPDATE heads SET indexed_seq = -1 WHERE session_id IN "
        "(SELECT session_id FROM heads WHERE session_id > ? ORDER BY session_id LIMIT ?) RETURNING session_id",
        (after, limit),
    )
    return max(row[0] for row in rows) if len(rows) == limit else None


def of_index(now: Micros) -> Steps[str]:
    """Return the name of the index that the sessions' marks are about."""
    rows = yield Statement("SELECT value FROM installation WHERE name = 'search'")
    return rows[0][0] if rows else ""


def untouched(now: Micros) -> Steps[bool]:
    """Return whether there was never an index and nothing waits for one: so that opening a database makes no file."""
    name = yield from of_index(now)
    return not name and not (yield from behind(now, "", 1))


def about_index(now: Micros, name: str) -> Steps[None]:
    """Note which index the sessions' marks are about."""
    yield Statement(
        "INSERT INTO installation (name, value) VALUES ('search', ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name,),
    )


class Seen(msgspec.Struct, frozen=True):
    """What of a place may be seen now.

    Attributes:
        place: The place.
        title, user_id, created_us: Of its session.
        messages: Those of it that are visible.
    """

    place: Place
    title: str
    user_id: str
    created_us: Micros
    messages: list[Message]


def visible(now: Micros, places: Sequence[Place], filters: Filters) -> Steps[tuple[list[Seen], bool]]:
    """Return what of places may be seen now, until it is much; and whether that was before the last of them."""
    condition = "s.id = ? AND s.tenant = ? AND s.trashed_at = 0"
    values: tuple[str, ...] = (filters.tenant,)
    for column, value in (("user_id", filters.user_id), ("app", filters.app), ("id", filters.session_id)):
        if value is not None:
            condition += f" AND s.{column} = ?"
            values += (value,)
    found: list[Seen] = []
    room = limits.SEARCH_CANDIDATE_CHARS
    for place in places:
        if room <= 0:
            return found, True
        rows: Rows = yield Statement(
            f"SELECT s.title, s.user_id, s.created_at FROM sessions s WHERE {condition}", (place.session_id, *values)
        )
        if not rows:
            continue
        [about] = rows
        rows = yield Statement(
            f"SELECT {_MESSAGE} FROM heads h JOIN messages m ON m.session_id = h.session_id WHERE h.session_id = ? "
            "AND m.seq BETWEEN ? AND ? AND m.hidden = 0 AND m.seq > h.cleared_seq ORDER BY m.seq",
            (place.session_id, max(place.first, 1), place.last),
        )
        messages = [Message(*row) for row in rows]
        room -= sum(min(len(one.raw), limits.SEARCH_TEXT_CHARS) for one in messages)
        found.append(Seen(place, about[0], about[1], about[2], messages))
    return found, False
