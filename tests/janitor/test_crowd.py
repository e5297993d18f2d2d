"""Very many expired sessions: all of them go, each once, also when the process that sweeps is killed on the way."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from alcove import limits
from alcove.hub import Alcove
from alcove.testing.rows import execute
from runs.world import until

SWEEP = """
import asyncio, sys
import alcove.hub
from alcove import limits

limits.SWEEP_PAUSE_S = 0

async def main(folder):
    async with alcove.hub.open(workspaces=folder) as hub:
        print("begins", flush=True)
        await hub.janitor.sweep()

asyncio.run(main(sys.argv[1]))
"""
SESSIONS = (
    "INSERT INTO sessions (id, tenant, app, user_id, key, parent_id, root_id, depth, title, agent, metadata, pinned, "
    "ttl, version, created_at, trash_id, trashed_at) WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n "
    "WHERE i + 1 < ?) SELECT 's' || i, 'default', '', '', NULL, '', 's' || i, 0, '', '', '{}', 0, 1, 1, 1, '', 0 FROM n"
)
HEADS = (
    "INSERT INTO heads (session_id, last_seq, cleared_seq, message_count, turn_count, child_count, last_activity, "
    "idle_limit, due_at, trashed, epoch, lease_run, lease_until) "
    "SELECT id, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, '', 0 FROM sessions"
)


@pytest.mark.parametrize("number", [2_000, pytest.param(100_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
async def test_a_crowd_goes_once_whatever_happens_to_who_sweeps(
    hub: Alcove, folder: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SWEEP_PAUSE_S", 0)
    await execute(hub.database, SESSIONS, number)
    await execute(hub.database, HEADS)
    await asyncio.to_thread(lambda: [(folder / f"s{n}").mkdir() for n in range(number)])
    kept = await hub.sessions.create()
    preview = await hub.janitor.sweep(dry_run=True)
    assert (preview.expired.sessions, len(preview.expired.groups)) == (number, limits.CLEANED)
    killed = await _killed_midway(folder, number)
    assert 0 < killed < number, "it was killed on the way"
    swept = await hub.janitor.sweep()
    assert swept.problems == ()
    [[deeds, sessions]] = await execute(
        hub.database, "SELECT COUNT(*), COUNT(DISTINCT session_id) FROM deeds WHERE what = 'trashed'"
    )
    assert deeds == sessions == number
    assert await execute(hub.database, "SELECT id FROM trashings WHERE step <> 'kept'") == []
    trash = folder / ".alcove" / "trash"
    assert sorted(one.name for one in folder.iterdir()) == [".alcove", kept.id]
    assert len(list(trash.glob("*/s*"))) == number
    assert (await hub.janitor.sweep(dry_run=True)).expired.sessions == 0


async def _killed_midway(folder: Path, number: int) -> int:
    """Sweep in a process that is killed when a part of the folders has gone; return how many had."""
    trash = folder / ".alcove" / "trash"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SWEEP, str(folder), stdout=-1, env=environ)
    assert process.stdout
    assert await process.stdout.readline() == b"begins\n"
    await until(lambda: process.returncode is not None or len(os.listdir(trash)) >= number // 8, 120)
    process.kill()
    await process.communicate()
    return len(os.listdir(trash))
