"""A client that speaks ASGI to an application in the same process: no socket, no thread."""

from __future__ import annotations

import asyncio
import json as codec
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return codec.loads(self.body)


class Client:
    """Calls an application; every call is a connection of its own."""

    def __init__(self, app: ASGIApp, headers: dict[str, str] | None = None) -> None:
        self._app = app
        self._headers = {"host": "localhost", **(headers or {})}

    async def __call__(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        body: bytes | Iterable[bytes] = b"",
        headers: dict[str, str] | None = None,
        leaves: bool = False,
    ) -> Answer:
        """Return the whole answer; of one without an end what comes to a caller that `leaves` when it has asked."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        given = dict(headers or {})
        if json is not None:
            body = codec.dumps(json).encode()
            given = {"content-type": "application/json", **given}
        pieces = [body] if isinstance(body, bytes) else list(body)
        if isinstance(body, bytes):
            given.setdefault("content-length", str(len(body)))
        await self._app(self._scope(method, path, given), _receiving(pieces, leaves=leaves), send)
        start, *rest = sent
        assert rest[-1].get("more_body", False) is False
        whole = b"".join(message.get("body", b"") for message in rest)
        return Answer(start["status"], _plain(start["headers"]), whole)

    async def stream(
        self, method: str, path: str, json: Any = None, headers: dict[str, str] | None = None, *, sends: bool = True
    ) -> AsyncGenerator[bytes]:
        """Yield the status as text, then pieces of the answer as they are sent; closing it is leaving early.

        Without `sends` the body never comes.
        """
        sent: asyncio.Queue[Message] = asyncio.Queue(1)
        left = asyncio.Event()
        body = b"" if json is None else codec.dumps(json).encode()
        given = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        first = _receiving([body])
        heard = not sends

        async def receive() -> Message:
            nonlocal heard
            if not heard:
                heard = True
                return await first()
            await left.wait()
            return {"type": "http.disconnect"}

        serving = asyncio.create_task(_serve(self._app, self._scope(method, path, given), receive, sent))
        try:
            while (message := await sent.get())["type"] != "end":
                if message["type"] == "http.response.start":
                    yield b"%d" % message["status"]
                elif message.get("body"):
                    yield message["body"]
        finally:
            left.set()
            while not serving.done():
                while not sent.empty():
                    sent.get_nowait()
                await asyncio.wait({serving}, timeout=0.01)
            await serving

    def _scope(self, method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
        raw, _, query = path.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw,
            "raw_path": raw.encode("ascii"),
            "query_string": query.encode("ascii"),
            "root_path": "",
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in {**self._headers, **headers}.items()
            ],
            "server": ("127.0.0.1", 8080),
            "client": ("127.0.0.1", 5),
            "state": {},
        }


async def _serve(app: ASGIApp, scope: dict[str, Any], receive: Any, sent: asyncio.Queue[Message]) -> None:
    try:
        await app(scope, receive, sent.put)
    finally:
        await sent.put({"type": "end"})


def _receiving(pieces: list[bytes], *, leaves: bool = False) -> Callable[[], Any]:
    waiting = iter([*pieces[:-1]])
    last = pieces[-1] if pieces else b""
    ended = False

    async def receive() -> Message:
        nonlocal ended
        for piece in waiting:
            return {"type": "http.request", "body": piece, "more_body": True}
        if ended and leaves:
            return {"type": "http.disconnect"}
        if ended:
            await asyncio.Event().wait()
        ended = True
        return {"type": "http.request", "body": last, "more_body": False}

    return receive


def _plain(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    plain = {name.decode(): value.decode("latin-1") for name, value in headers}
    assert len(plain) == len(list(headers)), "a header twice"
    return plain


def events(stream: bytes) -> list[tuple[int, str, Any]]:
    """Return the events in the text of a stream: id, type and data."""
    found: list[tuple[int, str, Any]] = []
    for block in stream.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((int(fields["id"]), fields["event"], codec.loads(fields["data"])))
    return found


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a condition of this process."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)
