"""Answers that are not one piece of JSON: events as they happen, files as they are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, final
from urllib.parse import quote

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from alcove import limits
from alcove.errors import InvalidError
from alcove.events.model import Event
from alcove.server.call import Call, Site
from alcove.workspaces.model import File

_encode = msgspec.json.Encoder().encode

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
        if scope["method"] != "HEAD":
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
    """A file, to be kept and never to be run by a browser: not even one that guesses types.

    Args:
        fd: An open regular file; closed here.
        file: What it is.
        etag: Of this state of the file.
    """

    def __init__(self, fd: int, file: File, etag: str) -> None:
        suffix = file.name.rpartition(".")[2].lower()
        name = quote(file.name.encode("utf-8", "surrogateescape"), safe="")
        super().__init__(
            headers={
                "content-type": _MEDIA_TYPES.get(suffix, "application/octet-stream"),
                "content-length": str(file.size_bytes),
                "content-disposition": f"attachment; filename*=UTF-8''{name}",
                "content-security-policy": "sandbox; default-src 'none'",
                "cross-origin-resource-policy": "same-origin",
                "cache-control": "private, no-cache",
                "etag": etag,
            }
        )
        self._fd = fd
        self._size_bytes = file.size_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; one that is cut meanwhile ends the connection, so that no part passes for the whole."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            sent = self._size_bytes if scope["method"] == "HEAD" else 0
            while sent < self._size_bytes:
                piece = min(limits.SEND_BYTES, self._size_bytes - sent)
                chunk = await asyncio.to_thread(os.pread, self._fd, piece, sent)
                if not chunk:
                    break
                await _piece(send, chunk)
                sent += len(chunk)
            await send({"type": "http.response.body", "body": b""})
        finally:
            os.close(self._fd)


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
