"""The proxy by itself, on both event loops that it has to work on: what passes, what is refused, what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from alcove import limits
from alcove.sandbox.proxy import Proxy, Refused
from alcove.sandbox.resolving import Resolver
from sandbox.conftest import until
from sandbox.test_heads import greeting, in_records

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Host:
    """A server of which each test says what it does, on this machine; and what it heard."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: list[bytes] = []
        self.act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] = self.echo

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await self.act(reader, writer)
        writer.close()

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.heard.append(data)
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
        writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        self.heard.append(await reader.read())
        writer.close()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    host.port = server.sockets[0].getsockname()[1]
    yield host
    server.close()


class Way:
    """A proxy that listens on this machine, and what it told."""

    def __init__(self, listed: Sequence[str]) -> None:
        self.told: list[Refused] = []
        self.asked: list[str] = []
        self.addresses: list[list[str]] = []
        self.proxy = Proxy(listed, self.resolve, self.told.append)
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def resolve(self, name: str, port: int) -> list[str]:
        self.asked.append(name)
        return self.addresses.pop(0) if self.addresses else ["127.0.0.1"]

    async def connect(self) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        """End the clients, then the proxy."""
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        self.proxy.close()
        await until(lambda: not self.proxy.connections)

    async def tunnel(self, where: str) -> Streams:
        reader, writer = await self.connect()
        writer.write(f"CONNECT {where} HTTP/1.1\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 Connected\r\n\r\n"
        return reader, writer

    async def ask(self, data: bytes) -> bytes:
        reader, writer = await self.connect()
        writer.write(data)
        said = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return said


@pytest.fixture
async def way(host: Host) -> AsyncIterator[Way]:
    way = Way((f"site.test:{host.port}", f"127.0.0.1:{host.port}", "*.below.test:443", "far.test:443"))
    listener = socket.create_server(("127.0.0.1", 0))
    way.port = listener.getsockname()[1]
    await way.proxy.open(listener)
    yield way
    await way.close()


async def test_a_tunnel_carries_both_ways_and_ends_one_way_at_a_time(way: Way, host: Host) -> None:
    reader, writer = await way.tunnel(f"site.test:{host.port}")
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.write_eof()
    assert await reader.read() == b"bye"
    await until(lambda: not way.proxy.connections)


async def test_megabytes_arrive_as_they_were_sent_while_the_reader_is_slow(way: Way, host: Host) -> None:
    data = os.urandom(8 << 20)
    reader, writer = await way.tunnel(f"site.test:{host.port}")

    async def send() -> None:
        writer.write(b"x" + data)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    [one] = way.proxy.connections
    seen = 0
    digest = hashlib.sha256()
    while chunk := await reader.read(4096):
        digest.update(chunk)
        assert one.other is not None
        seen = max(seen, one.transport.get_write_buffer_size(), one.other.transport.get_write_buffer_size())
    await sending
    assert digest.digest() == hashlib.sha256(b"x" + data + b"bye").digest()
    assert seen <= 3 * limits.PROXY_BUFFER_BYTES


async def test_a_plain_request_is_answered_once_and_nothing_after_it_is_passed_on(way: Way, host: Host) -> None:
    host.act = host.answer
    where = f"http://site.test:{host.port}".encode()
    smuggled = b"GET /admin HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    body = b"POST " + where + b"/x HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 4\r\n\r\nbody"
    reader, writer = await way.connect()
    writer.write(body + smuggled)
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.write(smuggled)
    writer.close()
    await until(lambda: len(host.heard) == 2)
    assert host.heard[0].startswith(f"POST /x HTTP/1.1\r\nHost: site.test:{host.port}\r\n".encode())
    assert host.heard[1] == b"body"


async def test_a_redirect_is_passed_on_and_not_followed(way: Way, host: Host) -> None:
    async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    host.act = move
    said = await way.ask(f"GET http://site.test:{host.port}/ HTTP/1.1\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/")
    assert way.asked == ["site.test"]


async def test_a_name_is_looked_up_once_and_connected_to_where_it_was_checked(way: Way, host: Host) -> None:
    way.addresses = [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.2"], ["169.254.169.254"]]
    _, writer = await way.tunnel(f"site.test:{host.port}")
    writer.close()
    assert way.asked == ["site.test"], "what a second answer says comes too late"
    for _ in range(3):
        said = await way.ask(f"CONNECT site.test:{host.port} HTTP/1.1\r\n\r\n".encode())
        assert said.startswith(b"HTTP/1.1 403 Refused by Alcove (address)\r\nAlcove-Refusal: address\r\n")
    assert [one.code for one in way.told] == ["address"]


async def test_a_name_that_is_not_listed_is_not_even_looked_up(way: Way, host: Host) -> None:
    said = await way.ask(b"CONNECT secret-data.evil.test:443 HTTP/1.1\r\n\r\n")
    assert b"(unlisted)" in said
    assert b"secret-data.evil.test:443 is not among the hosts" in said
    assert way.asked == []
    assert way.told == [
        Refused(
            "secret-data.evil.test:443",
            "unlisted",
            "secret-data.evil.test:443 is not among the hosts that this run may reach",
        )
    ]


async def test_a_host_that_does_not_answer_is_told_apart(way: Way, host: Host) -> None:
    way.proxy.listed += ("127.0.0.1:1", "127.0.0.3")
    assert b"502 Refused by Alcove (unreachable)" in await way.ask(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
    way.addresses = [["127.0.0.3", "127.0.0.1"]]
    way.proxy.listed += (f"two.test:{host.port}",)
    _, writer = await way.tunnel(f"two.test:{host.port}")
    writer.close()


async def test_a_client_that_greets_another_server_is_cut_off(way: Way, host: Host) -> None:
    where = f"site.test:{host.port}"
    for said in (greeting("evil.test"), in_records(greeting("evil.test"), 9), b"\x16\x03\x01\x00\x01\x02"):
        reader, writer = await way.tunnel(where)
        writer.write(said)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
    assert host.heard == []
    assert [(one.host, one.code) for one in way.told] == [(where, "server_name")]


@pytest.mark.parametrize("name", ["site.test", None])
async def test_a_client_that_greets_the_server_it_asked_for_gets_through_piece_by_piece(
    way: Way, host: Host, name: str | None
) -> None:
    reader, writer = await way.tunnel(f"site.test:{host.port}")
    said = in_records(greeting(name), 50)
    for at in range(0, len(said), 64):
        writer.write(said[at : at + 64])
        await asyncio.sleep(0)
    assert await reader.readexactly(len(said)) == said
    writer.close()


async def test_a_greeting_without_end_is_cut_off(way: Way, host: Host) -> None:
    reader, writer = await way.tunnel(f"site.test:{host.port}")
    writer.write(b"\x16\x03\x01\xff\xff" + b"\x01\x00\xff\xff" + bytes(limits.PROXY_HEAD_BYTES))
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    assert host.heard == []


async def test_tls_goes_through_untouched(way: Way, host: Host) -> None:
    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host.heard.append(await reader.read(65536))
        writer.write(b"\x15\x03\x03\x00\x02\x02\x28")  # an alert: handshake failure
        writer.close()

    host.act = fail
    reader, writer = await way.tunnel(f"site.test:{host.port}")
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLError, match="ALERT"):
        await writer.start_tls(context, server_hostname="site.test")
    assert host.heard[0].startswith(b"\x16\x03")
    del reader


async def test_a_head_that_is_too_long_is_refused(way: Way) -> None:
    said = await way.ask(b"GET http://site.test/ HTTP/1.1\r\nA: " + b"a" * limits.PROXY_HEAD_BYTES)
    assert said.startswith(b"HTTP/1.1 431 Refused by Alcove (head)")
    said = await way.ask(b"GET http://site.test/ HTTP/1.1\r\nA: " + b"a" * limits.PROXY_HEAD_BYTES + b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 431 ")


async def test_a_client_that_says_nothing_is_sent_away(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROXY_HEAD_S", 0.05)
    assert (await way.ask(b"GET http")).startswith(b"HTTP/1.1 408 ")


async def test_a_tunnel_on_which_nothing_passes_ends(way: Way, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROXY_IDLE_S", 0.05)
    reader, _ = await way.tunnel(f"site.test:{host.port}")
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1), 10)
    await until(lambda: not way.proxy.connections)


async def test_one_run_has_so_many_connections_and_no_more(
    way: Way, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROXY_CONNECTIONS", 3)
    held = [await way.tunnel(f"site.test:{host.port}") for _ in range(3)]
    assert b"503 Refused by Alcove (busy)" in await way.ask(b"")
    held[0][1].close()
    await until(lambda: len(way.proxy.connections) == 2)
    _, writer = await way.tunnel(f"site.test:{host.port}")
    for _, one in (*held, (None, writer)):
        one.close()


async def test_so_many_refusals_are_told_and_no_more(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROXY_TOLD", 3)
    for number in range(5):
        await way.ask(f"CONNECT n{number}.evil.test:443 HTTP/1.1\r\n\r\n".encode())
    assert [one.host for one in way.told] == [f"n{number}.evil.test:443" for number in range(3)]


async def test_the_end_of_a_proxy_cuts_what_is_open_and_what_is_being_opened(way: Way, host: Host) -> None:
    never = asyncio.Event()

    async def hang(name: str, port: int) -> list[str]:
        await never.wait()
        return []

    reader, _ = await way.tunnel(f"site.test:{host.port}")
    way.proxy._resolve = hang
    waiting, writer = await way.connect()
    writer.write(f"CONNECT site.test:{host.port} HTTP/1.1\r\n\r\n".encode())
    await until(lambda: len(way.proxy.connections) == 2)
    way.proxy.close()
    for one in (reader, waiting):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await one.readexactly(1)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await way.connect()
    assert not way.proxy.connections


async def test_a_client_that_leaves_while_its_host_is_looked_up_leaves_nothing(way: Way, host: Host) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(name: str, port: int) -> list[str]:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return []

    way.proxy._resolve = hang
    _, writer = await way.connect()
    writer.write(f"CONNECT site.test:{host.port} HTTP/1.1\r\n\r\n".encode())
    await began.wait()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await until(lambda: not way.proxy.connections)
    assert not cancelled.is_set(), "a thread goes on, so its place is not given to the next"
    way.proxy.close()
    await asyncio.wait_for(cancelled.wait(), 10)


async def test_a_run_whose_names_are_slow_has_so_many_looked_up_at_once(
    way: Way, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PROXY_CONNECT_S", 0.05)
    asked: list[str] = []
    end = asyncio.Event()

    async def hang(name: str, port: int) -> list[str]:
        asked.append(name)
        await end.wait()
        return ["127.0.0.1"]

    way.proxy._resolve = hang
    request = f"CONNECT site.test:{host.port} HTTP/1.1\r\n\r\n".encode()
    for _ in range(limits.PROXY_LOOKUPS_OF_RUN + 2):
        assert (await way.ask(request)).startswith(b"HTTP/1.1 504 ")
    assert len(asked) == limits.PROXY_LOOKUPS_OF_RUN
    end.set()


async def test_names_are_looked_up_as_this_machine_does() -> None:
    look_up = Resolver()
    assert "127.0.0.1" in await look_up("localhost", 80)
    with pytest.raises(OSError, match="label"):
        await look_up("x..y", 80)


async def test_a_look_up_that_nobody_waits_for_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROXY_LOOKUPS", 1)
    go = threading.Event()

    def get(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        go.wait(20)
        return [(2, 1, 6, "", ("192.0.2.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", get)
    look_up = Resolver()
    first = asyncio.create_task(look_up("one.test", 80))
    second = asyncio.create_task(look_up("two.test", 80))
    await until(lambda: [one for one in threading.enumerate() if one.name == "alcove-name"])
    first.cancel()
    await asyncio.wait({first})
    assert len([one for one in threading.enumerate() if one.name == "alcove-name"]) == 1
    go.set()
    assert await second == ["192.0.2.1"]
