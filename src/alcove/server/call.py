"""One request on its way through: its head, its body within limits, and what the answer adds."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, final
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from alcove import ids, limits
from alcove.errors import InvalidError, RunNotFoundError, SessionNotFoundError, TooLargeError
from alcove.hub import Alcove
from alcove.principals.model import NOBODY, Role
from alcove.principals.rules import own_user, sees
from alcove.runs.checking import Whose
from alcove.runs.model import Run
from alcove.server.problems import MediaTypeError, TimedOutError
from alcove.server.route import UNMATCHED, Route
from alcove.sessions.model import Session
from alcove.telemetry.metrics import Metrics

COMPLETE: Final = "alcove.complete"
"""In a scope's `state`: the server has the whole body already."""

_JSON_TYPES: Final = frozenset({b"application/json", b"application/merge-patch+json"})
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE = bytes.maketrans(b"{}", b"[]")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,%d}" % limits.REQUEST_ID_CHARS)
_UNSENT_BODY_BYTES = 64 * limits.KIB


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls of one server share.

    Attributes:
        hub: What answers.
        routes: The table.
        metrics: Where is counted.
        stopping: Set when the server stops: streams end.
        request_ids: Gives an id to each request that has none.
    """

    hub: Alcove
    routes: tuple[Route, ...]
    metrics: Metrics
    stopping: asyncio.Event
    request_ids: Iterator[str] = msgspec.field(default_factory=lambda: _numbered(ids.new_id()))


def _numbered(prefix: str) -> Iterator[str]:
    return (f"{prefix}-{number}" for number in itertools.count(1))


@final
class Call:
    """One request.

    Attributes:
        site: The server that it came to.
        scope: Its head, as ASGI gives it.
        receive: Gives its body.
        head: Its headers, by lower-case name.
        request_id: The caller's own, or a new one.
        route: What was asked for, `UNMATCHED` until it is known.
        path: The parameters in the path, decoded.
        principal: Who is calling, `NOBODY` until it is known.
        status: Of the answer; a handler may set another one than the route's.
        headers: What the answer's head has besides what every answer has.
    """

    __slots__ = (
        "_unread",
        "head",
        "headers",
        "path",
        "principal",
        "receive",
        "request_id",
        "route",
        "scope",
        "site",
        "status",
    )

    def __init__(self, site: Site, scope: Scope, receive: Receive) -> None:
        self.site = site
        self.scope = scope
        self.head: dict[bytes, bytes] = dict(scope["headers"])
        given = self.head.get(b"x-request-id")
        self.request_id = given.decode() if given and _REQUEST_ID.fullmatch(given) else next(site.request_ids)
        self.route = UNMATCHED
        self.path: dict[str, str] = {}
        self.principal = NOBODY
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.receive = receive
        self._unread = True

    @property
    def hub(self) -> Alcove:
        """What answers."""
        return self.site.hub

    @property
    def is_admin(self) -> bool:
        """Whether the caller administers the server."""
        return self.principal.role is Role.ADMIN

    @property
    def session_id(self) -> str:
        """The session in the path."""
        return self.path["session_id"]

    @property
    def idempotency_key(self) -> str | None:
        """The Idempotency-Key header."""
        value = self.head.get(b"idempotency-key")
        return None if value is None else value.decode("latin-1")

    async def session(self) -> Session:
        """Return the session in the path. Raises SessionNotFoundError."""
        return await self.hub.sessions.get(self.session_id)

    async def reach(self, session_id: str) -> None:
        """Let a session pass that exists for the caller: for every id that comes in a path or a body.

        Raises:
            SessionNotFoundError: There is none of that id, or it is another tenant's, user's or run's.
        """
        principal = self.principal
        if principal.role is Role.ADMIN:
            return
        there = True
        if principal.role is Role.RUN:
            seen = principal.session_id == session_id
        else:
            owner = await self.hub.sessions.owner(session_id)
            there = owner is not None
            seen = owner is not None and sees(principal, *owner)
        if not seen:
            if there:
                self.denied("foreign", f"session:{session_id}")
            raise SessionNotFoundError(f"there is no session {session_id}", field="session_id", session_id=session_id)

    def denied(self, code: str, subject: str = "") -> None:
        """Tell the audit that this request is refused."""
        principal = self.principal
        self.hub.audit.denied(
            "request.denied",
            code,
            subject=subject,
            tenant="" if principal is NOBODY else principal.tenant,
            user_id=principal.user_id,
            session_id=principal.session_id,
            who="nobody" if principal is NOBODY else principal.name,
            method=self.route.method,
            path=self.route.path,
            permission=self.route.permission,
        )

    def note_replay(self, replayed: bool) -> None:
        """Tell the caller whether this is the answer to an earlier request with the same idempotency key."""
        if replayed:
            self.headers.append((b"idempotent-replayed", b"true"))

    def user(self, asked: str | None) -> str | None:
        """Return the user that a request is about: the caller's own when it is bound to one, else the one asked for.

        Raises:
            NotPermittedError: Another one than its own.
        """
        return own_user(self.principal, asked)

    async def run(self) -> Run:
        """Return the run in the path.

        Raises:
            RunNotFoundError: There is none, or it is of a session that is not the caller's.
        """
        run = await self.hub.runs.get(self.path["run_id"])
        if not self._sees_run(run.id, Whose(run.tenant, run.user_id, run.session_id)):
            self.denied("foreign", f"run:{run.id}")
            raise RunNotFoundError(f"there is no run {run.id}", field="run_id", run_id=run.id)
        return run

    async def reach_run(self, run_id: str) -> None:
        """Let a run pass that exists for the caller; at the cost of a look-up, when it is known here.

        Raises:
            RunNotFoundError: There is none, or it is not the caller's.
        """
        owner = await self.hub.runs.owner(run_id)
        if owner is None or not self._sees_run(run_id, owner):
            if owner is not None:
                self.denied("foreign", f"run:{run_id}")
            raise RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)

    async def own_run(self) -> str:
        """Return the id of the run in the path: for a run that calls with its own token, only that one.

        Raises:
            RunNotFoundError: There is none, or it is not the caller's.
        """
        run_id = self.path["run_id"]
        if self.principal.role is Role.RUN and self.principal.run_id != run_id:
            raise RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)
        await self.reach_run(run_id)
        return run_id

    def _sees_run(self, run_id: str, owner: Whose) -> bool:
        principal = self.principal
        if principal.role is Role.RUN:
            return run_id == principal.run_id or "" != owner.session_id == principal.session_id
        return sees(principal, owner.tenant, owner.user_id)

    def query(self) -> Any:
        """Return the query as the route's struct, None when it has none.

        Raises:
            InvalidError: A parameter is unknown, given twice or not of its type.
        """
        kind, written = self.route.query, self.scope["query_string"]
        if not written and self.route.no_query is not None:
            return self.route.no_query
        try:
            pairs = parse_qsl(written.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
        except ValueError as error:
            raise InvalidError(f"the query cannot be read: {error}", field="query") from None
        values: dict[str, str] = {}
        groups: dict[str, dict[str, str]] = {}
        for name, value in pairs:
            group, dot, inner = name.partition(".")
            if (f"{group}.NAME" if dot else name) not in self.route.known:
                known = ", ".join(self.route.known)
                raise InvalidError(
                    f"unknown query parameter {name[:80]!r}",
                    field=name[:80],
                    remedy=f"known: {known}" if known else "leave it out: none is taken here",
                )
            place, key = (groups.setdefault(group, {}), inner) if dot else (values, name)
            if key in place:
                raise InvalidError(f"{name[:80]!r} is given twice", field=name[:80], remedy="give it once")
            place[key] = value
        if kind is None:
            return None
        try:
            return msgspec.convert({**values, **groups}, kind, strict=False)
        except msgspec.ValidationError as error:
            raise invalid(error) from None

    async def body(self) -> Any:
        """Return the JSON body as the route's struct.

        Raises:
            MediaTypeError: It is not declared as JSON.
            InvalidError: It is malformed, too deep, or not of the struct's form.
            TooLargeError: It is longer than `limits.BODY_BYTES`.
            TimedOutError: It did not arrive in time.
        """
        if self.scope.get("state", {}).get(COMPLETE):
            # The usual case: it came with the head, and needs no clock.
            content: bytes = (await self.receive()).get("body", b"")
            self._unread = False
            if len(content) > limits.BODY_BYTES:
                raise _too_long(limits.BODY_BYTES)
        else:
            content = b"".join([chunk async for chunk in self.chunks(limits.BODY_BYTES)])
        if not content and self.route.body_optional:
            content = b"{}"
        elif self.head.get(b"content-type", b"").partition(b";")[0].strip().lower() not in _JSON_TYPES:
            raise MediaTypeError(field="content-type", remedy="send JSON with Content-Type: application/json")
        assert self.route.decode_body is not None
        try:
            body = self.route.decode_body(content)
        except msgspec.ValidationError as error:
            raise invalid(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidError(f"the body is not JSON: {error}", field="body", remedy="send a JSON object") from None
        except RecursionError:
            raise _too_deep() from None
        if content.count(b"[") + content.count(b"{") > limits.JSON_DEPTH and _deeper(content, limits.JSON_DEPTH):
            raise _too_deep()
        return body

    async def chunks(self, limit_bytes: int, *, patient: bool = False) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Args:
            limit_bytes: How long it may be.
            patient: Whether `limits.BODY_TIMEOUT_S` is for each piece and not for the whole; the whole then has
                that and what it takes at `limits.UPLOAD_BYTES_PER_S`.

        Raises:
            TooLargeError: It is longer; said at once where the head tells its length.
            TimedOutError: It did not arrive in time.
            ClientDisconnect: The caller left before its end.
        """
        if int(self.head.get(b"content-length", b"0")) > limit_bytes:
            raise _too_long(limit_bytes)
        now = asyncio.get_running_loop().time
        begun = now()
        size, more, until = 0, True, begun + limits.BODY_TIMEOUT_S
        while more:
            try:
                async with asyncio.timeout_at(until):
                    message = await self.receive()
            except TimeoutError:
                raise TimedOutError(
                    f"the body did not arrive within {limits.BODY_TIMEOUT_S} seconds", limit=limits.BODY_TIMEOUT_S
                ) from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            self._unread = more
            size += len(chunk)
            if size > limit_bytes:
                raise _too_long(limit_bytes)
            yield chunk
            if patient:
                slowest = begun + size / limits.UPLOAD_BYTES_PER_S
                until = min(now(), slowest) + limits.BODY_TIMEOUT_S

    @property
    def unread(self) -> bool:
        """Whether much of the body may still be on its way, so that the connection cannot go on."""
        if not self._unread:
            return False
        if b"transfer-encoding" in self.head:
            return True
        return int(self.head.get(b"content-length", b"0")) > _UNSENT_BODY_BYTES

    async def discard(self) -> None:
        """Take the rest of the body for a moment, so that the caller hears the answer before the connection ends."""
        try:
            async with asyncio.timeout(limits.LINGER_S):
                while True:
                    message = await self.receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return


def invalid(error: msgspec.ValidationError) -> InvalidError:
    """Return msgspec's complaint as ours, with the field that it is about."""
    text, _, where = str(error).partition(" - at `$")
    field = where.rstrip("`").lstrip(".")
    for said in ("Object contains unknown field `", "Object missing required field `"):
        if text.startswith(said):
            field = ".".join(filter(None, (field, text.removeprefix(said).rstrip("`"))))
    text = text.replace("Object", "the object").replace("`", "'").replace("Expected", "expected")
    return InvalidError(f"{field or 'body'}: {text}", field=field[:200] or "body", remedy="see /docs")


def _deeper(content: bytes, depth: int) -> bool:
    """Return whether a well-formed JSON text is nested deeper: brackets without anything between them are taken out."""
    brackets = _STRING.sub(b"", content).translate(_SQUARE, _NOT_BRACKETS)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _too_deep() -> InvalidError:
    return InvalidError(
        f"the body is nested deeper than {limits.JSON_DEPTH} levels",
        field="body",
        limit=limits.JSON_DEPTH,
        remedy="flatten it",
    )


def _too_long(limit_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"the body is longer than {limit_bytes} bytes", field="body", limit=limit_bytes, remedy="send less at once"
    )
