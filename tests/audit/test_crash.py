"""A process that is killed at any moment: no acknowledged act without its row, and no row without its act."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

import alcove
from alcove.audit.model import DONE, Recorded
from alcove.hub import Alcove
from alcove.testing.rows import execute

ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join(sys.path)}

# Does what is audited, and says so once it is acknowledged; denies meanwhile.
ACTOR = """
import asyncio, os, sys
import alcove

def say(act, subject):
    os.write(1, f"{act} {subject}\\n".encode())

async def keys(hub):
    while True:
        key = (await hub.keys.create()).key
        say("key.created", f"key:{key.id}")
        await hub.keys.revoke(key.id)
        say("key.revoked", f"key:{key.id}")

async def runs(hub):
    while True:
        run = (await hub.runs.register("r")).run
        say("grant.created", f"run:{run.id}")
        for name in range(20):
            hub.runs.check(run.id, "tool", str(name), "call")
        await hub.runs.revoke(run.id)
        say("grant.revoked", f"run:{run.id}")

async def sessions(hub):
    while True:
        session = await hub.sessions.create()
        await hub.sessions.delete(session.id)
        say("session.trashed", f"session:{session.id}")
        await hub.sessions.restore(session.id)
        say("session.restored", f"session:{session.id}")

async def main(url):
    async with alcove.open(url) as hub:
        await asyncio.gather(*(work(hub) for work in (keys, runs, sessions) * 3))

asyncio.run(main(sys.argv[1]))
"""


def _killed(url: str, after_s: float) -> Counter[tuple[str, str]]:
    """Run two processes, kill both, and return what they had acknowledged."""
    actors = [
        subprocess.Popen([sys.executable, "-c", ACTOR, url], env=ENVIRONMENT, stdout=subprocess.PIPE) for _ in range(2)
    ]
    first = [actor.stdout.readline() for actor in actors if actor.stdout]
    threading.Event().wait(after_s)
    for actor in actors:
        actor.send_signal(signal.SIGKILL)
    said = b"".join(first) + b"".join(actor.communicate()[0] for actor in actors)
    lines = [line.split() for line in said.decode().splitlines(keepends=True) if line.endswith("\n")]
    return Counter((act, subject) for act, subject in lines)


async def _rows(hub: Alcove) -> list[Recorded]:
    return [row async for row in hub.audit.records()]


async def _crash(folder: Path, rounds: int, chance: random.Random) -> None:
    url = f"sqlite:///{folder}/a.db"
    acknowledged: Counter[tuple[str, str]] = Counter()
    denials = 0
    for _ in range(rounds):
        acknowledged += _killed(url, chance.random() / 3)
        async with alcove.open(url) as hub:
            assert (await hub.audit.verify()).findings == ()
            rows = await _rows(hub)
            done = Counter((row.chained.act, row.words.subject) for row in rows if row.words)
            assert acknowledged.keys() <= done.keys(), "an act was acknowledged, and has no row"
            assert all(done[one] >= times for one, times in acknowledged.items())
            await _acts_and_rows_agree(hub, done)
            denials = sum(row.chained.code != DONE for row in rows)
    assert denials, "the control: some were written before the last kill"


async def _acts_and_rows_agree(hub: Alcove, done: Counter[tuple[str, str]]) -> None:
    """Compare what the tables of the acts say with the rows: each act one row, each row its act."""
    for act, sql in {
        "key.created": "SELECT 'key:' || id FROM principal_keys",
        "key.revoked": "SELECT 'key:' || id FROM principal_keys WHERE revoked_at > 0",
        "grant.created": "SELECT 'run:' || run_id FROM grants",
        "grant.revoked": "SELECT 'run:' || run_id FROM grant_changes",
        "session.trashed": "SELECT 'session:' || session_id FROM deeds WHERE what = 'trashed'",
        "session.restored": "SELECT 'session:' || session_id FROM deeds WHERE what = 'restored'",
    }.items():
        there = {row[0] for row in await execute(hub.database, sql)}
        assert {subject for one, subject in done if one == act} == there, act


async def test_a_kill_leaves_no_act_without_its_row(tmp_path: Path) -> None:
    await _crash(tmp_path, 3, random.Random(7))


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_many_kills_leave_no_act_without_its_row(tmp_path: Path) -> None:
    await _crash(tmp_path, 40, random.Random(8))
