"""An HTTP/1.1 connection: requests in their order, with limits on each head and a problem for what is no request.

The parser is httptools'; starting, ticking and stopping are uvicorn's, which looks after `connections` and `tasks`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, cast, final
from urllib.parse import unquote

import httptools
import msgspec
from starlette.types import ASGIApp, Scope
from uvicorn.config import Config
from uvicorn.server import ServerState

from alcove import ids, limits
from alcove.errors import AlcoveError, InvalidError
from alcove.server import problems
from alcove.server.problems import HeadersTooLargeError, TimedOutError
from alcove.server.reply import STATUS_LINE, Reply

_encode = msgspec.json.Encoder().encode
_ONCE: Final = (b"host", b"origin", b"authorization", b"sec-fetch-site")
_CLOSING: Final = b"content-type: application/problem+json\r\nconnection: close\r\n"
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


def configured(app: Any) -> Config:
    """Return uvicorn's configuration for an application: no threads, no access log, no trust in proxies' headers."""
    config = Config(
        app,
        http=Connection,
        loop="none",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=limits.LAST_ANSWERS_S,
    )
    config.load()
    return config


@final
class Connection(asyncio.Protocol):
    """One connection.

    Args:
        config: Has the application.
        server_state: Has all connections, their tasks, and the headers of every answer.
        app_state: What a lifespan left; there is none.
        most: How many connections there may be at once; the next one is not heard.
    """

    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        most: int | None = None,
    ) -> None:
        del app_state
        self._app = cast("ASGIApp", config.loaded_app)
        self._state = server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._most = most
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # what follows a last request is dropped
        self._writable = asyncio.Event()
        self._writable.set()
        self._reading = True
        self._common: tuple[object, bytes] = (None, b"")
        self._server: object = None
        self._client: object = None
        self._newest: Reply | None = None  # whose head came last
        self._current: Reply | None = None  # which is being answered, or was answered last
        self._waiting: deque[Reply] = deque()  # between them: pipelined
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._in_head = True
        self._dry_bytes = 0  # received since the last byte of a body: a head, trailers, or what separates chunks
        self._deadline: float | None = None  # of what is waited for: a head, or (`_idle`) any byte at all
        self._idle = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.tasks: set[asyncio.Task[None]] = server_state.tasks

    # -- the transport's side --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a first request, not for ever."""
        self.transport = cast("asyncio.Transport", transport)
        if self._most is not None and len(self._state.connections) >= self._most:
            self.transport.abort()
            return
        self._server, self._client = _address(transport, "sockname"), _address(transport, "peername")
        self._state.connections.add(self)  # pyright: ignore[reportArgumentType]
        self._wait(limits.BODY_TIMEOUT_S, idle=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever still works on an answer."""
        del exc
        self._state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._leave()
        self._writable.set()

    def pause_writing(self) -> None:
        """Let answers wait: the other side does not take them."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let answers go on."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse a head, or trailers, that do not end."""
        self._dry_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # To a protocol that is not spoken here: the request is answered as it is, and nothing can follow it.
            if self._newest is not None:
                self._newest.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(InvalidError("this is not an HTTP/1.1 request"))
            return
        if self._dry_bytes > limits.HEAD_BYTES:
            self._refuse(
                HeadersTooLargeError(
                    f"the head of the request is longer than {limits.HEAD_BYTES} bytes", limit=limits.HEAD_BYTES
                )
            )
        elif self._in_head and (self._idle or self._deadline is None):
            self._wait(limits.BODY_TIMEOUT_S, idle=False)

    # -- the parser's side -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._url = b""
        self._headers = []
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Take a piece of what is asked for."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header of the head; trailers came after the gate and are nobody's."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Let the application begin, when the requests before have been answered.

        Raises:
            ValueError: A header by which callers are told apart stands there twice; the request is refused.
        """
        headers, parser = self._headers, self._parser
        named = dict(headers)
        if len(named) != len(headers):
            for once in _ONCE:
                if sum(name == once for name, _ in headers) > 1:
                    raise ValueError(once)
        self._in_head = False
        self._dry_bytes = 0
        self._deadline = None
        self._idle = False
        path, query = _target(self._url)
        text = path.decode("ascii")
        version = parser.get_http_version()
        scope: Scope = {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "root_path": "",
            "method": parser.get_method().decode("ascii"),
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "headers": headers,
            "state": {},
        }
        reply = Reply(
            self,
            scope,
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            awaits_leave=named.get(b"expect", b"").lower() == b"100-continue",
        )
        self._newest = reply
        if self._current is None or self._current.complete:
            self._start(reply)
        else:
            self._waiting.append(reply)
            self.read_on(False)

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._dry_bytes = 0
        assert self._newest is not None
        if not self._newest.complete:
            self._newest.feed(body)

    def on_message_complete(self) -> None:
        """Tell the application that nothing of the body is missing."""
        self._dry_bytes = 0
        assert self._newest is not None
        self._newest.fed()

    # -- the reply's side, and the server's ---------------------------------------------------------------------

    @property
    def common(self) -> bytes:
        """The headers that every answer has: the date, which changes once a second."""
        headers, text = self._common
        if headers is not self._state.default_headers:
            headers = self._state.default_headers
            text = b"".join(b"%b: %b\r\n" % header for header in headers)
            self._common = headers, text
        return text

    def read_on(self, more: bool) -> None:
        """Read, or do not read, what comes next; never while requests are waiting, so that few of them do."""
        more = more and not self._waiting
        if more is not self._reading and not self.transport.is_closing():
            self._reading = more
            (self.transport.resume_reading if more else self.transport.pause_reading)()

    async def writable(self) -> None:
        """Wait until what was written has been taken."""
        if not self._writable.is_set():
            await self._writable.wait()

    def answered(self) -> None:
        """Go on with the next request, or wait for one."""
        if self.transport.is_closing():
            return
        if self._waiting:
            self._start(self._waiting.popleft())
        elif self._deadline is None:
            self._wait(limits.KEEP_ALIVE_S, idle=True)
        self.read_on(True)

    def shutdown(self) -> None:
        """End now, or after the answers that are due."""
        if self._newest is None or self._newest.complete:
            self.transport.close()
        else:
            self._newest.keep_alive = False

    def _start(self, reply: Reply) -> None:
        self._current = reply
        self.tasks.add(self._loop.create_task(reply.run(self._app)))

    def _leave(self) -> None:
        for reply in (self._current, *self._waiting):
            if reply is not None:
                reply.leave()

    def _refuse(self, error: AlcoveError) -> None:
        """Answer what cannot become a request, unless that would stand in the middle of another answer; then end."""
        if self.transport.is_closing():
            return
        if self._current is None or self._current.complete or not self._current.begun:
            told = problems.problem(error, ids.new_id())
            body = _encode(told)
            self.transport.write(
                b"%sContent-Length: %d\r\n%s\r\n%s" % (STATUS_LINE[told.status], len(body), _CLOSING, body)
            )
        self.transport.close()
        self._leave()

    # -- time: one timer, which is moved only when it goes off too early or would too late ------------------------

    def _wait(self, limit_s: float, *, idle: bool) -> None:
        self._idle = idle
        self._deadline = self._loop.time() + limit_s
        if self._timer is not None and self._timer_at > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._set_timer(self._deadline)

    def _set_timer(self, at: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        if self._deadline is None or self.transport.is_closing():
            return
        if self._deadline > self._timer_at:
            self._set_timer(self._deadline)
        elif self._idle:
            self.transport.close()
        else:
            self._refuse(TimedOutError("the head of the request did not arrive in time", limit=limits.BODY_TIMEOUT_S))


def _target(url: bytes) -> tuple[bytes, bytes]:
    """Return path and query of what is asked for. Raises httptools' error for what is no URL."""
    if url.startswith(b"/") and b"#" not in url:
        path, _, query = url.partition(b"?")
        return path, query
    parsed = httptools.parse_url(url)
    return parsed.path, parsed.query or b""


def _address(transport: asyncio.BaseTransport, side: str) -> tuple[str, int] | None:
    """Return an end of the connection as ASGI has it, None for a Unix socket."""
    address = transport.get_extra_info(side)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None  # pyright: ignore[reportUnknownArgumentType]
