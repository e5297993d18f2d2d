"""The transactions of keys."""

from __future__ import annotations

from alcove.audit.model import Witness
from alcove.audit.queries import record
from alcove.clock import Micros
from alcove.database.op import Statement, Steps
from alcove.errors import KeyMissingError
from alcove.principals.model import Key, KeyPage

_COLUMNS = "id, tenant, role, user_id, label, rate_per_s, created_at, expires_at, revoked_at, used_at"


def create(now: Micros, key: Key, digest: str, lifetime: Micros, witness: Witness | None = None) -> Steps[Key]:
    """Insert a key; its times are decided here. It is audited."""
    yield Statement(
        f"INSERT INTO principal_keys ({_COLUMNS}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?)",
        (key.id, key.tenant, key.role, key.user_id, key.label, key.rate_per_s, now)
        + (now + lifetime if lifetime else 0, digest),
    )
    yield from _record(now, witness, "key.created", key)
    return (yield from get(now, key.id))


def _record(now: Micros, witness: Witness | None, act: str, key: Key) -> Steps[None]:
    yield from record(
        now,
        witness,
        act,
        f"key:{key.id}",
        tenant=key.tenant,
        user_id=key.user_id,
        role=key.role,
        label=key.label,
    )


def get(now: Micros, key_id: str) -> Steps[Key]:
    """Return a key."""
    rows = yield Statement(f"SELECT {_COLUMNS} FROM principal_keys WHERE id = ?", (key_id,))
    if not rows:
        raise KeyMissingError(f"there is no key {key_id}", field="key_id", remedy="`alcove key ls` lists them")
    return Key(*rows[0])


def by_digest(now: Micros, digest: str) -> Steps[tuple[Key | None, Micros]]:
    """Return the key with that secret, revoked and expired ones too, and the time."""
    rows = yield Statement(f"SELECT {_COLUMNS} FROM principal_keys WHERE digest = ?", (digest,))
    return (Key(*rows[0]) if rows else None), now


def used(now: Micros, key_id: str) -> Steps[None]:
    """Note that a key was used."""
    yield Statement("UPDATE principal_keys SET used_at = ? WHERE id = ? AND used_at < ?", (now, key_id, now))


def exist(now: Micros) -> Steps[bool]:
    """Return whether there was ever a key."""
    return bool((yield Statement("SELECT 1 FROM principal_keys LIMIT 1")))


def revoke(now: Micros, key_id: str, witness: Witness | None = None) -> Steps[Key]:
    """Revoke a key, which is audited; one that was revoked before keeps its time."""
    revoked = yield Statement(
        "UPDATE principal_keys SET revoked_at = ? WHERE id = ? AND revoked_at = 0 RETURNING id", (now, key_id)
    )
    key = yield from get(now, key_id)
    if revoked:
        yield from _record(now, witness, "key.revoked", key)
    return key


def page(now: Micros, tenant: str | None, limit: int, before: str) -> Steps[KeyPage]:
    """Return keys, newest first: their ids sort by age."""
    condition, values = ("tenant = ? AND ", (tenant,)) if tenant is not None else ("", ())
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM principal_keys WHERE {condition}id < ? ORDER BY id DESC LIMIT ?",
        (*values, before, limit + 1),
    )
    keys = [Key(*row) for row in rows[:limit]]
    return KeyPage(keys, keys[-1].id if len(rows) > limit else None)
