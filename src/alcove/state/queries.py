"""The transactions of state. For all of them, what has expired or belongs to a run that has ended is not there."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Row, Statement, Steps
from alcove.errors import ConflictError, RunEndedError, ValueNotFoundError, VersionMismatchError
from alcove.sessions.heads import refusal
from alcove.state.model import Place, Value, ValuePage

_AT = "tenant = ? AND app = ? AND scope = ? AND owner = ?"
_ALIVE = "(expires_at = 0 OR expires_at > ?)"
_COLUMNS = "name, value, version, created_at, updated_at, expires_at"
# Of instants, so that a new value after a deletion has not the version of the one that was deleted.
_NEXT = "CASE WHEN state_values.version >= ? THEN state_values.version + 1 ELSE ? END"
_LIVE = "ended_at = 0 AND (due_at = 0 OR due_at > ?)"  # one that is not heard of has ended before it is swept
_ATTEMPTS = 3


def _values(place: Place) -> tuple[str, str, str, str]:
    return place.tenant, place.app, place.scope, place.owner


def _value(place: Place, row: Row) -> Value:
    return Value(
        place=place,
        key=row[0],
        value=msgspec.json.decode(row[1]),
        version=row[2],
        created_us=row[3],
        updated_us=row[4],
        expires_us=row[5],
    )


def _open(now: Micros, place: Place, *, lock: bool) -> Steps[bool]:
    """Return whether there is somebody whose values these are; to be written, raise why not and hold on to it."""
    if place.scope == "session":
        sql = "UPDATE heads SET trashed = 0" if lock else "SELECT 1 FROM heads"
        rows = yield Statement(
            f"{sql} WHERE session_id = ? AND trashed = 0{' RETURNING 1' if lock else ''}", (place.owner,)
        )
        if not rows:
            raise (yield from refusal(now, place.owner))
    elif place.scope == "run":
        sql = "UPDATE runs SET ended_at = 0" if lock else "SELECT 1 FROM runs"
        rows = yield Statement(f"{sql} WHERE id = ? AND {_LIVE}{' RETURNING 1' if lock else ''}", (place.owner, now))
        if lock and not rows:
            raise RunEndedError(
                f"run {place.owner} has ended, or never was, and has no state", field="of", run_id=place.owner
            )
        return bool(rows)
    return True


def get(now: Micros, place: Place, key: str) -> Steps[Value | None]:
    """Return a value, None where there is none."""
    if not (yield from _open(now, place, lock=False)):
        return None
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM state_values WHERE {_AT} AND name = ? AND {_ALIVE}", (*_values(place), key, now)
    )
    return _value(place, rows[0]) if rows else None


def put(now: Micros, place: Place, key: str, text: str, lifetime: Micros, expected_version: int | None) -> Steps[Value]:
    """Set a value if the one that is there is the expected one: 0 for none, None for whatever there is."""
    yield from _open(now, place, lock=True)
    expires = now + lifetime if lifetime else 0
    for _ in range(_ATTEMPTS):  # somebody else may set or delete it between two statements
        if expected_version != 0:
            same, values = ("", ()) if expected_version is None else (" AND version = ?", (expected_version,))
            rows = yield Statement(
                f"UPDATE state_values SET value = ?, version = {_NEXT}, updated_at = ?, expires_at = ? "
                f"WHERE {_AT} AND name = ? AND {_ALIVE}{same} RETURNING {_COLUMNS}",
                (text, now, now, now, expires, *_values(place), key, now, *values),
            )
            if rows:
                return _value(place, rows[0])
            if expected_version:
                raise (yield from _stale(now, place, key))
        yield from _check_room(now, place)
        rows = yield Statement(
            "INSERT INTO state_values (tenant, app, scope, owner, name, value, version, created_at, updated_at, "
            "expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, app, scope, owner, name) "
            f"DO UPDATE SET value = excluded.value, version = {_NEXT}, created_at = excluded.created_at, "
            "updated_at = excluded.updated_at, expires_at = excluded.expires_at "
            f"WHERE state_values.expires_at > 0 AND state_values.expires_at <= ? RETURNING {_COLUMNS}",
            (*_values(place), key, text, now, now, now, expires, now, now, now),
        )
        if rows:
            return _value(place, rows[0])
        if expected_version == 0:
            raise (yield from _stale(now, place, key))
    raise (yield from _stale(now, place, key))


def _check_room(now: Micros, place: Place) -> Steps[None]:
    [[count]] = yield Statement(
        f"SELECT COUNT(*) FROM (SELECT 1 FROM state_values WHERE {_AT} AND {_ALIVE} LIMIT ?) AS found",
        (*_values(place), now, limits.STATE_KEYS),
    )
    if count >= limits.STATE_KEYS:
        raise ConflictError(
            f"the {place.scope} {place.owner} has {count} values already",
            field="key",
            limit=limits.STATE_KEYS,
            remedy="delete some, or keep them as one value",
        )


def _stale(now: Micros, place: Place, key: str) -> Steps[VersionMismatchError]:
    found = yield from get(now, place, key)
    if found is None:
        what, version = f"there is no value {key!r} any more", 0
    else:
        what, version = f"the value {key!r} is at version {found.version}", found.version
    return VersionMismatchError(what, field="expected_version", remedy="read it again and decide", version=version)


def delete(now: Micros, place: Place, key: str, expected_version: int | None) -> Steps[None]:
    """Delete a value if it is the expected one."""
    yield from _open(now, place, lock=True)
    same, values = ("", ()) if expected_version is None else (" AND version = ?", (expected_version,))
    rows = yield Statement(
        f"DELETE FROM state_values WHERE {_AT} AND name = ? AND {_ALIVE}{same} RETURNING 1",
        (*_values(place), key, now, *values),
    )
    if rows:
        return
    if expected_version is not None and (yield from get(now, place, key)):
        raise (yield from _stale(now, place, key))
    raise missing(place, key)


def missing(place: Place, key: str) -> ValueNotFoundError:
    """Return the error for a value that is not there."""
    return ValueNotFoundError(f"the {place.scope} {place.owner} has no value {key!r}".replace("  ", " "), field="key")


def page(now: Micros, place: Place, after: str, limit: int) -> Steps[ValuePage]:
    """Return values by key."""
    if not (yield from _open(now, place, lock=False)):
        return ValuePage([], None)
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM state_values WHERE {_AT} AND name > ? AND {_ALIVE} ORDER BY name LIMIT ?",
        (*_values(place), after, now, limit + 1),
    )
    values = [_value(place, row) for row in rows[:limit]]
    return ValuePage(values, values[-1].key if len(rows) > limit else None)


_GONE: Sequence[tuple[str, str]] = (
    ("expires_at > 0 AND expires_at <= ?", "expires_at"),
    (f"scope = 'run' AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.id = owner AND {_LIVE})", "owner"),
)


def sweep(now: Micros, limit: int) -> Steps[int]:
    """Remove up to `limit` values that have expired or whose run has ended; return how many."""
    count = 0
    for condition, order in _GONE:
        keys = "tenant, app, scope, owner, name"
        rows = yield Statement(
            f"DELETE FROM state_values WHERE ({keys}) IN (SELECT {keys} FROM state_values WHERE {condition} "
            f"ORDER BY {order} LIMIT ?) RETURNING 1",
            (now, limit - count),
        )
        count += len(rows)
        if count >= limit:
            break
    return count


def count_gone(now: Micros) -> Steps[int]:
    """Return how many values a sweep would remove, by and by."""
    total = 0
    for condition, _ in _GONE:
        [[count]] = yield Statement(f"SELECT COUNT(*) FROM state_values WHERE {condition}", (now,))
        total += count
    return total
