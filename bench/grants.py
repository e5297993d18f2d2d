"""Grants: what a check costs at each size, what a large grant adds to a start, and decisions over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time

from bench.starts import Numbers, server

SIZES = (10, 1_000, 100_000)
SEARCH = ("tool", "tool-000005", "call", "plug-in")


def grants() -> Numbers:
    """Nanoseconds of a check by size, a start with 1,000 resources over one with 10, decisions a second over HTTP."""
    numbers = asyncio.run(_in_process())
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with server(folder) as (port, _):
            numbers["http_per_s"] = asyncio.run(_asked(port))
    return numbers


async def _in_process(checks: int = 100_000, starts: int = 40) -> Numbers:
    import alcove

    numbers: Numbers = {}
    with tempfile.TemporaryDirectory() as folder:
        async with alcove.open(f"sqlite:///{folder}/alcove.db") as hub:
            asked = {size: _ask(size) for size in SIZES}
            for size, grant in asked.items():
                run_id = (await hub.runs.register("runner", grant=grant)).run.id
                check = hub.runs.check
                times: list[float] = []
                for _ in range(9):
                    # Processor time: a call that waits for nothing is as long as that, also beside other programs.
                    started = time.process_time()
                    for _ in range(checks // 9):
                        check(run_id, "tool", "tool-000005", "call", "plug-in")
                    times.append((time.process_time() - started) / (checks // 9))
                    assert check(run_id, *SEARCH)
                    assert not check(run_id, "tool", "rm", "call", "plug-in")
                numbers[f"check_{size}_ns"] = min(times) * 1e9
            hub.agents.register("echo", lambda context: context.message)
            took: dict[int, list[float]] = {10: [], 1_000: []}
            for _ in range(starts):
                for size, times in took.items():
                    session = await hub.sessions.create()
                    started = time.perf_counter()
                    run = await hub.runs.start(session.id, "hi", agent="echo", grant=asked[size])
                    times.append(time.perf_counter() - started)
                    await hub.runs.reply(run.id)
            numbers["start_ratio"] = statistics.median(took[1_000]) / statistics.median(took[10])
    return numbers


def _ask(size: int):
    import alcove

    return alcove.ask(resources={"tool": [f"tool-{i:06}" for i in range(size)]}, caller="plug-in")


async def _asked(port: int, requests: int = 15_000, connections: int = 32) -> float:
    def request(path: str, body: object) -> bytes:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data

    async def send(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> bytes:
        reader, writer = stream
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 20"), head
        return await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))

    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]
    grant = {"resources": {"tool": [SEARCH[1]]}, "caller": "plug-in"}
    made = json.loads(await send(streams[0], request("/api/v1/runs", {"agent": "runner", "grant": grant})))
    body = dict(zip(("type", "id", "operation", "caller"), SEARCH, strict=True))
    data = request(f"/api/v1/runs/{made['run_id']}/authorize", body)
    assert json.loads(await send(streams[0], data))["allowed"]

    async def work(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        for _ in range(requests // connections):
            await send(stream, data)

    started = time.perf_counter()
    await asyncio.gather(*(work(stream) for stream in streams))
    took = time.perf_counter() - started
    for _, writer in streams:
        writer.close()
    return requests // connections * connections / took
