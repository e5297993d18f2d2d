"""The transactions of stored definitions: kept for ever, found by name, and joined to the version that follows."""

from __future__ import annotations

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Statement, Steps
from alcove.dialogs.model import Definition, Kept
from alcove.errors import AlreadyExistsError, DialogNotFoundError, InvalidError

_COLUMNS = "id, name, number, digest"


class _Follows(msgspec.Struct, frozen=True):
    """Of a stored definition: which older versions' sessions come into it."""

    migrations: dict[str, object] = {}


def store(now: Micros, fresh_id: str, tenant: str, definition: Definition) -> Steps[Kept]:
    """Keep a definition, and let the sessions of older versions follow it as it declares; a kept one stays as it is."""
    rows = yield Statement(
        f"INSERT INTO dialog_definitions ({_COLUMNS}, tenant, source, next, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, '', ?) ON CONFLICT (tenant, name, number) DO UPDATE SET name = excluded.name "
        f"RETURNING {_COLUMNS}",
        (fresh_id, definition.name, definition.number, definition.digest, tenant, definition.source, now),
    )
    kept = Kept(*rows[0])
    if kept.digest != definition.digest:
        raise AlreadyExistsError(
            f"version {kept.number} of dialog {kept.name!r} is there already, and is another one",
            field="version",
            remedy=f"raise the version to {kept.number + 1}, and declare a migration from {kept.number} if sessions "
            "are to follow",
        )
    if kept.id == fresh_id:
        yield from _join(tenant, definition.name)
    return kept


def _join(tenant: str, name: str) -> Steps[None]:
    """Let each version lead to the newest one that says how sessions come from there."""
    rows = yield Statement(
        "SELECT number, id, source FROM dialog_definitions WHERE tenant = ? AND name = ? ORDER BY number",
        (tenant, name),
    )
    if len(rows) > limits.DIALOG_VERSIONS:
        raise InvalidError(
            f"dialog {name!r} has {limits.DIALOG_VERSIONS} versions",
            field="version",
            limit=limits.DIALOG_VERSIONS,
            remedy="go on under another name",
        )
    following = {
        int(older): definition_id
        for _, definition_id, source in rows
        for older in msgspec.json.decode(source, type=_Follows).migrations
    }
    yield Statement(
        "UPDATE dialog_definitions SET next = ? WHERE id = ?",
        [(following.get(number, ""), definition_id) for number, definition_id, _ in rows],
        many=True,
    )


def newest(now: Micros, tenant: str, name: str) -> Steps[tuple[Kept, str]]:
    """Return the newest version of a definition, and its JSON."""
    rows = yield Statement(
        f"SELECT {_COLUMNS}, source FROM dialog_definitions WHERE tenant = ? AND name = ? ORDER BY number DESC LIMIT 1",
        (tenant, name),
    )
    if not rows:
        raise DialogNotFoundError(f"there is no dialog {name!r}", field="name", remedy="define it first", name=name)
    return Kept(*rows[0][:4]), rows[0][4]


def names(now: Micros, tenant: str, limit: int) -> Steps[list[Kept]]:
    """Return stored definitions, by name, the newest version of each first."""
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM dialog_definitions WHERE tenant = ? ORDER BY name, number DESC LIMIT ?",
        (tenant, limit),
    )
    return [Kept(*row) for row in rows]
