"""Keys: who may call this server, and as what."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from alcove import limits
from alcove.clock import seconds
from alcove.errors import KeyMissingError
from alcove.principals.model import Key
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import Name, Paging, Ttl, given


class NewKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be. Everything may be left out.

    Attributes:
        role: `admin` runs the installation, `service` acts for all users of its tenant, `user` for one.
        tenant: Whose sessions its holder sees.
        user_id: The user of a `user` key.
        label: For people: who holds it, and for what.
        ttl_s: Seconds after which it is refused; null for never.
        rate_per_s: Requests a second on average, 0 for any number; left out, any number, but 50 for a user.
    """

    role: Literal["admin", "service", "user"] = "service"
    tenant: Name = "default"
    user_id: Name = ""
    label: Name = ""
    ttl_s: Ttl | None = None
    rate_per_s: Annotated[int, msgspec.Meta(ge=0, le=limits.KEY_RATE)] | None = None


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key, without its secret.

    Attributes:
        key_id: Names it; no credential.
        role: What its holder may do.
        tenant: Whose sessions its holder sees.
        user_id: Whose, for a `user` key.
        label: For people.
        rate_per_s: Requests a second on average, 0 for any number.
        created_at: Epoch seconds.
        expires_at: Epoch seconds, null for never.
        revoked_at: Epoch seconds, null when it was not.
        last_used_at: Epoch seconds, to the hour; null for never.
    """

    key_id: str
    role: str
    tenant: str
    user_id: str
    label: str
    rate_per_s: int
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


class IssuedView(KeyView, frozen=True, kw_only=True):
    """A new key.

    Attributes:
        secret: What its holder sends as `Authorization: Bearer`; told now, and never again.
    """

    secret: str


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of keys.

    Attributes:
        keys: Newest first.
        next_cursor: Goes into `cursor` for the next page; null on the last.
    """

    keys: list[KeyView]
    next_cursor: str | None


async def create(call: Call, body: NewKey) -> IssuedView:
    """Make a key. Its secret is told in this answer, and never again."""
    issued = await call.hub.keys.create(
        role=body.role,
        tenant=body.tenant,
        user_id=body.user_id,
        label=body.label,
        ttl_s=body.ttl_s,
        rate_per_s=body.rate_per_s,
        by=call.principal.name,
    )
    return msgspec.convert({**msgspec.structs.asdict(_view(issued.key)), "secret": issued.secret}, IssuedView)


async def list_keys(call: Call, query: Paging) -> KeyList:
    """List keys, newest first, revoked and expired ones too."""
    page = await call.hub.keys.list(limit=query.limit, cursor=given(query.cursor))
    return KeyList(keys=[_view(key) for key in page.keys], next_cursor=page.next_cursor)


async def revoke(call: Call) -> KeyView:
    """Revoke a key for good: at once here, within a second in every other process of the installation."""
    return _view(await call.hub.keys.revoke(call.path["key_id"], by=call.principal.name))


def _view(key: Key) -> KeyView:
    return KeyView(
        key_id=key.id,
        role=key.role,
        tenant=key.tenant,
        user_id=key.user_id,
        label=key.label,
        rate_per_s=key.rate_per_s,
        created_at=seconds(key.created_us),
        expires_at=seconds(key.expires_us) if key.expires_us else None,
        revoked_at=seconds(key.revoked_us) if key.revoked_us else None,
        last_used_at=seconds(key.used_us) if key.used_us else None,
    )


ROUTES: Final = (
    Route("POST", "/api/v1/keys", create, permission="keys.create", status=201),
    Route("GET", "/api/v1/keys", list_keys, permission="keys.read"),
    Route("DELETE", "/api/v1/keys/{key_id}", revoke, permission="keys.revoke", errors=(KeyMissingError,)),
)
