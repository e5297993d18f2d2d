"""One request on a connection and its answer, as ASGI tells them: `receive` gives the body, `send` takes the answer."""

from __future__ import annotations

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Any, Final, Protocol, cast, final

from starlette.types import ASGIApp, Message, Scope

from alcove.server.call import COMPLETE

_log = logging.getLogger("alcove.http")
_UNSAFE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"connection: close"
_BODILESS: Final = frozenset({204, 304})
_READ_AHEAD_BYTES: Final = 65536
STATUS_LINE: Final = {status.value: f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Line(Protocol):
    """What a reply needs of its connection."""

    transport: asyncio.Transport
    tasks: set[asyncio.Task[None]]

    @property
    def common(self) -> bytes:
        """The headers that every answer has, as they go over the wire."""
        ...

    def read_on(self, more: bool) -> None:
        """Read, or do not read, what comes next."""
        ...

    async def writable(self) -> None:
        """Wait until what was written has been taken."""
        ...

    def answered(self) -> None:
        """Go on with the next request."""
        ...


@final
class Reply:
    """A request whose head is known, and its answer.

    The head of an answer waits for the first piece of its body, as ASGI wants it: most answers are one system call.

    Args:
        line: The connection that it is on.
        scope: The head of the request.
        keep_alive: Whether the connection goes on after the answer.
        awaits_leave: Whether the sender waits to be told that its body is wanted.
    """

    __slots__ = (
        "_awaits_leave", "_body", "_chunked", "_head", "_left", "_line", "_news", "_scope",
        "begun", "complete", "gone", "keep_alive", "more",
    )  # fmt: skip

    def __init__(self, line: Line, scope: Scope, *, keep_alive: bool, awaits_leave: bool) -> None:
        self._line = line
        self._scope = scope
        self._awaits_leave = awaits_leave
        self._news = asyncio.Event()
        self._body = b""
        self._head = b""
        self._chunked = False
        self._left = 0  # of the announced length
        self.keep_alive = keep_alive
        self.more = True  # of the body is to come
        self.begun = False  # the answer
        self.complete = False
        self.gone = False  # nobody listens any more

    # -- the connection's side -------------------------------------------------------------------------------------

    def feed(self, piece: bytes) -> None:
        """Take a piece of the body; when much of it waits to be asked for, no more is read."""
        self._body += piece
        if len(self._body) > _READ_AHEAD_BYTES:
            self._line.read_on(False)
        self._news.set()

    def fed(self) -> None:
        """Know that the body is whole."""
        self.more = False
        self._scope["state"][COMPLETE] = True
        self._news.set()

    def leave(self) -> None:
        """Know that the other side has gone."""
        self.gone = True
        self._news.set()

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer; a connection whose answer it breaks off ends."""
        try:
            await app(self._scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - the root of a task: nobody else would hear of it
            _log.error("an answer was broken off", exc_info=error)
        finally:
            if not self.complete:
                self._line.transport.close()
            self._line.tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    # -- the application's side ------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Return what has come of the body since the last time; wait while that is nothing."""
        if self._awaits_leave:
            self._awaits_leave = False
            if not self.gone:
                self._line.transport.write(_CONTINUE)
        if not (self.gone or self.complete):
            self._line.read_on(True)
            await self._news.wait()
            self._news.clear()
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        return {"type": "http.request", "body": body, "more_body": self.more}

    async def send(self, message: Message) -> None:
        """Send the head of the answer, or a piece of its body.

        Raises:
            RuntimeError: The pieces do not make an answer; the connection ends.
        """
        if self.gone:
            return
        if not self.begun:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"{message['type']} before http.response.start")
            self._begin(message["status"], message.get("headers", ()))
            return
        if message["type"] != "http.response.body" or self.complete:
            raise RuntimeError(f"{message['type']} does not belong here")
        await self._line.writable()
        if not self.gone:
            self._piece(message.get("body", b""), message.get("more_body", False))

    def _begin(self, status: int, headers: Any) -> None:
        self.begun = True
        self._awaits_leave = False
        lines = [b"%b: %b" % header for header in headers]
        if _UNSAFE.search(b" ".join(lines)):
            raise RuntimeError("a header has a control character")
        length: bytes | None = None
        for name, value in headers:
            if name == b"content-length":
                length = value
        if _CLOSE in lines:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(_CLOSE)
        if self._scope["method"] != "HEAD" and status not in _BODILESS:
            self._chunked = length is None
            self._left = int(length or 0)
            if self._chunked:
                lines.append(b"transfer-encoding: chunked")
        lines.append(b"\r\n")
        self._head = STATUS_LINE[status] + self._line.common + b"\r\n".join(lines)

    def _piece(self, data: bytes, more: bool) -> None:
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if not more:
                data += b"0\r\n\r\n"
        else:
            if self._scope["method"] == "HEAD":
                data = b""
            self._left -= len(data)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer is not as long as it said")
        if self._head:
            data, self._head = self._head + data, b""
        transport = self._line.transport
        if data:
            transport.write(data)
        if more:
            return
        self.complete = True
        self._news.set()
        if not self.keep_alive:
            transport.close()
        self._line.answered()
