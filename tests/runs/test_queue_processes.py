"""Several processes and one queue: whoever is killed or stopped, each message is answered once and in its turn."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

import alcove.hub
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.testing.rows import execute
from runs.world import Other, alive, said, until, waiting


async def test_two_processes_drain_one_queue_and_one_of_them_is_killed(
    hub: Alcove, session: Handle, folder: Path
) -> None:
    async with Other(folder) as one, Other(folder) as two:
        blocking = await hub.runs.start(session.id, "until [ -e go ]; do sleep 0.02; done")
        words = [[f"{name}{n}" for n in range(8)] for name in ("one", "two")]
        by_one, by_two = await asyncio.gather(
            one.call("queue", session.id, *(f"echo {word} >> answers; sleep 0.1" for word in words[0])),
            two.call("queue", session.id, *(f"echo {word} >> answers; sleep 0.1" for word in words[1])),
        )
        queue = await hub.runs.queue(session.id)
        order = [queued.run_id for queued in queue]
        assert sorted(order) == sorted([*by_one, *by_two])
        assert hub.workspaces
        await asyncio.to_thread(hub.workspaces.path(session.id).joinpath("go").touch)
        await hub.runs.reply(order[3])
        [[holder]] = await execute(hub.database, "SELECT holder FROM runs WHERE id = ?", order[3])
        killed, left = (one, two) if f":{one.pid}:" in holder else (two, one)
        killed.kill()
        await hub.runs.recover()
        ends = [(await hub.runs.reply(run_id)).run for run_id in order]
        assert f":{left.pid}:" in ends[-1].holder, "the one that was left went on"
    lost = [run.id for run in ends if run.status == "lost"]
    assert len(lost) <= 1, "no more than the one that was going on"
    assert {run.status for run in ends if run.id not in lost} == {"finished"}
    said = (await session.chat("cat answers")).text.split()
    expected = [queued.message.split()[1] for queued in queue]
    assert [word for word in expected if word in said] == said, "each once, and in order"
    assert {word for word, run in zip(expected, ends, strict=True) if run.id not in lost} <= set(said)
    rows = await execute(hub.database, "SELECT id FROM runs WHERE session_id = ? ORDER BY turn", session.id)
    assert [row[0] for row in rows][:-1] == [blocking.id, *order]


async def test_a_queue_outlives_the_process_that_took_it_in(folder: Path) -> None:
    async with Other(folder) as other:
        session_id = await other.call("create")
        marker = f"marker-{session_id}"
        running = await other.call("start", session_id, waiting(marker))
        queued = await other.call("queue", session_id, *(f"echo {n} >> answers" for n in range(5)))
        await until(lambda: alive(marker))
        other.kill()
    async with alcove.hub.open(workspaces=folder) as hub:
        assert (await hub.runs.get(running["id"])).status == "lost"
        assert [one.run_id for one in await hub.runs.queue(session_id)] == queued
        await hub.runs.adopt(all_quiet=False)
        for run_id in queued:
            assert (await hub.runs.reply(run_id)).run.status == "finished"
        session = await hub.sessions.get(session_id)
        assert (await session.chat("cat answers")).text.split() == ["0", "1", "2", "3", "4"]
        assert alive(marker) == []


async def test_a_process_that_stays_open_looks_after_queues_of_those_that_are_gone(
    hub: Alcove, session: Handle, folder: Path, short_lease: None
) -> None:
    async with Other(folder) as other, alcove.hub.open(workspaces=folder) as watcher:
        run = await hub.runs.start(session.id, "until [ -e go ]; do sleep 0.02; done")
        [queued] = await other.call("queue", session.id, "echo after")
        other.kill()
        assert hub.workspaces
        await asyncio.to_thread(hub.workspaces.path(session.id).joinpath("go").touch)
        assert (await hub.runs.reply(run.id)).run.status == "finished"
        assert (await watcher.runs.reply(queued)).text == "after"


async def test_a_command_that_is_over_soon_leaves_queues_alone(
    folder: Path, short_lease: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Other(folder) as other:
        session_id = await other.call("create")
        await other.call("start", session_id, "sleep 1000")
        await other.call("queue", session_id, "echo after")
        other.kill()
    async with alcove.hub.open(workspaces=folder) as hub:
        hub.runs.adopts = False
        await asyncio.sleep(3)  # longer than its watch takes to come by
        assert len(await hub.runs.queue(session_id)) == 1
        hub.runs.adopts = True  # the control
        await until(lambda: _drained(hub, session_id))


async def test_a_process_killed_after_its_claim_has_begun_nothing(folder: Path) -> None:
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create()
        async with Other(folder) as other:
            run = await hub.runs.start(session.id, "until [ -e go ]; do sleep 0.02; done")
            [queued] = await other.call("queue", session.id, "echo after")
            [[holder]] = await execute(hub.database, "SELECT holder FROM queue")
            other.kill()
        assert hub.workspaces
        await asyncio.to_thread(hub.workspaces.path(session.id).joinpath("go").touch)
        await hub.runs.reply(run.id)
        # As a crash leaves it: claimed, and nothing else.
        await execute(hub.database, "UPDATE runs SET holder = ?, epoch = 7 WHERE id = ?", holder, queued)
        await execute(
            hub.database,
            "UPDATE heads SET lease_run = ?, epoch = 7, lease_until = 9000000000000000 WHERE session_id = ?",
            queued,
            session.id,
        )
        await hub.runs.adopt(all_quiet=False)
        assert (await hub.runs.reply(queued)).text == "after"


async def test_a_run_of_another_process_gives_way(hub: Alcove, session: Handle, folder: Path) -> None:
    marker = f"marker-{session.id}"
    async with Other(folder, lease_s=2, renew_s=0.2) as other:
        run = await other.call("start", session.id, waiting(marker))
        await said(hub, run["id"], "ready")
        newer = await hub.runs.start(session.id, "echo newer", busy="interrupt")
        assert (await hub.runs.reply(newer.id)).text == "newer"
        assert alive(marker) == []
        assert (await hub.runs.get(run["id"])).status == "interrupted"
    window = await session.window()
    assert [message.text for message in window.messages][1] == "ready\n[interrupted]"


async def test_a_stopped_process_neither_takes_nor_starts_anything_when_it_goes_on(
    hub: Alcove, session: Handle, folder: Path
) -> None:
    """Past its lease somebody else drains the queue; continued, it writes no row and starts no process."""
    marker = f"marker-{session.id}"
    async with Other(folder, lease_s=2, renew_s=0.2) as other:
        run = await other.call("start", session.id, waiting(marker))
        await said(hub, run["id"], "ready")
        await hub.runs.steer("unread", run_id=run["id"])
        queued = await other.call("queue", session.id, "echo a >> answers", "echo b >> answers")
        other.signal(signal.SIGSTOP)
        await hub.runs.adopt(all_quiet=False)  # it is there, and not known to be gone
        assert (await hub.runs.get(queued[0])).status == "queued"
        hub.runs._queue.look_after(session.id)
        for run_id in queued:
            assert (await hub.runs.reply(run_id)).run.status == "finished"
        assert [one.returned for one in await hub.runs.unread(run["id"])] == [True]
        tables = ("messages", "turns", "events", "runs", "queue", "steering")
        before = [await execute(hub.database, f"SELECT * FROM {table}") for table in tables]
        other.signal(signal.SIGCONT)
        assert (await other.call("reply", run["id"]))["run"]["status"] == "lost"
        after = [await execute(hub.database, f"SELECT * FROM {table}") for table in tables]
        assert after == before
        assert (await session.chat("cat answers")).text.split() == ["a", "b"]


async def _drained(hub: Alcove, session_id: str) -> bool:
    return not await hub.runs.queue(session_id)
