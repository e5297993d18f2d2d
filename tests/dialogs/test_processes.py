"""Several processes on one database: one live session per user, one step of many, each time-out once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alcove.clock import SECOND
from alcove.database.op import Database
from alcove.database.opening import open_database
from alcove.dialogs.service import Dialogs
from alcove.sessions.service import Sessions
from alcove.testing.contract.dialogs import ORDER
from alcove.testing.rows import execute

if TYPE_CHECKING:
    from database.postgres_server import PostgresServer

ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
PROGRAM = """
import asyncio, json, sys
from alcove.database.opening import open_database
from alcove.dialogs.service import Dialogs
from alcove.errors import EventRefusedError
from alcove.sessions.service import Sessions

async def main(url, names):
    database = await open_database(url)
    sessions, dialogs = Sessions(database), Dialogs(database)
    async def one(what, name):
        if what == "live":
            session, made = await sessions.live(name, "bot", ttl_s=600)
            return [name, session.id, made]
        if what == "step":
            try:
                return [name, (await dialogs.step(name, "photo", {"image": "i"})).version, True]
            except EventRefusedError:
                return [name, 0, False]
        return [name, (step := await dialogs.fire(name)) and step.version, step is not None]
    print("ready", flush=True)
    while what := (await asyncio.to_thread(sys.stdin.readline)).strip():
        print(json.dumps(await asyncio.gather(*(one(what, name) for name in names))), flush=True)
    await database.close()

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


# On PostgreSQL the contract races connections of one process, which to it are the same.
@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'alcove.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.emptied(request.getfixturevalue("postgres_name"))


class Workers:
    """Processes on one database, each of which does the same for the same names at once."""

    def __init__(self, programs: list[asyncio.subprocess.Process]) -> None:
        self._programs = programs

    async def race(self, what: str) -> list[tuple[str, object, bool]]:
        for program in self._programs:
            assert program.stdin
            program.stdin.write(f"{what}\n".encode())
        return [tuple(one) for line in await self._lines() for one in json.loads(line)]

    async def _lines(self) -> list[bytes]:
        return await asyncio.gather(*(program.stdout.readline() for program in self._programs if program.stdout))

    @classmethod
    @asynccontextmanager
    async def started(cls, url: str, names: list[str], number: int = 3) -> AsyncGenerator[Workers]:
        workers = cls(
            [
                await asyncio.create_subprocess_exec(
                    sys.executable, "-c", PROGRAM, url, *names, stdin=-1, stdout=-1, env=ENVIRONMENT
                )
                for _ in range(number)
            ]
        )
        assert await workers._lines() == [b"ready\n"] * number
        yield workers
        for program in workers._programs:
            assert await program.communicate(b"") == (b"", None)
            assert program.returncode == 0


async def test_two_workers_give_one_user_one_session(shared_url: str) -> None:
    database = await open_database(shared_url)
    users = [f"user-{i}" for i in range(40)]
    async with Workers.started(shared_url, users) as workers:
        await _live_twice(database, workers, users)
    await database.close()


async def _live_twice(database: Database, workers: Workers, users: list[str]) -> None:
    told = await workers.race("live")
    assert len({session_id for _, session_id, _ in told}) == len(users)
    assert Counter(name for name, _, made in told if made) == Counter(users)
    assert await Sessions(database).active_count() == len(users)
    # Everybody was away for too long, and comes back to all workers at once.
    await execute(database, "UPDATE heads SET last_activity = last_activity - ?", 1000 * SECOND)
    again = await workers.race("live")
    assert len({session_id for _, session_id, _ in again}) == len(users)
    assert {session_id for _, session_id, _ in again}.isdisjoint({session_id for _, session_id, _ in told})
    assert await Sessions(database).active_count() == len(users)
    assert await Sessions(database).active_count(app="other") == 0
    assert (await Sessions(database).get(str(told[0][1]))).status == "expired"


async def test_of_many_processes_one_takes_each_step_and_one_fires_each_timeout(shared_url: str) -> None:
    database = await open_database(shared_url)
    dialogs, names = Dialogs(database), [f"s{i}" for i in range(30)]
    await dialogs.define(ORDER)
    for name in names:
        await Sessions(database).create(session_id=name)
        await dialogs.start(name, "order")
    async with Workers.started(shared_url, names) as workers:
        told = await workers.race("step")
        assert Counter(name for name, _, taken in told if taken) == Counter(names)
        await execute(database, "UPDATE heads SET dialog_due = dialog_due - ?", 1000 * SECOND)
        told = await workers.race("fire")
        assert Counter(name for name, _, fired in told if fired) == Counter(names)
    for name in names:
        assert [step.cause for step in await dialogs.steps(name)] == ["start", "event", "timeout"]
    await database.close()
