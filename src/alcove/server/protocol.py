"""uvicorn's HTTP/1.1 connection, with limits on the head of a request and problems for what cannot be parsed."""

from __future__ import annotations

import asyncio
from typing import Any, Final, cast, final

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from alcove import ids, limits
from alcove.errors import AlcoveError, InvalidError
from alcove.server import problems
from alcove.server.call import COMPLETE
from alcove.server.problems import HeadersTooLargeError, TimedOutError

_encode = msgspec.json.Encoder().encode
_ONCE: Final = frozenset({b"host", b"origin", b"authorization", b"sec-fetch-site"})
_ANSWER: Final = b"HTTP/1.1 "
_CONTINUE: Final = b"HTTP/1.1 100"
_CLOSING: Final = b"content-type: application/problem+json\r\nconnection: close\r\n"


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
class _Corked:
    """A transport that sends the head of an answer together with the body that follows at once: one system call.

    A head that no body follows in the same round of the event loop goes by itself.
    """

    __slots__ = ("_head", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send data, or keep the head of an answer for a moment."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_ANSWER) and not data.startswith(_CONTINUE):
            self._head = data
            self._loop.call_soon(self._uncork)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Send what is kept, then close."""
        self._uncork()
        self._transport.close()

    def _uncork(self) -> None:
        if self._head:
            self.write(b"")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@final
class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        most: int | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._most = most
        self._in_head = True
        self._dry_bytes = 0  # received since the last byte of a body: a head, trailers, or what separates chunks
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a first request, not for ever. Of `most` connections at once, the next one is not heard."""
        if self._most is not None and len(self.connections) >= self._most:
            cast("asyncio.Transport", transport).abort()
            return
        super().connection_made(cast("asyncio.Transport", _Corked(cast("asyncio.Transport", transport), self.loop)))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if cast("object", self.flow) is None:  # it was never heard
            return
        self._heard_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse a head, or trailers, that do not end."""
        self._dry_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._dry_bytes > limits.HEAD_BYTES:
            self._refuse(
                HeadersTooLargeError(
                    f"the head of the request is longer than {limits.HEAD_BYTES} bytes", limit=limits.HEAD_BYTES
                )
            )
        elif self._in_head and self._head_timer is None:
            self._await_head()

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._in_head = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header of the head; trailers came after the gate and are nobody's.

        Raises:
            ValueError: A header by which callers are told apart stands there twice; the parser refuses the request.
        """
        if not self._in_head:
            return
        if name.lower() in _ONCE and any(known == name.lower() for known, _ in self.headers):
            raise ValueError(name)
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._dry_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Let the application begin."""
        self._in_head = False
        self._dry_bytes = 0
        self._heard_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Tell the application that nothing of the body is missing."""
        self._dry_bytes = 0
        self.scope["state"][COMPLETE] = True  # type: ignore[typeddict-item]
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        del msg
        self._refuse(InvalidError("this is not an HTTP/1.1 request"))

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(limits.BODY_TIMEOUT_S, self._give_up)

    def _heard_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refuse(TimedOutError("the head of the request did not arrive in time", limit=limits.BODY_TIMEOUT_S))

    def _refuse(self, error: AlcoveError) -> None:
        told = problems.problem(error, ids.new_id())
        body = _encode(told)
        self.transport.write(
            b"%sContent-Length: %d\r\n%s\r\n%s" % (STATUS_LINE[told.status], len(body), _CLOSING, body)
        )
        self.transport.close()
