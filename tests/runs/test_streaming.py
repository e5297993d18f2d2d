"""Events come while a run works, resume from any number, and reach listeners in other processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import alcove.hub
from alcove.agents.base import AgentContext
from alcove.errors import InvalidError, RunNotFoundError
from alcove.events.model import Event
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.runs.model import Run
from runs.world import Other, said, until

GATED = "mkfifo gate; chmod 666 gate; echo before; read line < gate; echo $line"


def open_gate(folder: Path, session_id: str) -> None:
    """Let a program that runs `GATED` go on."""
    gate = os.open(folder / session_id / "gate", os.O_WRONLY | os.O_NONBLOCK)
    os.write(gate, b"after\n")
    os.close(gate)


@pytest.fixture
def gate() -> Callable[[Path, str], object]:
    async def opened(folder: Path, session_id: str) -> None:
        def tried() -> bool:
            try:
                open_gate(folder, session_id)
            except OSError:  # the program does not read yet
                return False
            return True

        await until(tried)

    return opened


async def test_output_comes_while_the_program_works(
    hub: Alcove, session: Handle, folder: Path, gate: Callable[[Path, str], asyncio.Future[None]]
) -> None:
    seen: list[Event] = []
    async for event in session.stream(GATED):
        seen.append(event)
        if event.type == "output" and event.data["text"] == "before\n":
            [run] = (await hub.runs.list(session.id)).runs
            assert not run.ended
            await gate(folder, session.id)
    assert [event.type for event in seen] == [
        "run.queued",
        "message",
        "run.started",
        "output",
        "output",
        "files",
        "message",
        "run.finished",
    ]
    assert [event.n for event in seen] == list(range(1, 9))
    assert seen[1].data == {"seq": 1, "turn": 1, "role": "user"}
    assert seen[4].data == {"stream": "stdout", "text": "after\n"}
    assert seen[6].data == {"seq": 2, "turn": 1, "role": "assistant", "text": seen[6].data["text"]}
    assert seen[7].data == {"status": "finished", "exit_code": 0, "error": ""}


async def test_a_stream_resumes_from_any_number(hub: Alcove, session: Handle) -> None:
    whole = [event async for event in session.stream("for i in 1 2 3 4 5; do echo $i; sleep 0.01; done")]
    [run] = (await hub.runs.list(session.id)).runs
    for after in range(len(whole) + 1):
        assert [event async for event in hub.runs.events(run.id, after)] == whole[after:]


async def test_a_stream_past_the_end_of_a_run_is_empty(hub: Alcove, session: Handle) -> None:
    run = (await session.chat("true")).run
    assert [event async for event in hub.runs.events(run.id, 1_000_000)] == []


@pytest.mark.parametrize("after", [-1, 2**63])
async def test_a_number_that_no_event_has_is_refused(hub: Alcove, session: Handle, after: int) -> None:
    run = (await session.chat("true")).run
    with pytest.raises(InvalidError, match="number of an event"):
        await anext(aiter(hub.runs.events(run.id, after)))


async def test_events_of_an_unknown_run_are_not_found(hub: Alcove) -> None:
    with pytest.raises(RunNotFoundError):
        await anext(aiter(hub.runs.events("nothing")))


async def test_many_listeners_see_the_same_whatever_they_resume_from(
    hub: Alcove, session: Handle, folder: Path, gate: Callable[[Path, str], asyncio.Future[None]]
) -> None:
    run = await hub.runs.start(session.id, GATED)

    async def listen(after: int) -> list[Event]:
        return [event async for event in hub.runs.events(run.id, after)]

    listeners = [asyncio.create_task(listen(after)) for after in range(6)]
    await said(hub, run.id, "before")
    await gate(folder, session.id)
    heard = await asyncio.gather(*listeners)
    assert all(events == heard[0][after:] for after, events in enumerate(heard))
    assert heard[0][-1].type == "run.finished"
    assert hub.events._listeners == {}


async def test_leaving_a_stream_does_not_cancel(
    hub: Alcove, session: Handle, folder: Path, gate: Callable[[Path, str], asyncio.Future[None]]
) -> None:
    async for event in session.stream(GATED):
        if event.type == "output":
            break
    [run] = (await hub.runs.list(session.id)).runs
    await gate(folder, session.id)
    reply = await hub.runs.reply(run.id)
    assert (reply.text, reply.run.status) == ("before\nafter", "finished")


async def test_a_caller_that_goes_away_while_a_run_starts_does_not_cancel_it(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    start = hub.runs._admit

    async def announced(*args: Any) -> Run:
        begun.set()
        return await start(*args)

    monkeypatch.setattr(hub.runs, "_admit", announced)
    starting = asyncio.create_task(hub.runs.start(session.id, "echo done"))
    await begun.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    async def runs() -> bool:
        return bool((await hub.runs.list(session.id)).runs)

    await until(runs)
    [run] = (await hub.runs.list(session.id)).runs
    assert (await hub.runs.reply(run.id)).text == "done"


async def test_a_listener_in_another_process_sees_a_run(
    hub: Alcove, session: Handle, folder: Path, gate: Callable[[Path, str], asyncio.Future[None]]
) -> None:
    async with Other(folder) as other:
        run = await other.call("start", session.id, GATED)
        types: list[str] = []
        async for event in hub.runs.events(run["id"]):
            types.append(event.type)
            if event.type == "output" and "before" in str(event.data["text"]):
                assert not (await hub.runs.get(run["id"])).ended
                await gate(folder, session.id)
        assert types[-1] == "run.finished"
        assert (await hub.runs.reply(run["id"])).text == "before\nafter"


async def test_a_stream_ends_when_its_run_is_purged(hub: Alcove, session: Handle, folder: Path) -> None:
    async with alcove.hub.open(workspaces=folder) as second:
        run = await hub.runs.start(session.id, "echo hi; sleep 1000")
        await said(hub, run.id, "hi")
        stream = second.runs.events(run.id)
        assert (await anext(aiter(stream))).n == 1
        await session.delete(purge=True)
        assert [event.n async for event in stream if event.type == "gap"] == []


async def test_a_function_streams_what_it_yields_and_what_it_emits(hub: Alcove, session: Handle) -> None:
    go_on = asyncio.Event()

    async def slow(context: AgentContext):
        context.emit("thinking \ud800 \x00\n")
        yield "first "
        await go_on.wait()
        yield "second"

    hub.agents.register("slow", slow)
    outputs: list[str] = []
    async for event in session.stream("go", agent="slow"):
        if event.type == "output":
            outputs.append(str(event.data["text"]))
            go_on.set()
    assert "".join(outputs) == "thinking ? \x00\nfirst second"
    [_, answer] = await session.last(2)
    assert answer.text == "first second"
