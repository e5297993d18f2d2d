"""What tests of runs share: waiting for a condition, looking for processes, and another process on the same hub."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from alcove.hub import Alcove
from alcove.testing.rows import execute

OTHER = Path(__file__).with_name("other.py")
PATIENCE_S = 20.0


def new_place() -> Iterator[Path]:
    """Yield a folder that leased uids can get to, which pytest's own are not, and remove it."""
    place = Path(tempfile.mkdtemp(prefix="alcove-"))
    place.chmod(0o711)
    yield place
    shutil.rmtree(place)


async def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Wait until a condition, plain or awaitable, holds; fail when it does not in time."""
    end = time.monotonic() + timeout_s
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        assert time.monotonic() < end, "what was waited for did not come"
        await asyncio.sleep(0.01)


def alive(marker: str) -> list[int]:
    """Return the pids of the processes that have `marker` in their arguments, zombies left out."""
    found: list[int] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):
            if marker.encode() in Path(f"/proc/{name}/cmdline").read_bytes() and int(name) != os.getpid():
                found.append(int(name))
    return found


def waiting(marker: str, before: str = "") -> str:
    """Return a script that says `ready` and then waits for ever, in a process that `alive` finds."""
    return f"{before}\necho ready\nexec -a {marker} sleep 100000"


async def said(hub: Alcove, run_id: str, text: str) -> None:
    """Wait until a run has said something."""

    async def found() -> bool:
        return text in await output(hub, run_id)

    await until(found)


async def output(hub: Alcove, run_id: str) -> str:
    """Return what a run has said so far."""
    events = await hub.events.read(run_id, 0, 100_000)
    return "".join(str(event.data["text"]) for event in events if event.type == "output")


async def rows_with(hub: Alcove, value: str) -> dict[str, int]:
    """Return how many rows of each table have `value` somewhere in them; tables without are left out.

    The log of what went is no such table: it stays.
    """
    tables = await execute(hub.database, "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'deeds'")
    assert len(tables) > 10
    found: dict[str, int] = {}
    for [table] in tables:
        rows = await execute(hub.database, f"SELECT * FROM {table}")
        if count := sum(any(value in str(cell) for cell in row) for row in rows):
            found[table] = count
    return found


class Other:
    """Another process that has opened the same installation and does as it is told."""

    def __init__(self, folder: Path, *, lease_s: int = 15, renew_s: float = 5) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(OTHER), str(folder), str(lease_s), str(renew_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder.parent,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )
        self.pid = self._process.pid

    async def __aenter__(self) -> Other:
        await self._line()
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        await asyncio.to_thread(self._process.wait, PATIENCE_S)
        self._process.stdout.close()

    async def call(self, name: str, *arguments: object) -> Any:
        """Have one of the commands of `other.py` done there and return what it answered."""
        self.tell(name, *arguments)
        return await self._line()

    def tell(self, name: str, *arguments: object) -> None:
        """Have a command done without waiting for its answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would, and reap it."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    async def _line(self) -> Any:
        assert self._process.stdout
        line = await asyncio.wait_for(asyncio.to_thread(self._process.stdout.readline), PATIENCE_S)
        assert line, "the other process has ended"
        return json.loads(line)
