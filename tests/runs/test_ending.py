"""Runs that are ended: cancelled from here and elsewhere, timed out, or closed; nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import alcove.hub
from alcove import limits
from alcove.agents.base import AgentContext
from alcove.errors import ClosedError, RunNotFoundError
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from runs.world import Other, alive, said, until, waiting

# How a program may try to outlive its run; `%s` is the marker of what must be gone.
ESCAPES = {
    "plain": "sleep 0",
    "session": "setsid bash -c 'exec -a %s sleep 100000' &",
    "double fork": "(bash -c 'exec -a %s sleep 100000' & ) & disown -a",
    "deaf": "trap '' TERM INT HUP; (trap '' TERM; exec -a %s sleep 100000) &",
    "stopped": "bash -c 'kill -STOP $$; exec -a %s sleep 100000' %s &",
    "pipe": "setsid bash -c 'exec -a %s sleep 100000' <&- 2>&1 &",
}


@pytest.mark.parametrize("escape", ESCAPES)
async def test_the_whole_tree_ends_with_its_run(
    hub: Alcove, session: Handle, escape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KILL_GRACE_S", 0.2)
    await _ends_whole(hub, session, escape, None)


async def test_the_whole_tree_ends_when_time_is_out(hub: Alcove, session: Handle) -> None:
    await _ends_whole(hub, session, "session", 0.7)


@pytest.mark.long
@pytest.mark.parametrize("escape", ESCAPES)
async def test_every_tree_ends_when_time_is_out(hub: Alcove, session: Handle, escape: str) -> None:
    await _ends_whole(hub, session, escape, 0.7)


async def _ends_whole(hub: Alcove, session: Handle, escape: str, timeout_s: float | None) -> None:
    marker = f"marker-{session.id}"
    script = waiting(marker, ESCAPES[escape].replace("%s", marker))
    run = await hub.runs.start(session.id, script, timeout_s=timeout_s)
    await said(hub, run.id, "ready")
    await until(lambda: len(alive(marker)) == (1 if escape == "plain" else 2))
    if timeout_s is None:
        run = await hub.runs.cancel(run.id)
        assert (run.status, run.ended) == ("cancelled", True)
    else:
        run = (await hub.runs.reply(run.id)).run
        assert run.status == "timed_out"
    assert alive(marker) == []
    [turn] = await hub.messages.turns(session.id)
    assert turn.status == "cancelled"
    assert (await session.refresh()).lease_run == ""
    assert (await session.chat("echo free")).text == "free"


async def test_a_program_is_first_asked_to_end(hub: Alcove, session: Handle) -> None:
    run = await hub.runs.start(session.id, "trap 'echo saved; exit 7' TERM; echo ready; while :; do sleep 0.01; done")
    await said(hub, run.id, "ready")
    run = await hub.runs.cancel(run.id)
    assert (run.status, run.exit_code) == ("cancelled", 7)
    [_, answer] = await session.last(2)
    assert answer.text == "ready\nsaved\n[cancelled]"


async def test_what_was_said_before_the_end_stays_in_windows(hub: Alcove, session: Handle) -> None:
    run = await hub.runs.start(session.id, "echo half; sleep 1000", timeout_s=0.3)
    reply = await hub.runs.reply(run.id)
    assert reply.run.status == "timed_out"
    assert [one.text for one in await session.window()] == ["echo half; sleep 1000", reply.text]
    assert reply.text.startswith("half\n[timed out after 0.3 s]")


async def test_cancelling_a_run_that_has_ended_changes_nothing(hub: Alcove, session: Handle) -> None:
    run = (await session.chat("exit 5")).run
    assert await hub.runs.cancel(run.id) == run


async def test_cancelling_an_unknown_run_is_an_error(hub: Alcove) -> None:
    with pytest.raises(RunNotFoundError):
        await hub.runs.cancel("nothing")


async def test_cancelling_twice_at_once_ends_it_once(hub: Alcove, session: Handle) -> None:
    run = await hub.runs.start(session.id, "sleep 1000")
    first, second = await asyncio.gather(hub.runs.cancel(run.id), hub.runs.cancel(run.id))
    assert first == second
    assert (await session.refresh()).message_count == 2


async def test_another_process_can_cancel(hub: Alcove, session: Handle, folder: Path) -> None:
    async with Other(folder, renew_s=0.2) as other:
        marker = f"marker-{session.id}"
        run = await other.call("start", session.id, waiting(marker))
        await said(hub, run["id"], "ready")
        assert (await hub.runs.cancel(run["id"])).id == run["id"]
        assert (await hub.runs.reply(run["id"])).run.status == "cancelled"
        assert alive(marker) == []


async def test_a_function_is_cancelled(hub: Alcove, session: Handle) -> None:
    ended = asyncio.Event()

    async def slow(context: AgentContext) -> str:
        context.emit("so far")
        try:
            await asyncio.sleep(1000)
        finally:
            ended.set()
        return "never"

    hub.agents.register("slow", slow)
    run = await hub.runs.start(session.id, "go", agent="slow")
    await said(hub, run.id, "so far")
    assert (await hub.runs.cancel(run.id)).status == "cancelled"
    assert ended.is_set()


async def test_a_function_that_will_not_be_cancelled_does_not_hold_its_session(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KILL_GRACE_S", 0.1)
    let_go, go_on = threading.Event(), asyncio.Event()

    async def deaf(context: AgentContext) -> str:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                context.emit("no")
        return "late"

    def thread(context: AgentContext) -> str:
        let_go.wait(20)
        context.emit("too late")
        return "late"

    hub.agents.register("deaf", deaf)
    hub.agents.register("thread", thread)
    for agent in ("deaf", "thread"):
        run = await hub.runs.start(session.id, "go", agent=agent)

        async def started(run_id: str = run.id) -> bool:
            return (await hub.runs.get(run_id)).rung == "in-process"

        await until(started)
        assert (await hub.runs.cancel(run.id)).status == "cancelled"
    let_go.set()
    go_on.set()
    assert (await session.chat("echo free")).text == "free"


async def test_closing_cancels_live_runs_and_waits_for_them(folder: Path) -> None:
    marker = f"marker-{folder}"
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create()
        run = await hub.runs.start(session.id, waiting(marker))
        await said(hub, run.id, "ready")
    assert alive(marker) == []
    async with alcove.hub.open(workspaces=folder) as hub:
        assert (await hub.runs.get(run.id)).status == "cancelled"
        assert (await hub.sessions.get(session.id)).lease_run == ""


async def test_closing_may_wait_for_runs_to_end_by_themselves(hub: Alcove) -> None:
    sessions = [await hub.sessions.create() for _ in range(3)]
    runs = [await hub.runs.start(session.id, "sleep 0.3; echo done") for session in sessions]
    await hub.runs.close(drain_s=20)
    for run in runs:
        assert (await hub.runs.get(run.id)).status == "finished"


async def test_closing_waits_no_longer_than_it_is_told(hub: Alcove, session: Handle) -> None:
    run = await hub.runs.start(session.id, "sleep 1000")
    before = time.monotonic()
    await hub.runs.close(drain_s=0.2)
    assert time.monotonic() - before < 10
    assert (await hub.runs.get(run.id)).status == "cancelled"


async def test_closing_waits_for_a_run_that_is_starting(folder: Path) -> None:
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create()
        starting = asyncio.create_task(hub.runs.start(session.id, "sleep 1000"))
        while not hub.runs._starting:  # at every turn of the loop, for a start takes few of them
            await asyncio.sleep(0)
        await hub.runs.close()
        run = await starting
        assert (await hub.runs.get(run.id)).status == "cancelled"


async def test_nothing_starts_while_closing_and_closing_twice_is_fine(hub: Alcove, session: Handle) -> None:
    await hub.runs.close()
    await hub.runs.close()
    with pytest.raises(ClosedError, match="stopping"):
        await session.chat("true")


async def test_the_end_of_the_event_loop_ends_runs_in_order(folder: Path) -> None:
    async with Other(folder) as other:
        session_id = await other.call("create")
        marker = f"marker-{session_id}"
        run = await other.call("start", session_id, waiting(marker))
        await until(lambda: alive(marker))
        other.signal(signal.SIGINT)
        await asyncio.to_thread(other._process.wait, 20)
    assert alive(marker) == []
    async with alcove.hub.open(workspaces=folder) as hub:
        assert (await hub.runs.get(run["id"])).status == "cancelled"
        assert os.listdir(folder / session_id) == []
