"""Several processes on one database: one live session per user, one step of many, each time-out once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alcove.clock import SECOND
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

async def main(url, what, names):
    database = await open_database(url)
    sessions, dialogs = Sessions(database), Dialogs(database)
    print("ready", flush=True)
    sys.stdin.readline()
    async def one(name):
        if what == "live":
            session, made = await sessions.live(name, "bot", ttl_s=600)
            return [name, session.id, made]
        if what == "step":
            try:
                return [name, (await dialogs.step(name, "photo", {"image": "i"})).version, True]
            except EventRefusedError:
                return [name, 0, False]
        return [name, (step := await dialogs.fire(name)) and step.version, step is not None]
    print(json.dumps(await asyncio.gather(*map(one, names))), flush=True)
    await database.close()

asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
"""


@pytest.fixture(params=["sqlite", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'alcove.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.emptied(request.getfixturevalue("postgres_name"))


async def _race(url: str, what: str, names: list[str], processes: int = 4) -> list[tuple[str, object, bool]]:
    programs = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, url, what, *names, stdin=-1, stdout=-1, env=ENVIRONMENT
        )
        for _ in range(processes)
    ]
    for program in programs:
        assert program.stdout
        assert await program.stdout.readline() == b"ready\n"
    said = await asyncio.gather(*(program.communicate(b"go\n") for program in programs))
    return [tuple(one) for lines, _ in said for one in json.loads(lines)]


async def test_two_workers_give_one_user_one_session(shared_url: str) -> None:
    await (await open_database(shared_url)).close()
    users = [f"user-{i}" for i in range(40)]
    told = await _race(shared_url, "live", users)
    assert len({session_id for _, session_id, _ in told}) == len(users)
    assert Counter(name for name, _, made in told if made) == Counter(users)
    database = await open_database(shared_url)
    assert await Sessions(database).active_count() == len(users)
    # Everybody was away for too long, and comes back to all workers at once.
    await execute(database, "UPDATE heads SET last_activity = last_activity - ?", 1000 * SECOND)
    again = await _race(shared_url, "live", users)
    assert len({session_id for _, session_id, _ in again}) == len(users)
    assert {session_id for _, session_id, _ in again}.isdisjoint({session_id for _, session_id, _ in told})
    assert await Sessions(database).active_count() == len(users)
    assert await Sessions(database).active_count(app="other") == 0
    assert (await Sessions(database).get(str(told[0][1]))).status == "expired"
    await database.close()


async def test_of_many_processes_one_takes_each_step_and_one_fires_each_timeout(shared_url: str) -> None:
    database = await open_database(shared_url)
    dialogs, names = Dialogs(database), [f"s{i}" for i in range(30)]
    await dialogs.define(ORDER)
    for name in names:
        await Sessions(database).create(session_id=name)
        await dialogs.start(name, "order")
    told = await _race(shared_url, "step", names)
    assert Counter(name for name, _, taken in told if taken) == Counter(names)
    await execute(database, "UPDATE heads SET dialog_due = dialog_due - ?", 1000 * SECOND)
    told = await _race(shared_url, "fire", names)
    assert Counter(name for name, _, fired in told if fired) == Counter(names)
    for name in names:
        assert [step.cause for step in await dialogs.steps(name)] == ["start", "event", "timeout"]
    await database.close()
