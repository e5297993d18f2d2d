"""What the proxy of a list of hosts adds to a local request, and how much it carries: from inside of a confined run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Generator

import uvloop

from bench.starts import Numbers, starting

# A server in a process of its own: `/` is answered at once, `/N` with N MiB.
SERVER = """
import socket, threading
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print(listener.getsockname()[1], flush=True)
piece = bytes(1 << 20)
def answer(one):
    with one:
        asked = int(one.recv(4096).split()[1].strip(b"/") or 0)
        one.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % (asked << 20))
        for _ in range(asked):
            one.sendall(piece)
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
"""
# Requests one after the other, each on a connection of its own; then one long answer.
CLIENT = """
import json, socket, sys, time
port, way, requests, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def ask(path):
    one = socket.create_connection(("127.0.0.1", port if way == "direct" else 3128))
    if way == "tunnel":
        one.sendall(b"CONNECT site.bench:%d HTTP/1.1\\r\\n\\r\\n" % port)
        while not one.recv(4096).endswith(b"\\r\\n\\r\\n"): pass
    host = b"http://site.bench:%d" % port if way == "plain" else b""
    one.sendall(b"GET %s/%s HTTP/1.0\\r\\n\\r\\n" % (host, path))
    got, room = 0, bytearray(1 << 20)
    while count := one.recv_into(room):
        got += count
    return got
times = []
for _ in range(requests):
    began = time.perf_counter()
    ask(b"")
    times.append(time.perf_counter() - began)
began = time.perf_counter()
assert ask(str(size).encode()) >= size << 20
print(json.dumps([sorted(times)[requests // 2] * 1000, size * 1.048576 / (time.perf_counter() - began)]))
"""


@contextlib.contextmanager
def serving() -> Generator[int]:
    """Serve; yields the port."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def _asked(port: int, way: str, requests: int, size: int) -> tuple[float, float]:
    """The median time of a request, and MB/s of a long answer, as seen from inside."""
    import msgspec

    from alcove.sandbox.probe import interpreter

    python, read = interpreter(None)
    async with starting("userns") as (sandbox, policy):
        sandbox.resolve = _here
        network = "host" if way == "direct" else (f"site.bench:{port}", f"127.0.0.1:{port}")
        asking = msgspec.structs.replace(
            policy,
            argv=(python, "-I", "-S", "-c", CLIENT, str(port), way, str(requests), str(size)),
            network=network,
            read=read,
        )
        process = await sandbox.spawn(asking)
        said = b"".join([chunk async for _, chunk in process.output()])
        milliseconds, rate = json.loads(said)
        return milliseconds, rate


async def _here(name: str, port: int) -> list[str]:
    del name, port
    return ["127.0.0.1"]


def proxy(requests: int = 500, size: int = 2000) -> Numbers:
    """The time that the proxy adds to a small request, by tunnel and plain; MB/s of one tunnel, and without a proxy."""
    found: dict[str, tuple[float, float]] = {}
    with serving() as port:
        for way in ("direct", "tunnel", "plain"):
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found[way] = runner.run(_asked(port, way, requests, size))
    return {
        "tunnel_ms": found["tunnel"][0] - found["direct"][0],
        "plain_ms": found["plain"][0] - found["direct"][0],
        "mb_per_s": found["tunnel"][1],
        "plain_mb_per_s": found["plain"][1],
        "direct_mb_per_s": found["direct"][1],
    }
