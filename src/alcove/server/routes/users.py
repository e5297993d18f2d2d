"""Users and their live sessions."""

from __future__ import annotations

from typing import Final

import msgspec

from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import Name, SessionView, Ttl, session_view


class Live(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the user's sessions; the other fields are for a new one.

    Attributes:
        key: The caller's own name for it.
        app: Which application; empty for none.
        agent: Who answers by default; empty for the installation's.
        ttl_s: Seconds it may be idle before it expires; null for ever; the server's default when left out.
    """

    key: Name = ""
    app: Name = ""
    agent: Name = ""
    ttl_s: Ttl | msgspec.UnsetType | None = msgspec.UNSET


async def live(call: Call, body: Live) -> SessionView:
    """Find the user's live session of that key, or make it (201). It counts as activity; an expired one is replaced."""
    user = call.user(call.path["user"]) or ""
    session, made = await call.hub.sessions.live(
        user, body.key, app=body.app, agent=body.agent, ttl_s=body.ttl_s, tenant=call.principal.tenant
    )
    call.status = 201 if made else 200
    call.headers.append((b"etag", b'"%d"' % session.version))
    return session_view(call, session)


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Which users.

    Attributes:
        app: Only those of this application; empty for those of none; all when left out.
    """

    app: Name | None = None


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many there are.

    Attributes:
        active_count: Live sessions that have not expired: one for each user and key.
    """

    active_count: int


async def count(call: Call, query: Which) -> Count:
    """Count the live sessions of users that have not expired."""
    return Count(active_count=await call.hub.sessions.active_count(app=query.app, tenant=call.principal.tenant))


ROUTES: Final = (
    Route("GET", "/api/v1/users", count, permission="users.read"),
    Route("PUT", "/api/v1/users/{user}/session", live, permission="sessions.create", others=(201,)),
)
