"""A function that says more than the database takes: it waits, or is told; memory stays bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from alcove import limits
from alcove.agents.base import AgentContext
from alcove.errors import ClosedError
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.runs.journal import Journal
from alcove.runs.voice import Voice
from runs.world import said

PIECE = "x" * 10_000


async def test_a_thread_waits_while_the_database_has_much_to_write(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = emitted = most_waiting = 0
    write = Journal._write

    async def counted(journal: Journal, entries: list[Any]) -> None:
        nonlocal taken
        await write(journal, entries)
        taken += sum(len(str(entry.data["text"])) for entry in entries)

    def loud(context: AgentContext) -> str:
        nonlocal emitted, most_waiting
        for _ in range(800):
            context.emit(PIECE)
            emitted += len(PIECE)
            most_waiting = max(most_waiting, emitted - taken)
        return "done"

    monkeypatch.setattr(Journal, "_write", counted)
    hub.agents.register("loud", loud)
    assert (await session.chat("go", agent="loud")).text == "done"
    assert emitted == taken == 800 * len(PIECE)
    # What is buffered, the batch before it that is being written, and what no thread has waited for yet.
    assert most_waiting <= 2 * limits.JOURNAL_BUFFER_BYTES + 2 * limits.EMIT_AHEAD_BYTES


async def test_a_thread_that_never_stops_talking_notices_the_end_of_its_run(hub: Alcove, session: Handle) -> None:
    noticed = threading.Event()

    def endless(context: AgentContext) -> str:
        try:
            while True:
                context.emit(PIECE)
        except ClosedError:
            noticed.set()
            raise

    hub.agents.register("endless", endless)
    run = await hub.runs.start(session.id, "go", agent="endless")
    await said(hub, run.id, "x")
    assert (await hub.runs.cancel(run.id)).status == "cancelled"
    assert await asyncio.to_thread(noticed.wait, 20)


async def test_an_endless_iterator_that_never_waits_stops_nobody_else_and_can_be_cancelled(
    hub: Alcove, session: Handle
) -> None:
    async def endless(_: AgentContext) -> AsyncIterator[str]:
        while True:
            yield PIECE

    hub.agents.register("endless", endless)
    run = await hub.runs.start(session.id, "go", agent="endless")
    await said(hub, run.id, "x")
    other = await hub.sessions.create()
    assert (await other.append_turn("a", "b")).last_seq == 2
    assert (await hub.runs.cancel(run.id)).status == "cancelled"


async def test_code_in_the_event_loop_that_runs_far_ahead_is_told_to_drain(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EMIT_BYTES", 5 * len(PIECE))
    monkeypatch.setattr(limits, "JOURNAL_BUFFER_BYTES", len(PIECE))

    async def hasty(context: AgentContext) -> str:
        for _ in range(10):
            context.emit(PIECE)
        return "never"

    async def patient(context: AgentContext) -> str:
        for _ in range(10):
            context.emit(PIECE)
            await context.drain()
        return "done"

    hub.agents.register("hasty", hasty)
    hub.agents.register("patient", patient)
    reply = await session.chat("go", agent="hasty")
    assert reply.run.status == "failed"
    assert "await context.drain()" in reply.run.error
    assert (await session.chat("go", agent="patient")).text == "done"


def test_a_thread_whose_event_loop_is_gone_is_told_so() -> None:
    async def made() -> Voice:
        return Voice(Journal(*cast("Any", [None] * 5)))

    voice = asyncio.run(made())
    with ThreadPoolExecutor(1) as thread, pytest.raises(ClosedError):
        thread.submit(voice.emit, "hello?").result()


async def test_a_function_whose_run_has_ended_is_told_so(hub: Alcove, session: Handle) -> None:
    kept: list[AgentContext] = []

    async def brief(context: AgentContext) -> str:
        kept.append(context)
        return "done"

    hub.agents.register("brief", brief)
    await session.chat("go", agent="brief")
    with pytest.raises(ClosedError, match="the run has ended"):
        kept[0].emit("too late")
    with pytest.raises(ClosedError):
        await asyncio.to_thread(kept[0].emit, "too late")
