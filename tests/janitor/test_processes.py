"""Several processes on one installation: they share a sweep, and see what a dead one has left."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import alcove.hub
from alcove.hub import Alcove
from alcove.testing.rows import execute
from runs.world import Other, alive, said, waiting

if TYPE_CHECKING:
    from database.postgres_server import PostgresServer

SESSIONS = 240
PROGRAM = """
import asyncio, json, sys
import alcove.hub
from alcove import limits

limits.SWEEP_SESSIONS = limits.SWEEP_PURGES = 4

async def main(url, folder):
    async with alcove.hub.open(url, workspaces=folder) as hub:
        print("ready", flush=True)
        while what := (await asyncio.to_thread(sys.stdin.readline)).strip():
            older = 0 if what == "trash" else None
            done = await hub.janitor.clean(what, older_s=older)
            print(json.dumps([[one.session_id for one in done.groups], done.sessions, done.problems]), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'alcove.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.emptied(request.getfixturevalue("postgres_name"))


class Sweepers:
    """Processes that clean up at the same time."""

    def __init__(self, programs: list[asyncio.subprocess.Process]) -> None:
        self._programs = programs

    async def clean(self, what: str) -> list[list[Any]]:
        """Have each of them clean up; return what each says: which sessions, how many, and problems."""
        for program in self._programs:
            assert program.stdin
            program.stdin.write(f"{what}\n".encode())
        return [json.loads(line) for line in await self._lines()]

    async def _lines(self) -> list[bytes]:
        return await asyncio.gather(*(program.stdout.readline() for program in self._programs if program.stdout))

    @classmethod
    @asynccontextmanager
    async def started(cls, url: str, folder: Path, number: int = 2) -> AsyncGenerator[Sweepers]:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ALCOVE_HOME": str(folder.parent / "home")}
        sweepers = cls(
            [
                await asyncio.create_subprocess_exec(
                    sys.executable, "-c", PROGRAM, url, str(folder), stdin=-1, stdout=-1, env=environ
                )
                for _ in range(number)
            ]
        )
        assert await sweepers._lines() == [b"ready\n"] * number
        yield sweepers
        for program in sweepers._programs:
            assert await program.communicate(b"") == (b"", None)
            assert program.returncode == 0


async def _expired(hub: Alcove, round_: int) -> Counter[str]:
    """Make expired sessions with folders, some of them trees."""
    made: list[str] = []
    for number in range(SESSIONS):
        parent = made[-1] if number % 10 == 1 else None
        session = await hub.sessions.create(session_id=f"s{round_}-{number}", parent_id=parent, ttl_s=60)
        made.append(session.id)
    await execute(hub.database, "UPDATE heads SET last_activity = 1, due_at = 1 WHERE trashed = 0 AND idle_limit > 0")
    return Counter(made)


async def test_two_processes_share_a_sweep_and_do_nothing_twice(
    shared_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "base"
    monkeypatch.setenv("ALCOVE_HOME", str(tmp_path / "home"))
    shares = [0, 0]
    async with alcove.hub.open(shared_url, workspaces=folder) as hub, Sweepers.started(shared_url, folder) as sweepers:
        for number in range(3):
            made = await _expired(hub, number)
            told = await sweepers.clean("expired")
            tops = Counter(top for tops, _, _ in told for top in tops)
            assert max(tops.values()) == 1, "each went once"
            assert sum(count for _, count, _ in told) == len(made)
            assert [problems for _, _, problems in told] == [[], []]
            rows = await execute(hub.database, "SELECT session_id FROM deeds WHERE what = 'trashed'")
            assert Counter(name for (name,) in rows if name.startswith(f"s{number}-")) == made
            assert await execute(hub.database, "SELECT * FROM trashings WHERE step <> 'kept'") == []
            trash = list((folder / ".alcove" / "trash").glob("*/*"))
            assert Counter(place.name for place in trash) == made
            told_again = await sweepers.clean("trash")
            assert sum(count for _, count, _ in told_again) == len(made)
            rows = await execute(hub.database, "SELECT session_id FROM deeds WHERE what = 'purged'")
            assert Counter(name for (name,) in rows if name.startswith(f"s{number}-")) == made
            assert [one.name for one in folder.iterdir()] == [".alcove"]
            assert list((folder / ".alcove" / "trash").iterdir()) == []
            for at, (_, count, _) in enumerate([*told, *told_again]):
                shares[at % 2] += count
        assert await execute(hub.database, "SELECT * FROM sessions") == []
    assert sum(shares) == 2 * 3 * SESSIONS
    assert min(shares) > 0, "both did something"


async def test_a_preview_counts_the_runs_of_a_dead_process_and_the_sweep_ends_them(hub: Alcove, folder: Path) -> None:
    session, marker = await hub.sessions.create(), f"lost-{os.getpid()}"
    async with Other(folder) as other:
        run = await other.call("start", session.id, waiting(marker))
        await said(hub, run["id"], "ready")
        assert (await hub.janitor.sweep(dry_run=True)).lost_runs == 0, "its process lives"
        other.kill()
        assert [(await hub.janitor.sweep(dry_run=True)).lost_runs for _ in range(2)] == [1, 1]
        assert (await hub.runs.get(run["id"])).status == "running"
        assert (await hub.janitor.sweep()).lost_runs == 1
    assert (await hub.runs.get(run["id"])).status == "lost"
    assert alive(marker) == []
    assert (await hub.janitor.sweep(dry_run=True)).lost_runs == 0
