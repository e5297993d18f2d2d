"""Answers that are not one piece of JSON: events as they happen, files as they are."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Final, final
from urllib.parse import quote

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from alcove import limits
from alcove.errors import AlcoveError, InvalidError
from alcove.events.model import Event
from alcove.server.call import Call, Site
from alcove.workspaces.model import File
from alcove.workspaces.streams import part, stepped

_encode = msgspec.json.Encoder().encode
_log = logging.getLogger("alcove.http")
_UNPLAIN: Final = re.compile(r"[^A-Za-z0-9 ._()+=@~,-]")

FRESH: Final = "private, no-cache"
"""A browser may keep a file, and asks each time whether it is still that."""

# Types that no browser runs, even without the headers below. Everything else is just bytes.
_MEDIA_TYPES: Final = {
    "csv": "text/csv; charset=utf-8",
    "gif": "image/gif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "log": "text/plain; charset=utf-8",
    "md": "text/plain; charset=utf-8",
    "pdf": "application/pdf",
    "png": "image/png",
    "py": "text/plain; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "webp": "image/webp",
}


@final
class EventStream(Response):
    """Server-sent events: `id` is the number to resume after, `event` the type, `data` the event's data as JSON.

    Ends after the last event, when the caller leaves, or when the server stops. Leaving stops nothing else.

    Args:
        site: Tells when the server stops, and counts.
        events: What to send.
    """

    def __init__(self, site: Site, events: AsyncGenerator[Event]) -> None:
        super().__init__(headers={"cache-control": "no-store"}, media_type="text/event-stream")
        del self.headers["content-length"]
        self._site = site
        self._events = events
        self._sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await self._events.aclose()
        else:
            # The first byte at once, so that the caller knows that it is heard.
            await _piece(send, b"retry: %d\n\n" % limits.SSE_RETRY_MS)
            sending = asyncio.create_task(self._send_all(send))
            ends: set[asyncio.Task[object]] = {
                sending,
                asyncio.create_task(_beat(send)),
                asyncio.create_task(_left(receive)),
                asyncio.create_task(self._site.stopping.wait()),
            }
            self._site.metrics.stream_opened()
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in ends:
                    task.cancel()
                await asyncio.gather(*ends, return_exceptions=True)
                self._site.metrics.stream_closed(self._sent)
            if sending.done() and not sending.cancelled():
                sending.result()
        await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            async for event in events:
                await _piece(send, frame(event))
                self._sent += 1


@final
class Download(Response):
    """A file or a part of it, to be kept and never to be run by a browser: not even one that guesses types.

    Args:
        fd: An open regular file; closed here.
        file: What it is.
        etag: Of this state of the file.
        span: First byte and length of the part; None for the whole.
    """

    def __init__(self, fd: int, file: File, etag: str, span: tuple[int, int] | None = None) -> None:
        suffix = file.name.rpartition(".")[2].lower()
        self._first, self._length = span or (0, file.size_bytes)
        part = {"content-range": f"bytes {self._first}-{self._first + self._length - 1}/{file.size_bytes}"}
        super().__init__(
            status_code=206 if span else 200,
            headers={
                **_kept(file.name),
                "content-type": _MEDIA_TYPES.get(suffix, "application/octet-stream"),
                "content-length": str(self._length),
                "accept-ranges": "bytes",
                "etag": etag,
                **(part if span else {}),
            },
        )
        self._fd = fd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file as long as it was when this began.

        One that is cut meanwhile ends the connection, so that no part passes for the whole.
        """
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if scope["method"] != "HEAD" and not await _while_heard(receive, self._send_all(send)):
                return  # the server hangs up on an answer without an end
            await send({"type": "http.response.body", "body": b""})
        finally:
            os.close(self._fd)

    async def _send_all(self, send: Send) -> bool:
        sent = 0
        async with aclosing(stepped(part(self._fd, self._first, self._length))) as chunks:
            async for chunk in chunks:
                await _piece(send, chunk)
                sent += len(chunk)
        return sent == self._length


@final
class Made(Response):
    """A file that is made while it is sent, so that nobody knows its length: an archive.

    Args:
        name: What it is called.
        media_type: What it is.
        pieces: Its content, of which the first piece is there: what can be refused has not been.
    """

    def __init__(self, name: str, media_type: str, pieces: AsyncGenerator[bytes]) -> None:
        super().__init__(headers=_kept(name), media_type=media_type)
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; when it cannot be made to its end, the connection ends before it does."""
        async with aclosing(self._pieces):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                if scope["method"] != "HEAD" and not await _while_heard(receive, self._send_all(send)):
                    return
            except AlcoveError:
                _log.warning("an archive was cut off", exc_info=True, extra={"path": scope["path"]})
                return
            await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send) -> bool:
        async for piece in self._pieces:
            await _piece(send, piece)
        return True


async def _while_heard(receive: Receive, sending: Coroutine[Any, Any, bool]) -> bool:
    """Return what `sending` does; when the caller leaves before, stop it and return false.

    The server takes what is sent to somebody who has left, and lets it fall: a terabyte of holes would be read.
    """
    task, left = asyncio.create_task(sending), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = task.done()
        for one in (task, left):
            one.cancel()
        await asyncio.gather(task, left, return_exceptions=True)
    return task.result() if ended else False


def _kept(name: str) -> dict[str, str]:
    """Return the headers of what a browser keeps and does not run."""
    # For programs that know only RFC 2616, a name in ASCII; for all others the real one (RFC 6266). What is no UTF-8
    # has no name there at all.
    plain = _UNPLAIN.sub("_", name)
    exact = quote(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), safe="")
    return {
        "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}",
        "content-security-policy": "sandbox; default-src 'none'",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": FRESH,
    }


def resumes_after(call: Call, after: int) -> int:
    """Return where a stream goes on: after `Last-Event-ID` or, without it, after `after`.

    The header wins: a browser adds it to the address that it opened first.

    Raises:
        InvalidError: It is not the number of an event.
    """
    heard = call.head.get(b"last-event-id")
    if heard is not None:
        after = int(heard) if heard.isdigit() and len(heard) < 19 else -1
    if not 0 <= after < 2**62:
        raise InvalidError(
            "not the number of an event", field="last-event-id" if heard else "after", remedy="use an id"
        )
    return after


def frame(event: Event) -> bytes:
    """Return an event as it goes over the wire."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.n, event.type.encode(), _encode(event.data))


async def _piece(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _beat(send: Send) -> None:
    """Keep what stands between from taking the stream for dead."""
    while True:
        await asyncio.sleep(limits.SSE_HEARTBEAT_S)
        await _piece(send, b": still here\n\n")


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
