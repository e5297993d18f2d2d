"""The transactions of sessions."""

from __future__ import annotations

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.database.idempotency import Once, remember
from alcove.database.op import Statement, Steps, Value
from alcove.durations import ttl_us
from alcove.errors import (
    AlreadyExistsError,
    InvalidError,
    SessionNotFoundError,
    VersionMismatchError,
)
from alcove.pages import decode_cursor, encode_cursor
from alcove.sessions.heads import EXPIRES, NEVER
from alcove.sessions.model import Changes, Filters, NewSession, Page, Session
from alcove.sessions.rules import encode_metadata
from alcove.values import Metadata

_COLUMNS = f"""s.id, s.tenant, s.app, s.user_id, s.key, s.parent_id, s.root_id, s.depth, s.title, s.agent, s.metadata,
    s.pinned, s.ttl, s.ends_at, s.version, s.created_at, h.last_seq, h.message_count, h.turn_count, h.child_count,
    h.last_activity, h.epoch, h.lease_run, h.dialog_state,
    CASE WHEN s.trashed_at > 0 THEN 'trashed'
         WHEN {EXPIRES.format("h.")} <= ? THEN 'expired'
         ELSE 'active' END"""
_GET = f"SELECT {_COLUMNS} FROM sessions s JOIN heads h ON h.session_id = s.id WHERE s.id = ?"
_END_OF_TIME: Micros = 2**63 - 1
_AFTER_ID = "~"  # sorts after every character of an id


class Created(msgspec.Struct, frozen=True):
    """The answer to a creation, kept under its idempotency key."""

    session_id: str


def create(now: Micros, new: NewSession, request: Once | None) -> Steps[Created]:
    """Insert a session with its place in the tree; parent, root and depth are decided here."""
    yield from insert(now, new)
    if new.key is not None:
        taken = yield from _claim_key(now, new)
        if taken != new.id:
            raise AlreadyExistsError(
                f"key {new.key!r} belongs to session {taken}",
                field="key",
                remedy="use that session, choose another key, or trash it",
                session_id=taken,
            )
    created = Created(new.id)
    if request:
        yield remember(now, request, created)
    return created


def insert(now: Micros, new: NewSession) -> Steps[None]:
    """Write the rows of a new session: its place in the tree, its head, its metadata."""
    app, user_id, agent, root_id, depth = new.app or "", new.user_id or "", new.agent or "", new.id, 0
    if new.parent_id:
        app, user_id, agent, root_id, depth = yield from _place_below(new)
    rows = yield Statement(
        "INSERT INTO sessions (id, tenant, app, user_id, key, parent_id, root_id, depth, title, agent, metadata, "
        "pinned, ttl, ends_at, version, created_at, trash_id, trashed_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, 1, ?, '', 0) ON CONFLICT (id) DO NOTHING RETURNING id",
        (new.id, new.tenant, app, user_id, new.key, new.parent_id, root_id, depth, new.title, agent)
        + (new.metadata_json, new.ttl_us, now + new.lifetime_us if new.lifetime_us else 0, now),
    )
    if not rows:
        raise AlreadyExistsError(f"session {new.id} exists", field="session_id", remedy="choose another id")
    ends = now + new.lifetime_us if new.lifetime_us else NEVER
    due = min(now + new.ttl_us, ends) if new.ttl_us else ends
    yield Statement(
        "INSERT INTO heads (session_id, last_seq, cleared_seq, message_count, turn_count, child_count, "
        "last_activity, idle_limit, ends_at, due_at, trashed, epoch, lease_run, lease_until, indexed_seq) "
        "VALUES (?, 0, 0, 0, 0, 0, ?, ?, ?, ?, 0, 0, '', 0, ?)",
        (new.id, now, new.ttl_us, ends, 0 if due == NEVER else due, -1 if new.title else 0),
    )
    yield from _index_metadata(new.tenant, new.id, now, new.indexed)


def _place_below(new: NewSession) -> Steps[tuple[str, str, str, str, int]]:
    """Lock the parent, count the child, and return what it inherits: app, user, agent, root and depth."""
    counted = yield Statement(
        "UPDATE heads SET child_count = child_count + 1 WHERE session_id = ? AND trashed = 0 RETURNING child_count",
        (new.parent_id,),
    )
    rows = yield Statement(
        "SELECT app, user_id, agent, root_id, depth FROM sessions WHERE id = ? AND tenant = ?",
        (new.parent_id, new.tenant),
    )
    if not counted or not rows:
        raise SessionNotFoundError(
            f"there is no session {new.parent_id} to be the parent", field="parent_id", session_id=new.parent_id
        )
    app, user_id, agent, root_id, depth = rows[0]
    if counted[0][0] > limits.CHILDREN:
        raise InvalidError(
            f"session {new.parent_id} has {limits.CHILDREN} children",
            field="parent_id",
            limit=limits.CHILDREN,
            remedy="start another root",
        )
    if depth + 1 > limits.DEPTH:
        raise InvalidError(
            f"session {new.parent_id} is {depth} levels deep",
            field="parent_id",
            limit=limits.DEPTH,
            remedy="an agent that spawns this deep is probably in a loop",
        )
    return (
        app if new.app is None else new.app,
        user_id if new.user_id is None else new.user_id,
        agent if new.agent is None else new.agent,
        root_id,
        depth + 1,
    )


def _index_metadata(tenant: str, session_id: str, created: Micros, rows: tuple[tuple[str, str], ...]) -> Steps[None]:
    if rows:
        yield Statement(
            "INSERT INTO session_metadata (tenant, name, value, created_at, session_id) VALUES (?, ?, ?, ?, ?)",
            [(tenant, name, value, created, session_id) for name, value in rows],
            many=True,
        )


def _claim_key(now: Micros, new: NewSession) -> Steps[str]:
    """Return the session that holds the key from now on: `new` when the key was free. Locks the key's row."""
    rows = yield Statement(
        "INSERT INTO session_keys (tenant, app, user_id, key, session_id) "
        "SELECT tenant, app, user_id, ?, id FROM sessions WHERE id = ? "
        "ON CONFLICT (tenant, app, user_id, key) DO UPDATE SET session_id = session_keys.session_id "
        "RETURNING session_id",
        (new.key, new.id),
    )
    return rows[0][0]


def find(now: Micros, session_id: str) -> Steps[Session | None]:
    """Return the session, also a trashed one, or None."""
    rows = yield Statement(_GET, (now, session_id))
    return Session(*rows[0]) if rows else None


def get(now: Micros, session_id: str) -> Steps[Session]:
    """Return the session; a trashed one is not found."""
    session = yield from find(now, session_id)
    if session is None or session.status == "trashed":
        raise SessionNotFoundError(
            f"there is no session {session_id}" if session is None else f"session {session_id} is in the trash",
            field="session_id",
            session_id=session_id,
        )
    return session


def owner(now: Micros, session_id: str) -> Steps[tuple[str, str] | None]:
    """Return tenant and user of a session, also of a trashed one, or None."""
    rows = yield Statement("SELECT tenant, user_id FROM sessions WHERE id = ?", (session_id,))
    return (rows[0][0], rows[0][1]) if rows else None


def by_prefix(
    now: Micros, tenant: str, user_id: str | None, prefix: str, trashed: bool, limit: int
) -> Steps[list[Session]]:
    """Return sessions whose id begins with `prefix`, in order of id: in the trash, or outside it."""
    condition = "s.trashed_at > 0" if trashed else "s.trashed_at = 0"
    values: list[Value] = [now, prefix, prefix + _AFTER_ID, tenant]
    if user_id is not None:
        condition += " AND s.user_id || '' = ?"
        values.append(user_id)
    rows = yield Statement(
        # An owner that is no plain column cannot tempt a planner into reading all of its sessions.
        f"SELECT {_COLUMNS} FROM sessions s JOIN heads h ON h.session_id = s.id "
        f"WHERE s.id >= ? AND s.id < ? AND s.tenant || '' = ? AND {condition} ORDER BY s.id LIMIT ?",
        (*values, limit),
    )
    return [Session(*row) for row in rows]


def find_key(now: Micros, tenant: str, app: str, user_id: str, key: str) -> Steps[Session | None]:
    """Return the session that holds a key, or None."""
    rows = yield Statement(
        "SELECT session_id FROM session_keys WHERE tenant = ? AND app = ? AND user_id = ? AND key = ?",
        (tenant, app, user_id, key),
    )
    return (yield from find(now, rows[0][0])) if rows else None


def _narrowed(now: Micros, filters: Filters) -> tuple[str, list[str], list[Value]]:
    """Return the table whose order a listing follows, and its conditions with their values."""
    first, conditions = "s", ["s.tenant = ?"]
    values: list[Value] = [filters.tenant]
    if filters.metadata:
        first, conditions = "m", ["m.tenant = ? AND m.name = ? AND m.value = ?"]
        values.extend(filters.metadata[0])
    for column, value in (
        ("s.user_id = ?", filters.user_id),
        ("s.app = ?", filters.app),
        ("s.parent_id = ?", filters.parent_id),
        ("s.root_id = ?", filters.root_id),
        ("h.last_activity >= ?", filters.active_since_us),
        ("h.last_activity < ?", filters.active_before_us),
    ):
        if value is not None:
            conditions.append(column)
            values.append(value)
    expired = f"{EXPIRES.format('h.')} <= ?"
    conditions.append("s.trashed_at > 0" if filters.status == "trashed" else "s.trashed_at = 0")
    if filters.status in {"active", "expired"}:
        conditions.append(expired if filters.status == "expired" else f"NOT ({expired})")
        values.append(now)
    for name, value in filters.metadata[1:]:
        conditions.append(
            "EXISTS (SELECT 1 FROM session_metadata o WHERE o.tenant = s.tenant AND o.name = ? AND o.value = ? "
            "AND o.created_at = s.created_at AND o.session_id = s.id)"
        )
        values.extend((name, value))
    return first, conditions, values


def page(now: Micros, filters: Filters, limit: int, cursor: str | None) -> Steps[Page]:
    """Return a page of sessions, newest first. Seeks in an index, so a far page costs what the first one does."""
    created, after = decode_cursor(cursor) if cursor else (_END_OF_TIME, "")
    first, conditions, values = _narrowed(now, filters)
    source, column = "sessions s JOIN heads h ON h.session_id = s.id", "id"
    if first == "m":
        source, column = f"session_metadata m JOIN sessions s ON s.id = m.session_id {source[10:]}", "session_id"
    conditions.append(f"({first}.created_at, {first}.{column}) < (?, ?)")
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM {source} WHERE {' AND '.join(conditions)} "
        f"ORDER BY {first}.created_at DESC, {first}.{column} DESC LIMIT ?",
        (now, *values, created, after, limit + 1),
    )
    sessions = [Session(*row) for row in rows[:limit]]
    more = len(rows) > limit
    return Page(sessions, encode_cursor(sessions[-1].created_us, sessions[-1].id) if more else None)


def count(now: Micros) -> Steps[int]:
    """Return how many sessions there are outside the trash."""
    [[number]] = yield Statement("SELECT COUNT(*) FROM sessions WHERE trashed_at = 0")
    return int(number)


def ids_of(
    now: Micros, tenant: str, user_id: str, limit: int, cursor: str | None
) -> Steps[tuple[list[str], str | None]]:
    """Return the ids of a user's sessions outside the trash, newest first, and the cursor of the next page."""
    created, after = decode_cursor(cursor) if cursor else (_END_OF_TIME, "")
    rows = yield Statement(
        "SELECT id, created_at FROM sessions WHERE tenant = ? AND user_id = ? AND trashed_at = 0 "
        "AND (created_at, id) < (?, ?) ORDER BY created_at DESC, id DESC LIMIT ?",
        (tenant, user_id, created, after, limit + 1),
    )
    found = [row[0] for row in rows[:limit]]
    return found, encode_cursor(rows[limit - 1][1], found[-1]) if len(rows) > limit else None


def subtree(now: Micros, session_id: str, limit: int) -> Steps[list[Session]]:
    """Return the session and its descendants outside the trash, nearest first, at most `limit` of them."""
    rows = yield Statement(
        "WITH RECURSIVE below (id) AS (SELECT id FROM sessions WHERE id = ? UNION ALL "
        "SELECT c.id FROM sessions c JOIN below b ON c.parent_id = b.id WHERE c.trashed_at = 0) "
        f"SELECT {_COLUMNS} FROM (SELECT id FROM below LIMIT ?) b "
        "JOIN sessions s ON s.id = b.id JOIN heads h ON h.session_id = s.id ORDER BY s.depth, s.created_at, s.id",
        (session_id, now, limit),
    )
    return [Session(*row) for row in rows]


def update(now: Micros, session_id: str, changes: Changes, version: int | None) -> Steps[Session]:
    """Apply changes and raise the version; with `version`, only to exactly that one. Metadata is merged by name."""
    rows = yield Statement(
        "UPDATE sessions SET version = version + 1 WHERE id = ? AND trashed_at = 0 "
        "RETURNING version, tenant, created_at, metadata",
        (session_id,),
    )
    if not rows:
        return (yield from get(now, session_id))  # raises, and says why
    [(new_version, tenant, created, metadata)] = rows
    _check_version(session_id, new_version - 1, version)
    if isinstance(changes.title, str):
        yield Statement("UPDATE sessions SET title = ? WHERE id = ?", (changes.title, session_id))
        # For the search index: below 0, the title waits.
        yield Statement(
            "UPDATE heads SET indexed_seq = -(indexed_seq + 1) WHERE session_id = ? AND indexed_seq >= 0", (session_id,)
        )
    if isinstance(changes.agent, str):
        yield Statement("UPDATE sessions SET agent = ? WHERE id = ?", (changes.agent, session_id))
    if not isinstance(changes.metadata, msgspec.UnsetType):
        yield from _merge_metadata(tenant, session_id, created, metadata, changes.metadata)
    yield from _change_ends(now, session_id, changes)
    return (yield from get(now, session_id))


def _check_version(session_id: str, found: int, wanted: int | None) -> None:
    if wanted is not None and found != wanted:
        raise VersionMismatchError(f"session {session_id} is at version {found}, not {wanted}", field="version")


def _change_ends(now: Micros, session_id: str, changes: Changes) -> Steps[None]:
    """Change when a session expires. The janitor looks at it anew: it cannot know whether that is sooner or later."""
    changed = [
        (name, value)
        for name, value in (
            ("pinned", int(changes.pinned) if isinstance(changes.pinned, bool) else None),
            ("ttl", None if isinstance(changes.ttl_s, msgspec.UnsetType) else ttl_us(changes.ttl_s)),
            ("ends_at", None if isinstance(changes.lifetime_s, msgspec.UnsetType) else _end(now, changes.lifetime_s)),
        )
        if value is not None
    ]
    for name, value in changed:
        yield Statement(f"UPDATE sessions SET {name} = ? WHERE id = ?", (value, session_id))
    if changed:
        [[pinned, ttl, ends]] = yield Statement("SELECT pinned, ttl, ends_at FROM sessions WHERE id = ?", (session_id,))
        idle, ends = (0, NEVER) if pinned else (ttl, ends or NEVER)
        yield Statement(
            "UPDATE heads SET idle_limit = ?, ends_at = ?, due_at = ? WHERE session_id = ?",
            (idle, ends, 1 if idle or ends != NEVER else 0, session_id),
        )


def _end(now: Micros, lifetime_s: float | None) -> Micros:
    lifetime = ttl_us(lifetime_s, field="lifetime_s")
    return now + lifetime if lifetime else 0


def _merge_metadata(tenant: str, session_id: str, created: Micros, old: str, changes: Metadata) -> Steps[None]:
    merged: Metadata = msgspec.json.decode(old)
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    text, indexed = encode_metadata(merged)
    yield from replace_metadata(tenant, session_id, created, text, indexed)


def replace_metadata(
    tenant: str, session_id: str, created: Micros, text: str, indexed: tuple[tuple[str, str], ...]
) -> Steps[None]:
    """Give a session other metadata, encoded by `encode_metadata`."""
    yield Statement("UPDATE sessions SET metadata = ? WHERE id = ?", (text, session_id))
    yield Statement("DELETE FROM session_metadata WHERE session_id = ?", (session_id,))
    yield from _index_metadata(tenant, session_id, created, indexed)


def touch(now: Micros, session_id: str) -> Steps[Session]:
    """Record activity. A session that was idle for too long is active again; one that is past its end is not."""
    yield Statement("UPDATE heads SET last_activity = ? WHERE session_id = ? AND trashed = 0", (now, session_id))
    return (yield from get(now, session_id))


def trash(now: Micros, session_id: str, trash_id: str, limit: int, version: int | None = None) -> Steps[list[str]]:
    """Move a session and its descendants to the trash, at most `limit` of them; return those that went, parents first.

    Call it again with the same trash id until it returns nothing. Keys are free at once. With `version`, only when the
    session is at exactly that one, also when it is in the trash already.
    """
    if version is not None:
        for (found,) in (
            yield Statement("UPDATE sessions SET version = version WHERE id = ? RETURNING version", (session_id,))
        ):
            _check_version(session_id, found, version)
    rows = yield Statement(
        # The condition is outside too: another trashing may take a session while this one waits for its row.
        "UPDATE sessions SET trash_id = ?, trashed_at = ? WHERE trashed_at = 0 AND id IN ("
        "WITH RECURSIVE below (id) AS (SELECT id FROM sessions WHERE id = ? UNION ALL SELECT c.id FROM sessions c "
        "JOIN below b ON c.parent_id = b.id WHERE c.trashed_at = 0 OR c.trash_id = ?) "
        "SELECT s.id FROM below b JOIN sessions s ON s.id = b.id WHERE s.trashed_at = 0 ORDER BY s.depth LIMIT ?) "
        "RETURNING depth, id, parent_id",
        (trash_id, now, session_id, trash_id, limit),
    )
    rows.sort()
    went = [row[1] for row in rows]
    yield Statement(
        "UPDATE heads SET child_count = child_count - 1 WHERE session_id = ?",
        [(parent,) for _, gone, parent in rows if gone == session_id and parent],
        many=True,
    )
    yield Statement(
        "UPDATE heads SET trashed = 1, due_at = 0 WHERE session_id = ?", [(gone,) for gone in went], many=True
    )
    yield Statement("DELETE FROM session_keys WHERE session_id = ?", [(gone,) for gone in went], many=True)
    return went
