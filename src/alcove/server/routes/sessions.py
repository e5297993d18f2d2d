"""Sessions: identity, hierarchy, listing, deletion."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from alcove import limits
from alcove.errors import (
    AlreadyExistsError,
    IdempotencyError,
    InvalidError,
    SessionNotFoundError,
    VersionMismatchError,
)
from alcove.lifecycle.model import Receipt
from alcove.lifecycle.service import Handle
from alcove.principals.rules import sees
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import (
    Name,
    PageLimit,
    Paging,
    SessionPage,
    SessionView,
    SummaryView,
    Title,
    Ttl,
    Unset,
    given,
    session_view,
    summary_view,
)
from alcove.sessions.model import Changes, Session, Status
from alcove.values import Metadata, Scalar

UNSET = msgspec.UNSET


class Child(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A child to be.

    Attributes:
        title: What it is about.
        user_id: Whose session; its parent's when left out, nobody's for a root.
        agent: Who answers by default; its parent's when left out, the installation's for a root.
        key: The caller's own name for it, unique per app and user outside the trash.
        metadata: The caller's own facts; lists can be filtered by those that are scalars.
    """

    title: Title = ""
    user_id: Name | None = None
    agent: Name | None = None
    key: Name | None = None
    metadata: Metadata | None = None


class Creation(Child, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session to be. Everything may be left out.

    Attributes:
        session_id: The caller's own id; a UUIDv7 otherwise.
        parent_id: Makes it a child.
        app: Which application; its parent's when left out, none for a root.
        ttl_s: Seconds it may be idle before it expires; null for ever; the server's default when left out.
        lifetime_s: Seconds after which it expires whatever happens; null for never.
    """

    session_id: str | None = None
    parent_id: str | None = None
    app: Name | None = None
    ttl_s: Ttl | Unset | None = UNSET
    lifetime_s: Ttl | None = None


class Patch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes, as a merge patch (RFC 7396): what is left out stays.

    Attributes:
        title: What it is about.
        agent: Who answers by default; empty for the installation's.
        metadata: Names to set; those with null are removed, the others stay.
        pinned: Whether it never expires, whatever its TTL and its end.
        ttl_s: Seconds it may be idle before it expires; null for ever.
        lifetime_s: Seconds from now on after which it expires whatever happens; null for never.
    """

    title: Title | Unset = UNSET
    agent: Name | Unset = UNSET
    metadata: Metadata | Unset = UNSET
    pinned: bool | Unset = UNSET
    ttl_s: Ttl | Unset | None = UNSET
    lifetime_s: Ttl | Unset | None = UNSET


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions to list.

    Attributes:
        user_id: Exactly this user; empty for nobody's.
        app: Exactly this application; empty for none.
        parent_id: Direct children of this session; empty for roots.
        root_id: Those in the tree of this root, itself included.
        status: `active`, `expired` or `trashed`; all but the trashed otherwise.
        metadata: Written `metadata.NAME=VALUE`: a JSON scalar where VALUE is one, else text.
        active_since: Epoch seconds, inclusive.
        active_before: Epoch seconds, exclusive.
        prefix: A few whose id begins so, in order of id, the exact one first; beside it only `status=trashed` counts.
        limit: How many at most.
        cursor: The `next_cursor` of the page before.
    """

    user_id: str | Unset = UNSET
    app: str | Unset = UNSET
    parent_id: str | Unset = UNSET
    root_id: str | Unset = UNSET
    status: Status | Unset = UNSET
    metadata: dict[str, str] = {}
    active_since: float | Unset = UNSET
    active_before: float | Unset = UNSET
    prefix: str | Unset = UNSET
    limit: PageLimit = limits.PAGE_DEFAULT
    cursor: str | Unset = UNSET


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a tree.

    Attributes:
        limit: How many sessions at most; the nearest come first.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.TREE_SESSIONS)] = limits.TREE_SESSIONS


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """How to delete.

    Attributes:
        purge: Whether to skip the trash: it is gone for good.
        receipt: Whether to answer 200 with what went, instead of 204.
    """

    purge: bool = False
    receipt: bool = False


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """A session and its descendants.

    Attributes:
        sessions: Nearest first, itself in front.
    """

    sessions: list[SessionView]


async def create(call: Call, body: Creation) -> SessionView:
    """Create a session and its folder."""
    if body.parent_id is not None:
        await call.reach(body.parent_id)
    session = await call.hub.sessions.create(
        session_id=body.session_id,
        user_id=call.user(body.user_id),
        app=body.app,
        key=body.key,
        parent_id=body.parent_id,
        title=body.title,
        agent=body.agent,
        metadata=body.metadata,
        ttl_s=body.ttl_s,
        lifetime_s=body.lifetime_s,
        tenant=call.principal.tenant,
        idempotency_key=call.idempotency_key,
    )
    return _made(call, session)


async def list_sessions(call: Call, query: Filter) -> SessionPage:
    """List sessions, newest first. Pages stay whole while sessions come and go.

    `metadata.NAME=VALUE`, for as many names as wanted, lists those whose metadata has exactly that under NAME: a JSON
    scalar where VALUE is one, else text. So `metadata.n=5` asks for the number and `metadata.n="5"` for the text.
    """
    if (prefix := given(query.prefix)) is not None:
        begun = await call.hub.sessions.find_prefix(
            prefix,
            trashed=query.status == Status.TRASHED,
            tenant=call.principal.tenant,
            user_id=call.user(given(query.user_id)),
        )
        return SessionPage(sessions=[session_view(call, one) for one in begun], next_cursor=None)
    page = await call.hub.sessions.list(
        user_id=call.user(given(query.user_id)),
        app=given(query.app),
        parent_id=given(query.parent_id),
        root_id=given(query.root_id),
        status=given(query.status),
        metadata={name: _scalar(text) for name, text in query.metadata.items()} or None,
        active_since_us=_micros(query.active_since, "active_since"),
        active_before_us=_micros(query.active_before, "active_before"),
        limit=query.limit,
        cursor=given(query.cursor),
        tenant=call.principal.tenant,
    )
    return SessionPage(sessions=[session_view(call, one) for one in page.sessions], next_cursor=page.next_cursor)


async def get(call: Call) -> SessionView:
    """Show a session. An expired one is shown, one in the trash is not."""
    return _tagged(call, await call.session())


async def update(call: Call, body: Patch) -> SessionView:
    """Change title, agent, metadata, pin, TTL or lifetime; with If-Match, only the version that it names."""
    changes = Changes(
        title=body.title,
        agent=body.agent,
        metadata=body.metadata,
        pinned=body.pinned,
        ttl_s=body.ttl_s,
        lifetime_s=body.lifetime_s,
    )
    return _tagged(call, await call.hub.sessions.update(call.session_id, changes, version=_version(call)))


async def delete(call: Call, query: Deletion) -> Receipt:
    """Move a session and its descendants to the trash, or with `purge` remove them for good; runs are cancelled.

    With If-Match, only when it is at the version that it names.
    """
    receipt = await call.hub.sessions.delete(
        call.session_id, purge=query.purge, version=_version(call), by=call.principal.name
    )
    if not query.receipt:
        return None  # type: ignore[return-value]
    call.status = 200
    return receipt


async def touch(call: Call) -> SessionView:
    """Record activity; revives a session that was idle for too long, not one that is past its end."""
    return _tagged(call, await call.hub.sessions.touch(call.session_id))


async def summary(call: Call) -> SummaryView:
    """Show a session in a few words."""
    return summary_view(await call.session())


async def children(call: Call, query: Paging) -> SessionPage:
    """List the direct children, newest first."""
    page = await call.hub.sessions.children(
        call.session_id, user_id=call.user(None), limit=query.limit, cursor=given(query.cursor)
    )
    return SessionPage(sessions=[session_view(call, one) for one in page.sessions], next_cursor=page.next_cursor)


async def spawn(call: Call, body: Child) -> SessionView:
    """Create a child."""
    session = await call.hub.sessions.create(
        parent_id=call.session_id,
        title=body.title,
        user_id=call.user(body.user_id),
        agent=body.agent,
        key=body.key,
        metadata=body.metadata,
        tenant=(await call.session()).tenant,
        idempotency_key=call.idempotency_key,
    )
    return _made(call, session)


async def tree(call: Call, query: Part) -> Tree:
    """Show a session and its descendants, nearest first."""
    found = await call.hub.sessions.tree(call.session_id, limit=query.limit)
    return Tree(sessions=[session_view(call, one) for one in found if sees(call.principal, one.tenant, one.user_id)])


def _made(call: Call, session: Handle) -> SessionView:
    call.note_replay(session.replayed)
    call.headers.append((b"location", f"/api/v1/sessions/{session.id}".encode()))
    return _tagged(call, session)


def _tagged(call: Call, session: Session) -> SessionView:
    call.headers.append((b"etag", b'"%d"' % session.version))
    return session_view(call, session)


def _version(call: Call) -> int | None:
    """Return the version that If-Match asks for, None when any will do."""
    wanted = call.head.get(b"if-match", b"*").strip()
    if wanted == b"*":
        return None
    digits = wanted.removeprefix(b'"').removesuffix(b'"')
    if len(digits) == len(wanted) - 2 and digits.isdigit() and len(digits) < 19:
        return int(digits)
    raise VersionMismatchError("If-Match is not an ETag of this session", field="if-match", remedy="read it again")


def _micros(value: float | Unset, field: str) -> int | None:
    if isinstance(value, Unset):
        return None
    if not abs(value) < 1e11:
        raise InvalidError(f"{field} is no instant", field=field, remedy="give epoch seconds")
    return round(value * 1_000_000)


def _scalar(text: str) -> Scalar:
    try:
        value = msgspec.json.decode(text, type=Scalar)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    return value


_KEY: Final = {"Idempotency-Key": "A repetition with the same key and body gets the same session."}
_NONE: Final = (SessionNotFoundError,)
_ONE: Final = "/api/v1/sessions/{session_id}"

ROUTES: Final = (
    Route(
        "POST",
        "/api/v1/sessions",
        create,
        permission="sessions.create",
        status=201,
        errors=(SessionNotFoundError, AlreadyExistsError, IdempotencyError),
        headers=_KEY,
    ),
    Route("GET", "/api/v1/sessions", list_sessions, permission="sessions.read"),
    Route("GET", _ONE, get, permission="sessions.read", errors=_NONE, run=True),
    Route(
        "PATCH",
        _ONE,
        update,
        permission="sessions.update",
        errors=(SessionNotFoundError, VersionMismatchError),
        headers={"If-Match": "The ETag of the version to change."},
    ),
    Route(
        "DELETE",
        _ONE,
        delete,
        permission="sessions.delete",
        status=204,
        others=(200,),
        errors=(SessionNotFoundError, VersionMismatchError),
        headers={"If-Match": "The ETag of the version to delete."},
    ),
    Route("POST", f"{_ONE}/touch", touch, permission="sessions.update", errors=_NONE),
    Route("GET", f"{_ONE}/summary", summary, permission="sessions.read", errors=_NONE, run=True),
    Route("GET", f"{_ONE}/children", children, permission="sessions.read", errors=_NONE),
    Route(
        "POST",
        f"{_ONE}/children",
        spawn,
        permission="sessions.create",
        status=201,
        errors=(SessionNotFoundError, AlreadyExistsError, IdempotencyError),
        headers=_KEY,
    ),
    Route("GET", f"{_ONE}/tree", tree, permission="sessions.read", errors=_NONE),
)
