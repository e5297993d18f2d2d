"""The ASGI application: from a request through the table of routes to an answer."""

from __future__ import annotations

import logging
from functools import cache
from typing import Final, final

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from alcove import ids
from alcove.clock import SystemClock
from alcove.errors import (
    AlcoveError,
    InvalidError,
    NotPermittedError,
    RateLimitedError,
    RunNotFoundError,
    SessionNotFoundError,
    UnauthorizedError,
)
from alcove.principals import rules
from alcove.principals.model import Role
from alcove.server import problems
from alcove.server.auth import Gate
from alcove.server.call import Call, Site
from alcove.server.problems import ForbiddenError, MisdirectedError, Problem
from alcove.server.route import UNMATCHED, Route, Router

_log = logging.getLogger("alcove.http")
_encode = msgspec.json.Encoder().encode
_now = SystemClock().monotonic
_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", b"application/problem+json")
_NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
_NO_STORE: Final = (b"cache-control", b"no-store")
_CLOSE: Final = (b"connection", b"close")
_CLIENT_LEFT: Final = 499  # no status that anybody is sent; the number is nginx's
_SERVER_ERROR: Final = 500
_TIMED_OUT: Final = 408
_DENIALS: Final = (UnauthorizedError, NotPermittedError, RateLimitedError, ForbiddenError, MisdirectedError)
_FRANK: Final = frozenset({Role.ADMIN, Role.SERVICE})  # who may read about the server itself


@final
class App:
    """Serves a site behind one gate. Any number of them may share a site.

    Args:
        site: What answers.
        gate: Who may call.
    """

    def __init__(self, site: Site, gate: Gate) -> None:
        self._site = site
        self._gate = gate
        self._router = _router(site.routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await _decline(scope, receive, send)
        if scope["method"] == "HEAD":
            send = _without_body(send)
        begun = _now()
        call = Call(self._site, scope, receive)
        try:
            await self._serve(call, send)
        finally:
            took_s = _now() - begun
            method = scope["method"] if call.route is not UNMATCHED else "other"  # the caller's own word
            self._site.metrics.request(method, call.route.path, call.status, took_s)
            if call.status >= _SERVER_ERROR or _log.isEnabledFor(logging.DEBUG):
                _log_line(call, took_s)

    async def _serve(self, call: Call, send: Send) -> None:
        try:
            answer = await self._answer(call)
        except AlcoveError as error:
            if isinstance(error, _DENIALS):
                call.denied(error.code)
            told = problems.problem(error, call.request_id, frank=call.principal.role in _FRANK)
            if told.status == _SERVER_ERROR:
                _log.error("request failed", exc_info=error, extra={"request_id": call.request_id})
            await _send_problem(call, told, send, allow=error.details.get("allow"))
        except ClientDisconnect:
            call.status = _CLIENT_LEFT
        except Exception:  # noqa: BLE001 - the root of a request: logged, and told without its details
            _log.exception("request broke", extra={"request_id": call.request_id})
            await _send_problem(call, problems.internal(call.request_id), send)
        else:
            await _send(call, answer, send)

    async def _answer(self, call: Call) -> object:
        """Return what the handler says, once it is known which one, who is calling, and what was asked."""
        scope = call.scope
        try:
            call.route, call.path = self._router.find(scope["method"], scope["raw_path"])
        finally:
            # Also on a path that there is not: a stranger is not told which there are.
            call.principal = await self._gate.admit(call.head, call.route)
        route = call.route
        call.status = route.status
        await _check_reach(call)
        arguments = [call.query()] if route.query or scope["query_string"] else []
        if route.body:
            arguments.append(await call.body())
        return await route.handler(call, *arguments)


@cache
def _router(routes: tuple[Route, ...]) -> Router:
    """Return the table, ready to be looked up; a run's socket shares it with the server's."""
    return Router(routes)


async def _check_reach(call: Call) -> None:
    """Raise what the caller may not do; for a session that it may not see, what is raised for one that there is not."""
    if call.principal.role is Role.RUN:
        if not call.route.run:
            raise problems.no_path()
    else:
        rules.check(call.principal, call.route.permission)
    session_id = call.path.get("session_id")
    if session_id is not None:
        if not _could_be(session_id):
            raise SessionNotFoundError("there is no session of such an id", field="session_id")
        await call.reach(session_id)
    run_id = call.path.get("run_id")
    if run_id is not None and not _could_be(run_id):
        raise RunNotFoundError("there is no run of such an id", field="run_id")


def _could_be(value: str) -> bool:
    try:
        ids.session_id(value)
    except InvalidError:
        return False
    return True


async def _send(call: Call, answer: object, send: Send) -> None:
    """Send what a handler returned."""
    if isinstance(answer, Response):
        call.status = answer.status_code
        answer.raw_headers += [_NOSNIFF, _request_id(call), *call.headers]
        await answer(call.scope, call.receive, send)
        return
    head = [_NOSNIFF, _NO_STORE, _request_id(call), *call.headers]
    body = b""
    if answer is None:
        call.status = 204
    else:
        body = _encode(answer)
        head += [_JSON, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": call.status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _send_problem(call: Call, told: Problem, send: Send, *, allow: object = None) -> None:
    """Send a problem. When a long body is still coming, its sender gets a moment to hear this."""
    call.status = told.status
    body = _encode(told)
    head = [_NOSNIFF, _NO_STORE, _request_id(call), _PROBLEM, (b"content-length", b"%d" % len(body))]
    head += problems.headers(told)
    if allow is not None:
        head.append((b"allow", str(allow).encode()))
    lingering = call.unread
    if lingering or told.status == _TIMED_OUT:
        head.append(_CLOSE)
    await send({"type": "http.response.start", "status": call.status, "headers": head})
    await send({"type": "http.response.body", "body": body, "more_body": lingering})
    if lingering:
        await call.discard()
        await send({"type": "http.response.body", "body": b""})


def _without_body(send: Send) -> Send:
    async def bare(message: Message) -> None:
        await send(message if message["type"] != "http.response.body" else {**message, "body": b""})

    return bare


def _request_id(call: Call) -> tuple[bytes, bytes]:
    return b"x-request-id", call.request_id.encode()


def _log_line(call: Call, took_s: float) -> None:
    _log.log(
        logging.WARNING if call.status >= _SERVER_ERROR else logging.DEBUG,
        "request",
        extra={
            "method": call.scope["method"],
            "path": call.scope["path"],
            "status": call.status,
            "took_ms": round(took_s * 1000, 1),
            "request_id": call.request_id,
        },
    )


async def _decline(scope: Scope, receive: Receive, send: Send) -> None:
    """Take part in a lifespan, which is the business of whoever opened the hub, and in nothing else."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    for word in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{word}.complete"})
