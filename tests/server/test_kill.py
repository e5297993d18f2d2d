"""SIGKILL of the real server: what it acknowledged is there afterwards, and nothing that it started is."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WRITERS = 64


class Server:
    """`alcove serve` in a folder, startable again after its death."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "alcove", "serve"],
            cwd=self.folder,
            env={**os.environ, "ALCOVE_PORT": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        found = re.search(r":(\d+)", self.process.stdout.readline())
        assert found
        self.port = int(found[1])

    def stop(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        self.process.wait(timeout=30)
        assert self.process.stdout
        self.process.stdout.close()
        self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith("pytest-"):
            folder.chmod(0o711)
    tmp_path.chmod(0o711)
    one = Server(tmp_path)
    one.start()
    yield one
    one.stop(signal.SIGTERM)


class Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, body: object = None) -> Any:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        text = await reader.readexactly(length)
        assert answer.split()[1] in {b"200", b"201", b"202"}, answer + text
        return json.loads(text)

    def close(self) -> None:
        if self.streams:
            self.streams[1].close()


async def until(true: Callable[[], bool]) -> None:
    """Wait for a condition, for ten seconds at most."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def test_killing_the_server_amid_64_writers_loses_no_acknowledged_turn(server: Server) -> None:
    acknowledged: dict[str, list[str]] = {}

    async def write(number: int) -> None:
        client = Client(server.port)
        try:
            session = (await client.send("POST", "/api/v1/sessions", {}))["session_id"]
            acknowledged[session] = []
            for turn in range(100_000):
                said = f"writer {number} turn {turn}"
                drafts = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
                await client.send("POST", f"/api/v1/sessions/{session}/messages", {"messages": drafts})
                acknowledged[session].append(said)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            client.close()

    writers = asyncio.gather(*(write(number) for number in range(WRITERS)))
    await until(lambda: sum(map(len, acknowledged.values())) > 2000)
    server.stop(signal.SIGKILL)
    await writers
    assert len(acknowledged) == WRITERS

    server.start()
    client = Client(server.port)
    for session, turns in acknowledged.items():
        page = await client.send("GET", f"/api/v1/sessions/{session}/messages?limit=1000")
        messages = page["messages"]
        assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
        kept = [message["content"] for message in messages]
        # What was under way when the server died may be there as well, but only whole.
        assert kept[: 2 * len(turns)] == [said for said in turns for _ in range(2)]
        assert len(kept) in {2 * len(turns), 2 * len(turns) + 2}
    client.close()


async def test_killing_the_server_ends_its_runs_and_frees_their_sessions(server: Server) -> None:
    client = Client(server.port)
    session = (await client.send("POST", "/api/v1/sessions", {}))["session_id"]
    mark = os.urandom(8).hex()
    script = f"echo $$ > pid; exec -a {mark} sleep 1000 & exec -a {mark} sleep 1000"
    run = await client.send("POST", f"/api/v1/sessions/{session}/runs", {"message": script})
    await until(lambda: len(running(mark)) == 2)
    server.stop(signal.SIGKILL)
    client.close()
    await until(lambda: not running(mark))

    server.start()
    client = Client(server.port)
    assert (await client.send("GET", f"/api/v1/runs/{run['run_id']}"))["status"] == "lost"
    answer = await client.send("POST", "/api/v1/chat", {"session_id": session, "message": "cat pid | wc -l"})
    assert answer["response"] == "1"
    client.close()


def running(mark: str) -> list[str]:
    """The processes of this machine that carry a mark in their arguments."""
    found: list[str] = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if arguments.startswith(mark.encode()):
            found.append(pid)
    return found
