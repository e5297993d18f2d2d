"""A connection byte by byte: order, ends, and what is not taken. The other side is played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from alcove import limits
from alcove.server.protocol import Connection, configured

GET = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Wire(asyncio.Transport):
    """What a connection writes to; it hears of the end of what it closes, as from a real transport."""

    def __init__(self, protocol: Connection) -> None:
        super().__init__()
        self.protocol = protocol
        self.written: list[bytes] = []
        self.closed = False
        self.reading = True
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    @property
    def said(self) -> bytes:
        return b"".join(self.written)


def connected(app: ASGIApp) -> Wire:
    return Wire(Connection(configured(app), ServerState(), {}))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


def answering(headers: list[tuple[bytes, bytes]], *pieces: bytes) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


async def test_an_answer_is_written_at_once() -> None:
    wire = connected(answering([(b"content-length", b"2")], b"ok"))
    wire.protocol.data_received(GET % b"")
    await until(lambda: wire.written)
    assert wire.written == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]


async def test_without_a_length_it_goes_in_chunks() -> None:
    wire = connected(answering([], b"one", b"", b"three"))
    wire.protocol.data_received(GET % b"")
    await until(lambda: wire.said.endswith(b"0\r\n\r\n"))
    assert wire.said.endswith(b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n")


@pytest.mark.parametrize("pieces", [(b"ok", b"!"), (b"o",), ()])
async def test_an_answer_of_another_length_than_it_said_ends_the_connection(pieces: tuple[bytes, ...]) -> None:
    wire = connected(answering([(b"content-length", b"2")], *pieces))
    wire.protocol.data_received(GET % b"")
    await until(lambda: wire.closed)
    assert b"!" not in wire.said


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\0b"])
async def test_a_header_cannot_become_two(value: bytes) -> None:
    wire = connected(answering([(b"x", value), (b"content-length", b"0")]))
    wire.protocol.data_received(GET % b"")
    await until(lambda: wire.closed)
    assert not wire.said


async def test_requests_are_answered_in_their_order() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/1":
            await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    wire = connected(app)
    data = b"".join(GET % b"%d" % number for number in range(5))
    for at in range(len(data)):
        wire.protocol.data_received(data[at : at + 1])
    await until(lambda: wire.said.count(b"HTTP/1.1") == 5)
    assert [part[-2:] for part in wire.said.split(b"HTTP/1.1")[1:]] == [b"/%d" % number for number in range(5)]
    assert wire.reading


async def test_what_is_sent_behind_an_open_stream_is_not_read() -> None:
    """Else whoever keeps a stream open could fill the memory with requests that wait for it."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        seen.append("left")

    wire = connected(app)
    wire.protocol.data_received(GET % b"stream")
    await until(lambda: b"first" in wire.said)
    assert wire.reading, "so that the end of the other side is heard"
    wire.protocol.data_received((GET % b"next") * 10)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not wire.reading
    wire.close()
    await until(lambda: len(seen) == 2)
    assert seen == ["/stream", "left"]


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
async def test_a_last_request_is_answered_and_nothing_behind_it(head: bytes) -> None:
    wire = connected(answering([(b"content-length", b"2")], b"ok"))
    wire.protocol.data_received(head + (GET % b"behind"))
    await until(lambda: wire.closed)
    assert wire.said.count(b"HTTP/1.1 200 OK") == 1
    assert b"connection: close" in wire.said


async def test_no_refusal_stands_in_the_middle_of_an_answer() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await receive()

    wire = connected(app)
    wire.protocol.data_received(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    await until(lambda: b"half" in wire.said)
    wire.protocol.data_received(b"zz\r\n")
    assert wire.closed
    assert wire.said.endswith(b"half\r\n")


async def test_an_idle_connection_ends_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEEP_ALIVE_S", 0.01)
    wire = connected(answering([(b"content-length", b"2")], b"ok"))
    wire.protocol.data_received(GET % b"")
    await until(lambda: wire.said.endswith(b"ok"))
    await until(lambda: wire.closed)
    assert wire.said.count(b"HTTP/1.1") == 1


async def test_a_slow_head_on_a_kept_connection_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = connected(answering([(b"content-length", b"2")], b"ok"))
    wire.protocol.data_received(GET % b"")
    await until(lambda: wire.said.endswith(b"ok"))
    monkeypatch.setattr(limits, "BODY_TIMEOUT_S", 0.01)
    wire.protocol.data_received(b"GET / HT")
    await until(lambda: wire.closed)
    assert b"HTTP/1.1 408 " in wire.said


async def test_a_stopping_server_ends_idle_connections_at_once_and_others_after_their_answer() -> None:
    leave = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await leave.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    idle, busy = connected(app), connected(app)
    busy.protocol.data_received(GET % b"")
    for wire in (idle, busy):
        wire.protocol.shutdown()
    assert idle.closed
    assert not busy.closed
    leave.set()
    await until(lambda: busy.closed)
    assert b"connection: close\r\n" in busy.said


async def test_a_large_body_is_read_as_it_is_taken() -> None:
    taken: list[int] = []
    more = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await more.wait()
        left = True
        while left:
            message = await receive()
            taken.append(len(message["body"]))
            left = message["more_body"]
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    wire = connected(app)
    wire.protocol.data_received(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
    wire.protocol.data_received(b"x" * 100_000)
    assert not wire.reading
    more.set()
    await until(lambda: wire.reading)
    wire.protocol.data_received(b"x" * 100_000)
    await until(lambda: wire.said)
    assert sum(taken) == 200_000
    assert wire.said.startswith(b"HTTP/1.1 204 ")
