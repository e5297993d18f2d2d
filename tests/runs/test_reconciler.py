"""What servers that died have left of runs is found and ended; nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import alcove.hub
from alcove.errors import ConflictError
from alcove.hub import Alcove
from alcove.runs import reconciler
from alcove.runs.place import RunFolder
from alcove.sandbox import leftovers, processes
from alcove.testing.rows import execute
from runs.world import Other, alive, until, waiting

ROOT = os.geteuid() == 0
# Deaf to SIGTERM, in a session of its own.
DEAF = "trap '' TERM; while :; do sleep 1000; done"


@pytest.fixture
def escaped() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that got away from everything that would have ended them."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for one in started:
        with suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        one.wait()


def escape(escaped: list[subprocess.Popen[bytes]], uid: int | None = None, **env: str) -> subprocess.Popen[bytes]:
    """Start one, under a uid where one is given."""
    groups = None if uid is None else list[int]()
    one = subprocess.Popen(
        ["/bin/sh", "-c", DEAF], env=env, cwd="/", start_new_session=True, user=uid, group=uid, extra_groups=groups
    )
    escaped.append(one)
    return one


def nothing(*_: object) -> None:
    """End nobody."""


async def leased(hub: Alcove, session_id: str) -> int:
    [[uid]] = await execute(hub.database, "SELECT uid FROM uids WHERE session_id = ?", session_id)
    assert isinstance(uid, int)
    return uid


async def test_what_carries_the_name_of_a_run_that_has_ended_is_ended(
    hub: Alcove, escaped: list[subprocess.Popen[bytes]]
) -> None:
    session = await hub.sessions.create()
    run = (await session.chat("true")).run
    strays = [escape(escaped, ALCOVE_RUN_ID=run.id) for _ in range(2)]
    os.kill(strays[1].pid, signal.SIGSTOP)
    found = await hub.runs.reconcile()
    assert (found.processes >= 2, found.problems) == (True, ())
    assert [one.wait(5) for one in strays] == [-signal.SIGKILL, -signal.SIGKILL]


async def test_live_runs_and_those_of_others_are_spared(hub: Alcove, escaped: list[subprocess.Popen[bytes]]) -> None:
    """The control: the same processes, of runs that go on, of another installation, and of no run."""
    session = await hub.sessions.create()
    marker = f"marker-{session.id}"
    run = await hub.runs.start(session.id, waiting(marker))
    await until(lambda: len(alive(marker)) == 1)
    spared = [escape(escaped, ALCOVE_RUN_ID=run.id), escape(escaped, ALCOVE_RUN_ID="another"), escape(escaped)]
    found = await hub.runs.reconcile()
    assert (found.processes, found.folders, found.problems) == (0, 0, ())
    assert [one.poll() for one in spared] == [None] * 3
    assert len(alive(marker)) == 1
    await hub.runs.cancel(run.id)


@pytest.mark.skipif(not ROOT, reason="only a root server leases uids")
async def test_a_leased_uid_is_given_back_only_when_no_process_has_it(
    hub: Alcove, escaped: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await hub.sessions.create()
    await session.chat("true")
    uid = await leased(hub, session.id)
    stray = escape(escaped, uid)  # it has cleared its environment
    with monkeypatch.context() as nothing_ends:
        nothing_ends.setattr(leftovers, "end", nothing)
        nothing_ends.setattr(leftovers, "end_all_of", nothing)
        nothing_ends.setattr(reconciler.limits, "RECONCILE_S", 0)
        with pytest.raises(ConflictError, match=f"still there: {stray.pid}"):
            await session.delete(purge=True)
        assert await leased(hub, session.id) == uid
    await hub.sessions.delete(session.id, purge=True)
    assert stray.wait(5) == -signal.SIGKILL
    assert await execute(hub.database, "SELECT * FROM uids WHERE session_id = ?", session.id) == []


@pytest.mark.skipif(not ROOT, reason="only a root server leases uids")
async def test_a_process_of_a_leased_uid_is_ended_once_nothing_runs_in_its_session(
    hub: Alcove, escaped: list[subprocess.Popen[bytes]]
) -> None:
    session = await hub.sessions.create()
    marker = f"marker-{session.id}"
    run = await hub.runs.start(session.id, waiting(marker))
    await until(lambda: len(alive(marker)) == 1)
    stray = escape(escaped, await leased(hub, session.id))
    await hub.runs.reconcile()
    assert stray.poll() is None, "the run that goes on may have started it"
    os.kill(alive(marker)[0], signal.SIGKILL)
    await hub.runs.reply(run.id)
    await hub.runs.reconcile()
    assert stray.wait(5) == -signal.SIGKILL


async def test_the_folder_of_a_run_whose_server_was_killed_goes_and_one_in_use_stays(folder: Path) -> None:
    """As after SIGKILL between the end of a run and the removal of its folder, or before the run was recorded."""
    async with Other(folder) as other:
        session_id = await other.call("create")
        marker = f"marker-{session_id}"
        await other.call("start", session_id, waiting(marker))
        await until(lambda: len(alive(marker)) == 1)
        home = folder.parent / ".alcove"
        abandoned = RunFolder(home, "01234567-89ab-7def-8123-456789abcdef")
        abandoned.path.mkdir()
        (abandoned.path / "tmp").mkdir()
        async with alcove.hub.open(workspaces=folder) as hub:
            [used] = list((home / "runs").iterdir())
            assert used != abandoned.path
            assert await hub.runs.recover() == 0
            assert used.exists()
            other.kill()
            assert await hub.runs.recover() == 1
            assert list((home / "runs").iterdir()) == []
            assert alive(marker) == []


async def test_spawner_and_supervisor_killed_with_their_server_leave_nothing(folder: Path) -> None:
    """Nobody is left who would end the tree: what has a session of its own goes by what it carries."""
    async with Other(folder) as other:
        session_id = await other.call("create")
        marker = f"marker-{session_id}"
        script = waiting(marker, f"setsid bash -c \"trap '' TERM; exec -a {marker} sleep 99999\" &")
        await other.call("start", session_id, script)
        await until(lambda: len(alive(marker)) == 2)
        tree = processes.descendants(other.pid)
        os.kill(other.pid, signal.SIGSTOP)
        above = [pid for pid in tree if pid not in alive(marker) and b"bash" not in _command(pid)]
        for pid in (*above, other.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        other.kill()
        async with alcove.hub.open(workspaces=folder) as hub:
            await hub.runs.reconcile()
            assert alive(marker) == []
            assert [run.status for run in (await hub.runs.list(session_id)).runs] == ["lost"]
            assert (await (await hub.sessions.get(session_id)).chat("echo free")).text == "free"


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_bytes()
    return b""


def test_a_process_is_killed_only_when_it_is_the_one_that_was_seen() -> None:
    with subprocess.Popen(["sleep", "1000"], env={"ALCOVE_RUN_ID": "seen"}) as one:
        [found] = [left for left in leftovers.look() if left.pid == one.pid]
        leftovers.end([found._replace(started=found.started - 1)])
        assert one.poll() is None
        leftovers.end([found])
        assert one.wait(5) == -signal.SIGKILL
