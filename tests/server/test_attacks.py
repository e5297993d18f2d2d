"""What a program on its run's socket, or a stranger on the port, tries against the real server."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from alcove.server.call import Site
from alcove.server.door import RunDoor
from server.asgi import Client

_CHUNKED = b"POST /api/v1/sessions HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"


async def _open_door(site: Site, own: str, tmp_path: Path) -> tuple[str, Any]:
    path = tmp_path / "s"
    return str(path), await RunDoor(site)(own, "run-1", "s3cret", path)


@pytest.mark.parametrize(("trailers", "status"), [(b"", 401), (b"Authorization: Bearer s3cret\r\n", 401)])
async def test_what_follows_a_body_is_no_header(
    site: Site, own: str, tmp_path: Path, trailers: bytes, status: int
) -> None:
    """Trailers come after the gate: a proxy that checked the head has not seen them."""
    path, close = await _open_door(site, own, tmp_path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(_CHUNKED + b"Host: localhost\r\n\r\n2\r\n{}\r\n0\r\n" + trailers + b"\r\n")
    answer = await asyncio.wait_for(reader.read(4096), 5)
    writer.close()
    await close()
    assert answer.startswith(b"HTTP/1.1 %d " % status)


async def test_trailers_without_end_are_refused(site: Site, own: str, tmp_path: Path) -> None:
    path, close = await _open_door(site, own, tmp_path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(_CHUNKED + b"Host: localhost\r\n\r\n2\r\n{}\r\n0\r\n")
    sent = 0
    try:
        while sent < 8_000_000 and not reader.at_eof():
            writer.write(b"X-%d: %s\r\n" % (sent, b"a" * 8000))
            sent += 8000
            await writer.drain()
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    writer.close()
    await close()
    assert sent < 1_000_000, f"the server took {sent} bytes of trailers"


async def test_a_run_cannot_take_every_descriptor_of_the_server(site: Site, own: str, tmp_path: Path) -> None:
    path, close = await _open_door(site, own, tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    mine: list[socket.socket] = []
    for _ in range(300):
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        mine.append(one)
        for _ in range(50):
            try:
                one.connect(path)
                break
            except BlockingIOError:
                await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    held = len(os.listdir("/proc/self/fd")) - before - len(mine)
    for one in mine:
        one.close()
    await close()
    assert held <= 64, f"the server holds {held} connections of one run"


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://]"])
async def test_an_origin_that_is_no_url_is_refused(call: Client, origin: str) -> None:
    assert (await call("GET", "/api/v1/sessions", headers={"origin": origin})).status == 403
