"""One writer per session: a lease, an epoch, and nobody who has lost them writes a row or keeps a process."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import msgspec
import pytest

from alcove.agents.base import AgentContext
from alcove.errors import SessionBusyError, StaleEpochError
from alcove.events.model import NewEvent
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.messages.model import Draft
from alcove.messages.rules import stored
from alcove.runs import holder, queries
from alcove.runs.model import Ending
from alcove.runs.queries import Started
from alcove.sessions.heads import Fence
from alcove.testing.rows import execute
from runs.world import Other, alive, output, said, until, waiting


async def test_a_second_message_is_refused_and_names_the_run(hub: Alcove, session: Handle) -> None:
    run = await hub.runs.start(session.id, "sleep 1000")
    for _ in range(2):
        with pytest.raises(SessionBusyError, match=run.id) as caught:
            await hub.runs.start(session.id, "echo second")
        assert caught.value.details["run_id"] == run.id
        assert caught.value.retryable
    assert (await session.refresh()).message_count == 1
    await hub.runs.cancel(run.id)
    assert (await session.chat("echo second")).text == "second"


async def test_of_many_starts_at_once_one_wins(hub: Alcove, session: Handle) -> None:
    starts = (hub.runs.start(session.id, "sleep 1000") for _ in range(8))
    answers = await asyncio.gather(*starts, return_exceptions=True)
    assert sum(isinstance(answer, SessionBusyError) for answer in answers) == 7
    assert len((await hub.runs.list(session.id)).runs) == 1


async def test_appends_and_file_writes_wait_for_the_run(hub: Alcove, session: Handle) -> None:
    assert hub.workspaces
    run = await hub.runs.start(session.id, "sleep 1000")
    for attempt in (
        session.append_turn("a", "b"),
        session.append([Draft("system", "x")]),
        hub.messages.pop(session.id),
        hub.messages.clear(session.id),
        hub.workspaces.write(session.id, "file", b"x"),
        hub.workspaces.mkdir(session.id, "folder"),
        hub.workspaces.delete(session.id, "file"),
    ):
        with pytest.raises(SessionBusyError, match=run.id):
            await attempt
    # Reading is nobody's business.
    assert len(await session.last()) == 1
    assert (await hub.workspaces.list_files(session.id)).files == ()
    await hub.runs.cancel(run.id)
    assert (await session.append_turn("a", "b")).last_seq == 4
    await hub.workspaces.write(session.id, "file", b"x")


async def test_a_file_write_holds_the_session_as_a_run_does(hub: Alcove, session: Handle) -> None:
    assert hub.workspaces
    started, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow():
        yield b"first "
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        yield b"second"

    writing = asyncio.create_task(hub.workspaces.write(session.id, "slow", slow()))
    await started.wait()
    with pytest.raises(SessionBusyError, match="files-"):
        await session.chat("true")
    go_on.set()
    assert (await writing).size_bytes == 12
    assert (await session.chat("cat slow")).text == "first second"


async def test_a_file_write_keeps_its_lease_and_outlives_its_caller(
    hub: Alcove, session: Handle, short_lease: None
) -> None:
    assert hub.workspaces
    started, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow():
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        yield b"whole"

    writing = asyncio.create_task(hub.workspaces.write(session.id, "slow", slow()))
    await started.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    taken = await _lease_until(hub, session)
    await until(lambda: _renewed(hub, session, taken + 2_500_000))
    with pytest.raises(SessionBusyError, match="files-"):
        await session.chat("true")
    go_on.set()
    await until(lambda: _renewed(hub, session, 0, exactly=True))
    assert (await session.chat("cat slow")).text == "whole"


@pytest.mark.long
async def test_a_run_renews_its_lease(hub: Alcove, session: Handle, short_lease: None) -> None:
    run = await hub.runs.start(session.id, "sleep 1000")
    taken = await _lease_until(hub, session)
    # Further than the first lease went: it has been renewed more than once.
    await until(lambda: _renewed(hub, session, taken + 2_500_000))
    assert (await hub.runs.cancel(run.id)).status == "cancelled"


async def test_a_run_keeps_its_lease_while_it_ends(
    hub: Alcove, session: Handle, short_lease: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing a large workspace, or waiting for a stubborn program, may take longer than a lease."""
    assert hub.workspaces
    go_on = asyncio.Event()
    measure = hub.workspaces.measure

    async def slow(session_id: str):
        await go_on.wait()
        return await measure(session_id)

    monkeypatch.setattr(hub.workspaces, "measure", slow)
    run = await hub.runs.start(session.id, "echo done")
    taken = await _lease_until(hub, session)
    await until(lambda: _renewed(hub, session, taken + 2_500_000))
    go_on.set()
    assert (await hub.runs.reply(run.id)).run.status == "finished"


async def test_a_stale_epoch_writes_nothing(hub: Alcove, session: Handle) -> None:
    run = (await session.chat("echo mine")).run
    tables = ("messages", "events", "runs", "heads")
    started = Started(run.id, session.id, run.epoch, run.turn, 1)
    fence = Fence(run.id, run.epoch)
    message = stored(Draft("assistant", "late"))
    ending = Ending(status="finished")
    before = [await execute(hub.database, f"SELECT * FROM {table}") for table in tables]
    for late in (
        hub.database.write(queries.journal, session.id, fence, 50, [NewEvent("output", {"text": "late"})], None),
        hub.database.write(queries.launched, started, fence, "tree", "none", "{}", 50),
        hub.database.write(queries.finish, started, fence, 50, ending, message, None),
        hub.database.write(queries.renew, session.id, fence),
    ):
        with pytest.raises(StaleEpochError):
            await late
    assert [await execute(hub.database, f"SELECT * FROM {table}") for table in tables] == before


async def test_a_takeover_ends_what_the_lost_run_has_left_before_it_begins(
    hub: Alcove, session: Handle, folder: Path
) -> None:
    marker = f"marker-{session.id}"
    async with Other(folder, lease_s=2, renew_s=0.2) as other:
        run = await other.call("start", session.id, waiting(marker))
        await said(hub, run["id"], "ready")
        await until(lambda: alive(marker))
        other.signal(signal.SIGSTOP)
        await until(lambda: _free(hub, session))
        assert alive(marker), "the holder is only stopped: its processes go on"

        reply = await session.chat("echo taken over")
        assert reply.text == "taken over"
        assert alive(marker) == []
        before = [await execute(hub.database, f"SELECT * FROM {table}") for table in ("messages", "turns", "events")]

        other.signal(signal.SIGCONT)
        assert (await other.call("get", run["id"]))["status"] == "lost"
        answer = await other.call("reply", run["id"])
        assert answer["run"]["status"] == "lost"
        after = [await execute(hub.database, f"SELECT * FROM {table}") for table in ("messages", "turns", "events")]
        assert after == before
    assert not list((folder.parent / ".alcove" / "runs").iterdir())


async def test_a_takeover_that_cannot_end_the_old_tree_starts_nothing(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await hub.runs.start(session.id, "sleep 1000")
    await execute(hub.database, "UPDATE heads SET lease_until = 0 WHERE session_id = ?", session.id)
    tree = (await hub.runs.get(run.id)).tree

    def end(name: str) -> bool:
        return name != tree

    monkeypatch.setattr(holder, "end", end)
    reply = await session.chat("echo beside it > file")
    assert reply.run.status == "failed"
    assert "still there" in reply.text
    monkeypatch.undo()


async def test_a_run_that_loses_its_lease_ends_its_processes_and_is_lost(
    hub: Alcove, session: Handle, short_lease: None
) -> None:
    marker = f"marker-{session.id}"
    run = await hub.runs.start(session.id, waiting(marker))
    await said(hub, run.id, "ready")
    await execute(hub.database, "UPDATE heads SET epoch = epoch + 1 WHERE session_id = ?", session.id)
    reply = await hub.runs.reply(run.id)
    assert reply.run.status == "lost"
    assert alive(marker) == []
    assert [turn.status for turn in await hub.messages.turns(session.id)] == ["lost"]
    assert (await session.window()).messages == []
    assert len(await session.last()) == 1


async def test_a_loud_run_that_loses_its_lease_ends_too(hub: Alcove, session: Handle, short_lease: None) -> None:
    run = await hub.runs.start(session.id, "yes")
    await said(hub, run.id, "y\n")
    await execute(hub.database, "UPDATE heads SET epoch = epoch + 1 WHERE session_id = ?", session.id)
    async with asyncio.timeout(20):
        assert (await hub.runs.reply(run.id)).run.status == "lost"


async def test_a_function_that_lost_its_lease_writes_nothing(hub: Alcove, session: Handle, short_lease: None) -> None:
    go_on = asyncio.Event()

    async def late(context: AgentContext) -> str:
        context.emit("early")
        await go_on.wait()
        context.emit("late")
        return "late"

    hub.agents.register("late", late)
    run = await hub.runs.start(session.id, "go", agent="late")
    await said(hub, run.id, "early")
    await execute(hub.database, "UPDATE heads SET lease_until = 0 WHERE session_id = ?", session.id)
    await session.append_turn("mean", "while")
    go_on.set()
    assert (await hub.runs.reply(run.id)).run.status == "lost"
    assert await output(hub, run.id) == "early"
    assert [one.text for one in await session.last()] == ["go", "mean", "while"]


async def _lease_until(hub: Alcove, session: Handle) -> int:
    [[until_us]] = await execute(hub.database, "SELECT lease_until FROM heads WHERE session_id = ?", session.id)
    return until_us


async def _renewed(hub: Alcove, session: Handle, until_us: int, *, exactly: bool = False) -> bool:
    now = await _lease_until(hub, session)
    return now == until_us if exactly else now >= until_us


async def _free(hub: Alcove, session: Handle) -> bool:
    return await _lease_until(hub, session) <= time.time_ns() // 1000


def test_a_started_run_is_kept_as_json_under_its_key() -> None:
    started = Started("run", "session", 1, 2, 3, queries.Lost("other", "tree"))
    assert msgspec.json.decode(msgspec.json.encode(started), type=Started) == started
