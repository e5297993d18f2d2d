"""State: values by scope and key."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from alcove import limits
from alcove.clock import seconds
from alcove.errors import (
    ConflictError,
    InvalidError,
    NotPermittedError,
    RunEndedError,
    RunNotFoundError,
    SessionNotFoundError,
    TooLargeError,
    ValueNotFoundError,
    VersionMismatchError,
)
from alcove.principals.model import Role
from alcove.runs.remembering import StateOf
from alcove.server.call import Call
from alcove.server.conditions import condition
from alcove.server.route import Route
from alcove.server.routes.views import Name, Ttl, Unset, given
from alcove.state.model import Value
from alcove.state.rules import scope_of
from alcove.values import Json

_VALUE: Final = "/api/v1/state/{scope}/{key}"
_ERRORS: Final = (SessionNotFoundError, RunNotFoundError, NotPermittedError)


class Of(msgspec.Struct, frozen=True, kw_only=True):
    """Whose state.

    Attributes:
        of: The id of the session, user, subject or run, or the name of the agent. Left out for an app, by a user for
            its own state, and for a run's, whose grant says whose it is.
        app: In which app.
        run_id: On whose behalf: a run's, within its grant. A run that calls by its own socket or token need not say it.
        caller: Who asks for the run; has to be the grant's, when that names one.
    """

    of: Name = ""
    app: Name = ""
    run_id: Name = ""
    caller: Name = ""


class OfPage(Of, frozen=True, kw_only=True):
    """Whose state, and which page of it.

    Attributes:
        limit: How many at most.
        cursor: The `next_cursor` of the page before.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.STATE_PAGE)] = limits.PAGE_DEFAULT
    cursor: str | Unset = msgspec.UNSET


class NewValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value to be set.

    Attributes:
        value: Any JSON.
        ttl_s: Seconds after which it is gone; null for never.
    """

    value: Json
    ttl_s: Ttl | None = None


class ValueView(msgspec.Struct, frozen=True, kw_only=True):
    """A value.

    Attributes:
        scope: `session user subject agent app run`.
        of: Whose; empty for an app's.
        app: In which app.
        key: Its name there.
        value: JSON.
        version: Names this value; the ETag is the same.
        created_at: Epoch seconds.
        updated_at: Epoch seconds.
        expires_at: Epoch seconds; null for never.
    """

    scope: str
    of: str
    app: str
    key: str
    value: Json
    version: int
    created_at: float
    updated_at: float
    expires_at: float | None


class ValueList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of values.

    Attributes:
        values: By key.
        next_cursor: Goes into `cursor` for the next page; null on the last.
    """

    values: list[ValueView]
    next_cursor: str | None


async def show(call: Call, query: Of) -> ValueView:
    """Show a value."""
    place = await _place(call, query, "read")
    return _tagged(call, await call.hub.state.get(place.scope, call.path["key"], **_named(place)))


async def put(call: Call, query: Of, body: NewValue) -> ValueView:
    """Set a value; with If-Match only in place of that version, with `If-None-Match: *` only where there is none."""
    place = await _place(call, query, "write")
    value = await call.hub.state.set(
        place.scope,
        call.path["key"],
        body.value,
        **_named(place),
        ttl_s=body.ttl_s,
        expected_version=_expected(call),
    )
    await _told(call, query, place, value.version)
    return _tagged(call, value)


async def delete(call: Call, query: Of) -> None:
    """Delete a value; with If-Match only that version."""
    place = await _place(call, query, "write")
    await call.hub.state.delete(place.scope, call.path["key"], **_named(place), expected_version=_expected(call))
    await _told(call, query, place, 0)


async def list_values(call: Call, query: OfPage) -> ValueList:
    """List values by key."""
    place = await _place(call, query, "read")
    page = await call.hub.state.list(place.scope, **_named(place), limit=query.limit, cursor=given(query.cursor))
    return ValueList(values=[_view(value) for value in page.values], next_cursor=page.next_cursor)


async def _place(call: Call, query: Of, operation: str) -> StateOf:
    """Return whose state is meant, when the caller may use it."""
    scope, principal = scope_of(call.path["scope"]), call.principal
    run_id = query.run_id or principal.run_id
    if run_id:
        if principal.role is Role.RUN and run_id != principal.run_id:
            raise RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)
        if query.of or query.app:
            raise InvalidError("the grant says whose state a run has", field="of", remedy="leave out `of` and `app`")
        await call.reach_run(run_id)
        return await call.hub.runs.state_of(run_id, scope, operation, query.caller)
    of = query.of
    if scope == "session" and of:
        await call.reach(of)
    elif scope == "run" and of:
        await call.reach_run(of)
    elif principal.role is Role.USER:
        if scope != "user":
            call.denied("not_permitted", f"state:{scope}")
            raise NotPermittedError(
                f"a user may not see state of the scope {scope}", field="scope", remedy="use a key of the role service"
            )
        of = call.user(of or None) or ""
    return StateOf(scope, of, principal.tenant, query.app)


async def _told(call: Call, query: Of, place: StateOf, version: int) -> None:
    if run_id := query.run_id or call.principal.run_id:
        await call.hub.runs.note_state(run_id, place.scope, call.path["key"], version)


def _named(place: StateOf) -> dict[str, str]:
    return {"of": place.of, "tenant": place.tenant, "app": place.app}


def _expected(call: Call) -> int | None:
    """Return the version that the request asks for, 0 for none, None for any."""
    asked = condition(call.head)
    if asked is None:
        return None
    if asked.match is None and asked.none_match == ("*",):
        return 0
    if asked.none_match is None and asked.match is not None and len(asked.match) == 1 and asked.match[0].isdecimal():
        return min(int(asked.match[0]), 2**63 - 1)
    raise InvalidError(
        "the condition is none that a value knows",
        field="if-match",
        remedy="send one ETag of the value as If-Match, or If-None-Match: *",
    )


def _tagged(call: Call, value: Value) -> ValueView:
    call.headers.append((b"etag", b'"%d"' % value.version))
    return _view(value)


def _view(value: Value) -> ValueView:
    return ValueView(
        scope=value.place.scope,
        of=value.place.owner,
        app=value.place.app,
        key=value.key,
        value=value.value,
        version=value.version,
        created_at=seconds(value.created_us),
        updated_at=seconds(value.updated_us),
        expires_at=seconds(value.expires_us) if value.expires_us else None,
    )


_CONDITIONS: Final = {
    "If-Match": "The ETag of the value that is expected.",
    "If-None-Match": "`*`: only where there is no value.",
}
ROUTES: Final = (
    Route("GET", "/api/v1/state/{scope}", list_values, permission="state.read", errors=_ERRORS, run=True),
    Route("GET", _VALUE, show, permission="state.read", errors=(*_ERRORS, ValueNotFoundError), run=True),
    Route(
        "PUT",
        _VALUE,
        put,
        permission="state.write",
        errors=(*_ERRORS, VersionMismatchError, RunEndedError, ConflictError, TooLargeError),
        headers=_CONDITIONS,
        run=True,
    ),
    Route(
        "DELETE",
        _VALUE,
        delete,
        permission="state.write",
        status=204,
        errors=(*_ERRORS, ValueNotFoundError, VersionMismatchError, RunEndedError),
        headers={"If-Match": _CONDITIONS["If-Match"]},
        run=True,
    ),
)
