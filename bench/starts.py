"""How long things take to start: a confined program, the library, the command line, the server; and HTTP appends."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

Numbers = dict[str, float]


def whole_process(*argv: str, runs: int = 7) -> float:
    """The median wall time of a command, in milliseconds."""
    times: list[float] = []
    # As installed: without the bytecode that the first run leaves, compiling would be most of it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(argv, check=True, env=environment, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) * 1000


def library() -> Numbers:
    """`import alcove` and `import alcove.scratch` over a bare interpreter, `alcove --help`, and `alcove list`."""
    bare = whole_process(sys.executable, "-c", "pass")
    imported = whole_process(sys.executable, "-c", "import alcove")
    scratch = whole_process(sys.executable, "-c", "import alcove.scratch")
    told = whole_process(sys.executable, "-m", "alcove", "--help")
    listed = whole_process("env", "-C", crowd().name, sys.executable, "-m", "alcove", "list", "--limit", "20")
    return {"import_ms": imported - bare, "scratch_ms": scratch - bare, "help_ms": told, "list_ms": listed}


@functools.cache
def crowd() -> tempfile.TemporaryDirectory[str]:
    """Make an installation of 100,000 sessions: once, for all rounds."""
    folder = tempfile.TemporaryDirectory(prefix="alcove-bench-")
    asyncio.run(fill(Path(folder.name), 100_000))
    return folder


async def fill(folder: Path, sessions: int) -> None:
    """Make an installation of many sessions."""
    import alcove
    from alcove.settings.loading import load

    # Without folders: a root server has a uid for each of them, and not so many.
    async with alcove.open(settings=load(folder, {}), folders=False) as hub:

        async def some(count: int) -> None:
            for number in range(count):
                await hub.sessions.create(user_id=f"u{number % 50}", title=f"Session {number}")

        await asyncio.gather(*(some(sessions // 50) for _ in range(50)))


Rung = Literal["userns", "bwrap", "landlock", "none"]


@contextlib.asynccontextmanager
async def starting(rung: Rung):
    """Yield a sandbox and a policy for `/bin/true` in a session of its own."""
    from alcove.sandbox.policy import Policy
    from alcove.sandbox.service import Sandbox
    from alcove.workspaces.base import settle

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        base = Path(folder) / "base"
        base.mkdir(mode=0o711)
        own = base / "own"
        own.mkdir(mode=0o700)
        uid = 1_900_000_000 if os.geteuid() == 0 and rung != "none" else None
        sandbox = await Sandbox.open(rung=rung, minimum=frozenset(), canary=base, cache=Path(folder) / "probes")
        opened = os.open(own, os.O_RDONLY)
        settle(opened, uid, guarded=sandbox.guarded)
        os.close(opened)
        yield (
            sandbox,
            Policy(argv=("/bin/true",), env={"PATH": "/usr/bin:/bin"}, cwd=str(own), write=(str(own),), uid=uid),
        )
        await sandbox.close()


async def once(sandbox, policy) -> None:
    """From spawn to end."""
    process = await sandbox.spawn(policy)
    async for _ in process.output():
        pass
    ended = await process.wait()
    assert ended.code == 0, ended


async def confined(rung: Rung, starts: int = 100) -> float:
    """The median time from spawn to the end of `/bin/true`, in milliseconds."""
    async with starting(rung) as (sandbox, policy):
        times: list[float] = []
        for _ in range(starts):
            started = time.perf_counter()
            await once(sandbox, policy)
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


async def at_once(rung: Rung, starts: int = 50, rounds: int = 5) -> float:
    """Starts of `/bin/true` a second, so many at a time."""
    async with starting(rung) as (sandbox, policy):
        times: list[float] = []
        for _ in range(rounds):
            started = time.perf_counter()
            await asyncio.gather(*(once(sandbox, policy) for _ in range(starts)))
            times.append(time.perf_counter() - started)
    return starts / statistics.median(times)


def descriptors() -> set[int]:
    """Those open in this process, without the one that it takes to look."""
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


async def plain_bubblewrap(starts: int = 100) -> float:
    """The median time of bubblewrap started by hand with the same view, in milliseconds."""
    from alcove.sandbox import bubblewrap, seccomp

    async with starting("bwrap") as (_, policy):
        times: list[float] = []
        for _ in range(starts):
            reader, writer = os.pipe()
            before = descriptors()
            path, argv = bubblewrap.command(policy.plan("bwrap"), seccomp.build(sockets=True, shared=False), writer)
            made = descriptors() - before
            started = time.perf_counter()
            subprocess.run(
                argv, executable=path, env={}, pass_fds=(*made, writer), user=policy.uid, group=policy.uid, check=True
            )
            times.append(time.perf_counter() - started)
            for number in (*made, reader, writer):
                os.close(number)
    return statistics.median(times) * 1000


def bubblewrap_at_once(starts: int = 50, rounds: int = 5) -> float:
    """Starts of `/bin/true` by hand in a bubblewrap that shares nothing but files, so many at a time, a second."""
    argv = ("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true")
    times: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        for process in [subprocess.Popen(argv) for _ in range(starts)]:
            assert process.wait() == 0
        times.append(time.perf_counter() - started)
    return starts / statistics.median(times)


def sandbox() -> Numbers:
    """What confinement adds to the start of a program; a rung that this machine lacks is left out."""
    from alcove.errors import SandboxError

    plain = asyncio.run(confined("none"))
    numbers: Numbers = {}
    with contextlib.suppress(SandboxError):
        numbers["userns_ms"] = asyncio.run(confined("userns")) - plain
        numbers["userns_per_s"] = asyncio.run(at_once("userns"))
    with contextlib.suppress(SandboxError):
        numbers["landlock_ms"] = asyncio.run(confined("landlock")) - plain
    if shutil.which("bwrap"):
        with contextlib.suppress(SandboxError):
            numbers["bwrap_ratio"] = asyncio.run(confined("bwrap")) / asyncio.run(plain_bubblewrap())
            if "userns_per_s" in numbers:
                numbers["userns_per_bwrap"] = numbers["userns_per_s"] / bubblewrap_at_once()
    return numbers


@contextlib.contextmanager
def server(folder: str):
    """Start `alcove serve` on a free port; yields the port and the milliseconds until it answered."""
    env = {**os.environ, "ALCOVE_PORT": "0", "SESSIONS_BASE_DIR": f"{folder}/sessions", "ALCOVE_LOG": "text"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "alcove", "serve"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    line = process.stdout.readline()
    ready = (time.perf_counter() - started) * 1000
    try:
        yield int(line.rsplit(":", 1)[1].split("/")[0]), ready
    finally:
        process.terminate()
        process.wait()


def http(requests: int = 15_000, connections: int = 32) -> Numbers:
    """`POST /messages` from 32 kept connections: requests a second; and how soon the server is ready."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with server(folder) as (port, ready):
            rate = asyncio.run(_post(port, requests, connections))
        return {"per_s": rate, "ready_ms": ready}


async def _post(port: int, requests: int, connections: int) -> float:
    def request(path: str, body: dict[str, object]) -> bytes:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 201"), head
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return await reader.readexactly(length)

    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]
    turns: list[bytes] = []
    for stream in streams:
        made = json.loads(await send(*stream, request("/api/v1/sessions", {})))
        path = f"/api/v1/sessions/{made['session_id']}/messages"
        turns.append(request(path, {"messages": [{"role": "user", "content": "x" * 300}]}))

    async def work(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes, count: int) -> None:
        for _ in range(count):
            await send(*stream, data)

    started = time.perf_counter()
    await asyncio.gather(
        *(work(stream, data, requests // connections) for stream, data in zip(streams, turns, strict=True))
    )
    took = time.perf_counter() - started
    for _, writer in streams:
        writer.close()
    return requests // connections * connections / took
