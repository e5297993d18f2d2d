"""A process that looks after runs is killed: nothing acknowledged is lost, nothing runs on, nobody waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import alcove.hub
from alcove.hub import Alcove
from alcove.runs import holder
from alcove.testing.rows import execute
from runs.world import Other, alive, said, until, waiting


async def test_runs_of_a_killed_process_are_lost_on_the_next_start(folder: Path) -> None:
    async with Other(folder) as other:
        session_id = await other.call("create")
        await other.call("reply", (await other.call("start", session_id, "echo kept > kept; echo kept"))["id"])
        marker = f"marker-{session_id}"
        run = await other.call("start", session_id, waiting(marker, f"setsid bash -c 'exec -a {marker} sleep 99999' &"))
        await until(lambda: len(alive(marker)) == 2)
        other.kill()
    async with alcove.hub.open(workspaces=folder) as hub:
        # Nobody had to wait for the lease to run out.
        lost = await hub.runs.get(run["id"])
        assert (lost.status, lost.ended, lost.error) == ("lost", True, "its process is gone")
        assert alive(marker) == []
        assert not list((folder.parent / ".alcove" / "runs").iterdir())
        assert [event.type async for event in hub.runs.events(lost.id)][-1] == "run.finished"
        assert [turn.status for turn in await hub.messages.turns(session_id)] == ["lost", "done"]
        session = await hub.sessions.get(session_id)
        assert (session.message_count, session.lease_run) == (3, "")
        assert [one.text for one in await session.window()] == ["echo kept > kept; echo kept", "kept"]
        assert (await session.chat("cat kept")).text == "kept"


async def test_runs_of_a_killed_process_are_noticed_by_those_that_stay(
    hub: Alcove, folder: Path, short_lease: None
) -> None:
    async with Other(folder) as other, alcove.hub.open(workspaces=folder) as watcher:
        session = await hub.sessions.create()
        run = await other.call("start", session.id, waiting(f"marker-{session.id}"))
        await said(hub, run["id"], "ready")
        other.kill()
        # A listener that was there before hears of it, though nothing is ever done in the session again.
        assert [event.type async for event in watcher.runs.events(run["id"])][-1] == "run.finished"
        assert (await watcher.runs.reply(run["id"])).run.status == "lost"


async def test_a_run_killed_before_its_program_began_is_lost(folder: Path) -> None:
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create()
        run = (await session.chat("true")).run
        # As a crash leaves it: started, nothing launched, its holder's process no more.
        await execute(
            hub.database, "UPDATE runs SET ended_at = 0, status = 'running', tree = '', holder = ?", _nobody()
        )
        await execute(
            hub.database, "UPDATE heads SET lease_run = ?, epoch = ?, lease_until = ?", run.id, run.epoch, 2**62
        )
    async with alcove.hub.open(workspaces=folder) as hub:
        assert (await hub.runs.get(run.id)).status == "lost"
        assert (await (await hub.sessions.get(session.id)).chat("echo free")).text == "free"


@pytest.mark.parametrize("machine", ["another-boot", "another-container"])
async def test_runs_of_another_machine_are_left_alone_until_their_lease_is_over(folder: Path, machine: str) -> None:
    boot, pid, started = _nobody().split(":")
    where = f"another-boot.{boot.partition('.')[2]}" if machine == "another-boot" else f"{boot.partition('.')[0]}.1"
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create()
        run = (await session.chat("true")).run
        await execute(
            hub.database,
            "UPDATE runs SET ended_at = 0, status = 'running', holder = ?",
            f"{where}:{pid}:{started}",
        )
        await execute(hub.database, "UPDATE heads SET lease_run = ?, lease_until = ?", run.id, 2**62)
        assert await hub.runs.recover() == 0
        await execute(hub.database, "UPDATE heads SET lease_until = 1")
        assert await hub.runs.recover() == 1
        assert (await hub.runs.get(run.id)).status == "lost"


async def test_a_live_run_of_another_process_is_not_recovered(hub: Alcove, folder: Path) -> None:
    session = await hub.sessions.create()
    run = await hub.runs.start(session.id, "sleep 1000")
    async with Other(folder) as other:
        assert (await other.call("get", run.id))["status"] == "running"
    assert not (await hub.runs.get(run.id)).ended


async def test_a_recovery_that_cannot_end_a_tree_goes_on_with_the_others(
    hub: Alcove, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [(await (await hub.sessions.create()).chat("true")).run for _ in range(2)]
    await execute(hub.database, "UPDATE runs SET ended_at = 0, status = 'running', tree = id, holder = ?", _nobody())
    stuck = runs[0].id

    def end(name: str) -> bool:
        return name != stuck

    monkeypatch.setattr(holder, "end", end)
    assert await hub.runs.recover() == 1
    assert "could not be ended" in caplog.text
    assert (await hub.runs.get(runs[0].id)).status == "running"
    assert (await hub.runs.get(runs[1].id)).status == "lost"


def test_a_process_is_known_by_more_than_its_pid() -> None:
    assert not holder.gone(holder.here())
    assert holder.gone(_nobody())
    assert holder.end("")
    assert holder.end(_nobody()), "the pid is there, and it is somebody else"
    assert os.getpid()


def _nobody() -> str:
    """A process that once had our pid."""
    place, pid, started = holder.here().split(":")
    return f"{place}:{pid}:{int(started) - 1}"
