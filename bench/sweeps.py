"""What clean-up costs: a sweep of many sessions while others write, its preview, and the removal of many files."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import alcove.hub
from alcove.hub import Alcove

Numbers = dict[str, float]

_WRITERS = 16
_ALONE_S = 5.0


@contextmanager
def _place() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="alcove-bench-") as folder:
        yield Path(folder)


async def sweep(sessions: int = 100_000) -> Numbers:
    """Sweep sessions with folders while 16 writers append turns to others, after these wrote alone."""
    with _place() as place:
        base = place / "sessions"
        async with alcove.hub.open(workspaces=base) as hub:
            writers = [(await hub.sessions.create(session_id=f"writer-{n}")).id for n in range(_WRITERS)]
            _fill(hub, base, sessions)
            before = time.perf_counter()
            preview = await hub.janitor.sweep(dry_run=True)
            preview_ms = (time.perf_counter() - before) * 1000
            alone = await _writing(hub, writers, asyncio.sleep(_ALONE_S))
            swept = await _writing(hub, writers, _swept(hub, sessions))
            assert preview.expired.sessions == sessions
            left = len(os.listdir(base)) - 1
            assert left == _WRITERS, f"{left} folders are left"
            return {
                "per_s": sessions / swept["took_s"],
                "preview_ms": preview_ms,
                "writers_ratio": swept["per_s"] / alone["per_s"],
                "p99_ratio": swept["p99_ms"] / alone["p99_ms"],
                "writers_per_s": swept["per_s"],
                "p99_ms": swept["p99_ms"],
            }


async def _swept(hub: Alcove, sessions: int) -> None:
    swept = await hub.janitor.sweep()
    assert swept.expired.sessions == sessions, swept
    assert swept.problems == ()


async def _writing(hub: Alcove, writers: list[str], meanwhile: object) -> Numbers:
    """Append turns until something has ended; return rate, the 99th percentile, and how long it took."""
    took_ms: list[float] = []

    async def write(session_id: str) -> None:
        while True:
            before = time.perf_counter()
            await hub.messages.append_turn(session_id, "What is in this folder?", "Three files.")
            took_ms.append((time.perf_counter() - before) * 1000)

    tasks = [asyncio.create_task(write(one)) for one in writers]
    before = time.perf_counter()
    await meanwhile  # type: ignore[misc]
    took_s = time.perf_counter() - before
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    p99 = statistics.quantiles(took_ms, n=100)[-1]
    return {"per_s": len(took_ms) / took_s, "p99_ms": p99, "took_s": took_s}


def _fill(hub: Alcove, base: Path, sessions: int) -> None:
    """Make expired sessions with folders, behind the hub's back: it would take minutes."""
    rows = [(f"s{number:06}",) for number in range(sessions)]
    with sqlite3.connect(hub.settings.database.removeprefix("sqlite:///")) as db:
        db.executemany(
            "INSERT INTO sessions (id, tenant, app, user_id, key, parent_id, root_id, depth, title, agent, metadata, "
            "pinned, ttl, version, created_at, trash_id, trashed_at) "
            "VALUES (?1, 'default', '', 'ana', NULL, '', ?1, 0, '', '', '{}', 0, 1, 1, 1, '', 0)",
            rows,
        )
        db.executemany(
            "INSERT INTO heads (session_id, last_seq, cleared_seq, message_count, turn_count, child_count, "
            "last_activity, idle_limit, due_at, trashed, epoch, lease_run, lease_until) "
            "VALUES (?1, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, '', 0)",
            rows,
        )
        db.executemany("INSERT INTO workspaces VALUES (?1, 0, 0, 0, 0)", rows)
    for (name,) in rows:
        (base / name).mkdir(mode=0o700)


async def removal(files: int = 100_000) -> Numbers:
    """Purge a session with many files, over `rm -rf` of the same tree."""
    with _place() as place:
        async with alcove.hub.open(workspaces=place / "sessions") as hub:
            session = await hub.sessions.create()
            _fill_folder(place / "sessions" / session.id, files)
            _fill_folder(place / "other", files)
            os.sync()
            before = time.perf_counter()
            subprocess.run(["rm", "-rf", place / "other"], check=True)
            plain_s = time.perf_counter() - before
            before = time.perf_counter()
            receipt = await session.delete(purge=True)
            ours_s = time.perf_counter() - before
            assert receipt.files == files, receipt
            return {"ratio": ours_s / plain_s, "ms": ours_s * 1000, "rm_ms": plain_s * 1000}


def _fill_folder(folder: Path, files: int) -> None:
    for number in range(files):
        if number % 100 == 0:
            (below := folder / f"{number // 100}").mkdir(parents=True, exist_ok=True)
        (below / f"{number}").write_bytes(b"x")  # pyright: ignore[reportPossiblyUnboundVariable]


def both() -> Numbers:
    """Measure both, each in an event loop of its own."""
    return {**asyncio.run(sweep()), **{f"removal_{name}": value for name, value in asyncio.run(removal()).items()}}
