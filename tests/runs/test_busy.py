"""What becomes of a message whose session is busy: refused, queued, taken by the run, or before it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

import alcove
import alcove.hub
from alcove import limits
from alcove.agents.base import AgentContext
from alcove.errors import (
    AgentNotFoundError,
    ConflictError,
    IdempotencyError,
    InvalidError,
    NotPermittedError,
    QueueFullError,
    RunEndedError,
    RunNotFoundError,
    SessionBusyError,
)
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.runs.model import Run
from alcove.testing.rows import execute
from runs.world import alive, rows_with, said, until, waiting


class Patient:
    """An agent that says `ready`, goes on when it is told to, and answers what it was asked."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.order: list[str] = []

    async def __call__(self, context: AgentContext) -> str:
        self.order.append(context.message)
        context.emit("ready")
        await self.go_on.wait()
        return f"answer to {context.message}"


@pytest.fixture
def patient(hub: Alcove) -> Patient:
    agent = Patient()
    hub.agents.register("patient", agent)
    return agent


@pytest.fixture
async def first(hub: Alcove, session: Handle, patient: Patient) -> Run:
    """A run that goes on."""
    run = await hub.runs.start(session.id, "first", agent="patient")
    await said(hub, run.id, "ready")
    return run


async def texts(session: Handle) -> list[str]:
    return [message.text for message in await session.last(100)]


# -- queue -------------------------------------------------------------------------------------------------------------


async def test_queued_messages_are_answered_in_the_order_in_which_they_came(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    queued = [await hub.runs.start(session.id, text, agent="patient", busy="queue") for text in ("2", "3", "4")]
    assert [(run.status, run.turn, run.digest, run.ended) for run in queued] == [("queued", 0, "", False)] * 3
    assert [(one.run_id, one.position, one.message) for one in await hub.runs.queue(session.id)] == [
        (queued[0].id, 1, "2"),
        (queued[1].id, 2, "3"),
        (queued[2].id, 3, "4"),
    ]
    assert {run.id for run in (await hub.runs.list(session.id, status="queued")).runs} == {run.id for run in queued}
    assert len((await hub.runs.list(session.id, active=True)).runs) == 4
    patient.go_on.set()
    for run, text in zip(queued, ("2", "3", "4"), strict=True):
        reply = await hub.runs.reply(run.id)
        assert (reply.text, reply.run.status, len(reply.run.digest)) == (f"answer to {text}", "finished", 64)
        events = await hub.events.read(run.id)
        assert [event.type for event in events if event.type != "files"] == [
            "run.queued",
            "message",
            "run.started",
            "output",
            "message",
            "run.finished",
        ]
        assert [event.n for event in events] == list(range(1, len(events) + 1))
    assert await texts(session) == [
        "first",
        "answer to first",
        "2",
        "answer to 2",
        "3",
        "answer to 3",
        "4",
        "answer to 4",
    ]
    assert await hub.runs.queue(session.id) == []


async def test_a_message_for_a_free_session_is_answered_at_once_whatever_the_policy(
    hub: Alcove, session: Handle, patient: Patient
) -> None:
    patient.go_on.set()
    for policy in ("reject", "queue", "steer", "interrupt"):
        run = await hub.runs.start(session.id, policy, agent="patient", busy=policy)
        assert (run.status, run.steered) == ("running", False)
        assert (await hub.runs.reply(run.id)).run.status == "finished"
    assert patient.order == ["reject", "queue", "steer", "interrupt"]


async def test_a_policy_that_there_is_not_is_refused(hub: Alcove, session: Handle) -> None:
    with pytest.raises(InvalidError, match="reject, queue, steer, interrupt"):
        await hub.runs.start(session.id, "x", busy="wait")


async def test_a_stream_and_a_chat_wait_for_a_queued_answer(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    chatting = asyncio.create_task(session.chat("2", agent="patient", busy="queue"))
    await until(lambda: _waiting(hub, session, 1))

    async def types() -> list[str]:
        return [event.type async for event in session.stream("3", agent="patient", busy="queue")]

    streaming = asyncio.create_task(types())
    await until(lambda: _waiting(hub, session, 2))
    patient.go_on.set()
    assert (await chatting).text == "answer to 2"
    heard = await streaming
    assert (heard[0], heard[-1]) == ("run.queued", "run.finished")


async def test_while_something_waits_nothing_overtakes_it(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    queued = await hub.runs.start(session.id, "2", agent="patient", busy="queue")
    for task in hub.runs._queue._tasks.values():
        task.cancel()  # nobody looks after it now
    patient.go_on.set()
    await hub.runs.reply(first.id)
    with pytest.raises(SessionBusyError, match=queued.id):
        await hub.runs.start(session.id, "overtakes", agent="patient")
    third = await hub.runs.start(session.id, "3", agent="patient", busy="queue")
    assert (await hub.runs.reply(third.id)).run.status == "finished"
    assert patient.order == ["first", "2", "3"]


async def test_a_queue_is_bounded_and_says_so(
    hub: Alcove, session: Handle, patient: Patient, first: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "QUEUE_MESSAGES", 2)
    for text in ("2", "3"):
        await hub.runs.start(session.id, text, agent="patient", busy="queue")
    for policy in ("queue", "interrupt"):
        with pytest.raises(QueueFullError) as caught:
            await hub.runs.start(session.id, "4", agent="patient", busy=policy)
        assert (caught.value.limit, caught.value.retryable) == (2, True)
    assert not (await hub.runs.get(first.id)).ended, "an interruption that is refused interrupts nothing"
    patient.go_on.set()


async def test_a_queued_run_is_cancelled_and_its_message_is_in_no_history(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    second = await hub.runs.start(session.id, "2", agent="patient", busy="queue")
    third = await hub.runs.start(session.id, "3", agent="patient", busy="queue")
    ended = await hub.runs.cancel(second.id)
    assert (ended.status, ended.turn, ended.ended) == ("cancelled", 0, True)
    assert (await hub.runs.cancel(second.id)) == ended
    assert [event.type async for event in hub.runs.events(second.id)] == ["run.queued", "run.finished"]
    patient.go_on.set()
    assert (await hub.runs.reply(third.id)).text == "answer to 3"
    assert patient.order == ["first", "3"]
    assert "2" not in await texts(session)


async def test_the_same_key_queues_once_and_is_told_the_same(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    one = await hub.runs.start(session.id, "2", agent="patient", busy="queue", idempotency_key="k")
    again = await hub.runs.start(session.id, "2", agent="patient", busy="queue", idempotency_key="k")
    assert (again.id, again.status, again.replayed) == (one.id, "queued", True)
    with pytest.raises(IdempotencyError):
        await hub.runs.start(session.id, "2", agent="patient", busy="interrupt", idempotency_key="k")
    assert len(await hub.runs.queue(session.id)) == 1
    patient.go_on.set()
    await hub.runs.reply(one.id)
    late = await hub.runs.start(session.id, "2", agent="patient", busy="queue", idempotency_key="k")
    assert (late.id, late.status, late.turn, late.replayed) == (one.id, "queued", 0, True)
    assert patient.order == ["first", "2"]


async def test_of_a_queued_run_nothing_is_granted_yet(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    asked = alcove.ask(resources={"tool": ["search"]})
    run = await hub.runs.start(session.id, "2", agent="patient", busy="queue", grant=asked)
    decision = hub.runs.check(run.id, "tool", "search", "call")
    assert (decision.allowed, decision.code) == (False, "not_started")
    with pytest.raises(ConflictError, match="when it starts"):
        await hub.runs.grant(run.id)
    with pytest.raises(NotPermittedError, match="not begun"):
        await hub.runs.start((await hub.sessions.create()).id, "x", agent="patient", parent_run=run.id)
    with pytest.raises(ConflictError):
        await hub.runs.ask(run.id, "tool", "search")
    patient.go_on.set()
    await until(lambda: patient.order[-1:] == ["2"])
    await hub.runs.reply(run.id)
    assert (await hub.runs.grant(run.id)).grant.resources == {"tool": {"search": ("call", "detail")}}


async def test_a_grant_is_bounded_by_what_holds_when_its_run_starts(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    asked = alcove.ask(resources={"tool": ["search", "rm"]})
    run = await hub.runs.start(session.id, "2", agent="patient", busy="queue", grant=asked)
    await hub.runs.set_ceiling(session.id, alcove.bound(resources={"tool": ["search"]}))
    patient.go_on.set()
    await hub.runs.reply(run.id)
    assert list((await hub.runs.grant(run.id)).grant.resources["tool"]) == ["search"]


async def test_what_would_be_refused_at_once_is_refused_before_it_is_queued(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    with pytest.raises(AgentNotFoundError):
        await hub.runs.start(session.id, "x", agent="nobody", busy="queue")
    with pytest.raises(InvalidError):
        await hub.runs.start(session.id, " ", busy="queue")
    with pytest.raises(RunNotFoundError):
        await hub.runs.start(session.id, "x", busy="queue", parent_run="none")
    assert await hub.runs.queue(session.id) == []
    patient.go_on.set()


async def test_a_queued_run_that_cannot_start_any_more_fails_and_keeps_its_message(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    parent = (await hub.runs.register("host", session_id=session.id)).run
    orphan = await hub.runs.start(session.id, "2", agent="patient", busy="queue", parent_run=parent.id)
    after = await hub.runs.start(session.id, "3", agent="patient", busy="queue")
    await hub.runs.finish(parent.id)
    patient.go_on.set()
    reply = await hub.runs.reply(orphan.id)
    assert (reply.run.status, "has ended" in reply.run.error) == ("failed", True)
    assert (await hub.runs.grant(orphan.id)).refusal == "finished"
    assert (await hub.runs.reply(after.id)).text == "answer to 3"
    assert patient.order == ["first", "3"]
    assert (await texts(session))[2] == "2"
    assert [turn.status for turn in await hub.messages.turns(session.id)] == ["done", "failed", "done"]


async def test_a_run_that_cannot_be_prepared_for_whatever_reason_does_not_hold_up_those_behind_it(
    hub: Alcove, session: Handle, patient: Patient, first: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = await hub.runs.start(session.id, "2", agent="patient", busy="queue")
    after = await hub.runs.start(session.id, "3", agent="patient", busy="queue")
    prepare = hub.workshop.prepare

    async def fails(session_id: str, run_id: str, *more: Any) -> Any:
        if run_id == broken.id:
            raise RuntimeError("a bug")
        return await prepare(session_id, run_id, *more)

    monkeypatch.setattr(hub.workshop, "prepare", fails)
    patient.go_on.set()
    reply = await hub.runs.reply(broken.id)
    assert (reply.run.status, "a bug" in reply.run.error) == ("failed", True)
    assert (await hub.runs.reply(after.id)).text == "answer to 3"


async def test_a_hub_that_closes_leaves_what_waits_to_the_next_one(folder: Path) -> None:
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create()
        first = await hub.runs.start(session.id, "sleep 1000")
        late = [await hub.runs.start(session.id, f"echo {n} >> answers", busy="queue") for n in range(3)]
    async with alcove.hub.open(workspaces=folder) as hub:
        assert (await hub.runs.get(first.id)).status == "cancelled"
        assert [one.run_id for one in await hub.runs.queue(session.id)] == [run.id for run in late]
        await execute(hub.database, "UPDATE queue SET holder = replace(holder, ':', ':9')")  # as after a restart
        await hub.runs.adopt(all_quiet=False)
        for run in late:
            assert (await hub.runs.reply(run.id)).run.status == "finished"
        assert (await hub.runs.chat(session.id, "cat answers")).text == "0\n1\n2"


async def test_what_waits_in_a_session_goes_with_it(hub: Alcove, session: Handle, patient: Patient, first: Run) -> None:
    run = await hub.runs.start(session.id, "secret-words", agent="patient", busy="queue", idempotency_key="k")
    await hub.runs.steer("other-words", run_id=first.id, idempotency_key="k")
    await hub.sessions.delete(session.id)
    assert (await hub.runs.get(run.id)).status == "cancelled"
    assert (await hub.runs.get(first.id)).status == "cancelled"
    await hub.sessions.delete(session.id, purge=True)
    for word in ("secret-words", "other-words", session.id):
        assert await rows_with(hub, word) == {}


async def test_what_waits_in_an_expired_session_fails(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    run = await hub.runs.start(session.id, "2", agent="patient", busy="queue")
    await execute(hub.database, "UPDATE heads SET ends_at = 1 WHERE session_id = ?", session.id)
    patient.go_on.set()
    reply = await hub.runs.reply(run.id)
    assert (reply.run.status, "expired" in reply.run.error) == ("failed", True)
    assert await hub.runs.queue(session.id) == []


async def test_a_queued_message_waits_for_a_file_that_is_written(hub: Alcove, session: Handle) -> None:
    assert hub.workspaces
    started, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow():
        loop.call_soon_threadsafe(started.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(20)
        yield b"whole"

    writing = asyncio.create_task(hub.workspaces.write(session.id, "slow", slow()))
    await started.wait()
    run = await hub.runs.start(session.id, "cat slow", busy="queue")
    assert run.status == "queued"
    go_on.set()
    await writing
    assert (await hub.runs.reply(run.id)).text == "whole"


# -- interrupt ---------------------------------------------------------------------------------------------------------


async def test_an_interruption_ends_the_run_with_what_it_said_and_is_answered_next(
    hub: Alcove, session: Handle
) -> None:
    marker = f"marker-{session.id}"
    first = await hub.runs.start(session.id, waiting(marker, "echo so far"))
    await said(hub, first.id, "ready")
    later = await hub.runs.start(session.id, "echo later", busy="queue")
    second = await hub.runs.start(session.id, "echo second", busy="interrupt")
    assert second.status == "queued"
    assert (await hub.runs.reply(second.id)).text == "second"
    assert alive(marker) == []
    ended = await hub.runs.reply(first.id)
    assert (ended.run.status, ended.text) == ("interrupted", "so far\nready\n[interrupted]")
    assert (await hub.runs.reply(later.id)).text == "later"
    window = await session.window()
    assert [message.text for message in window.messages][1:] == [
        ended.text,
        "echo second",
        "second",
        "echo later",
        "later",
    ]
    assert await hub.messages.check(session.id) == []


async def test_several_interruptions_are_recorded_in_the_order_in_which_they_came(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    runs = [await hub.runs.start(session.id, str(n), agent="patient", busy="interrupt") for n in (2, 3, 4)]
    await until(lambda: patient.order[-1] == "4")
    patient.go_on.set()
    replies = [await hub.runs.reply(run.id) for run in (first, *runs)]
    assert [reply.run.status for reply in replies] == ["interrupted", "interrupted", "interrupted", "finished"]
    users = [message.text for message in await session.last(100) if message.role == "user"]
    assert users == ["first", "2", "3", "4"]


async def test_a_run_that_waits_for_a_person_can_be_interrupted(hub: Alcove, session: Handle) -> None:
    async def careful(context: AgentContext) -> str:
        return str(bool(await context.ask("tool", "rm")))

    hub.agents.register("careful", careful)
    asking = await hub.runs.start(session.id, "x", agent="careful")

    async def waits() -> bool:
        return (await hub.runs.get(asking.id)).status == "waiting"

    await until(waits)
    run = await hub.runs.start(session.id, "echo now", busy="interrupt")
    assert (await hub.runs.reply(run.id)).text == "now"
    assert (await hub.runs.get(asking.id)).status == "interrupted"
    [approval] = (await hub.runs.approvals(asking.id)).approvals
    assert approval.status == "cancelled"


# -- steer -------------------------------------------------------------------------------------------------------------


class Steered:
    """An agent that takes what comes when it is told to, and answers with it."""

    def __init__(self) -> None:
        self.pulls: asyncio.Queue[int | None] = asyncio.Queue()
        self.taken: list[list[str]] = []

    async def __call__(self, context: AgentContext) -> str:
        context.emit("ready")
        while (limit := await self.pulls.get()) is not None:
            self.taken.append(await (context.pull(limit) if limit else context.pull()))
            context.emit(".")
        return f"took {[text for some in self.taken for text in some]}"


@pytest.fixture
def steered(hub: Alcove) -> Steered:
    agent = Steered()
    hub.agents.register("steered", agent)
    return agent


@pytest.fixture
async def running(hub: Alcove, session: Handle, steered: Steered) -> Run:
    run = await hub.runs.start(session.id, "begin", agent="steered")
    await said(hub, run.id, "ready")
    return run


async def test_a_run_takes_messages_all_or_one_at_a_time_into_its_open_turn(
    hub: Alcove, session: Handle, steered: Steered, running: Run
) -> None:
    for n, text in enumerate(("a", "b", "c", "d"), 1):
        put = await hub.runs.steer(text, run_id=running.id, by="key:1")
        assert (put.run_id, put.n, put.waiting, put.replayed) == (running.id, n, n, False)
    assert [(one.n, one.text, one.made_by, one.returned) for one in await hub.runs.unread(running.id)] == [
        (1, "a", "key:1", False),
        (2, "b", "key:1", False),
        (3, "c", "key:1", False),
        (4, "d", "key:1", False),
    ]
    for limit in (1, 2, 0, 0, None):
        steered.pulls.put_nowait(limit)
    reply = await hub.runs.reply(running.id)
    assert (reply.text, reply.returned) == ("took ['a', 'b', 'c', 'd']", ())
    assert steered.taken == [["a"], ["b", "c"], ["d"], []]
    messages = await session.last(100)
    assert [(one.role, one.text, one.turn) for one in messages] == [
        ("user", "begin", 1),
        ("user", "a", 1),
        ("user", "b", 1),
        ("user", "c", 1),
        ("user", "d", 1),
        ("assistant", reply.text, 1),
    ]
    assert [(one.detail.metadata or {}).get("steered") for one in messages] == [None, True, True, True, True, None]
    assert await hub.messages.check(session.id) == []
    heard = [event.data for event in await hub.events.read(running.id) if event.type == "message"]
    assert [(data["seq"], data["role"]) for data in heard] == [(n, "user") for n in range(1, 6)] + [(6, "assistant")]
    assert [data["text"] for data in heard[1:5]] == ["a", "b", "c", "d"]
    events = await hub.events.read(running.id)
    assert [event.n for event in events] == list(range(1, len(events) + 1))


async def test_what_was_not_taken_is_returned_at_the_end(
    hub: Alcove, session: Handle, steered: Steered, running: Run
) -> None:
    for text in ("a", "b", "c"):
        await hub.runs.steer(text, run_id=running.id)
    steered.pulls.put_nowait(1)
    steered.pulls.put_nowait(None)
    reply = await hub.runs.reply(running.id)
    assert reply.returned == ("b", "c")
    assert await texts(session) == ["begin", "a", "took ['a']"]
    assert [(one.n, one.text, one.returned) for one in await hub.runs.unread(running.id)] == [
        (2, "b", True),
        (3, "c", True),
    ]
    returned, finished = (await hub.events.read(running.id))[-2:]
    assert (returned.type, finished.type) == ("steering.returned", "run.finished")
    assert returned.data == {"messages": [{"n": 2, "text": "b"}, {"n": 3, "text": "c"}]}


async def test_a_start_may_steer_the_run_that_goes_on(
    hub: Alcove, session: Handle, steered: Steered, running: Run
) -> None:
    run = await hub.runs.start(session.id, "more", busy="steer", idempotency_key="k")
    again = await hub.runs.start(session.id, "more", busy="steer", idempotency_key="k")
    assert (run.id, run.steered, run.replayed) == (running.id, True, False)
    assert (again.id, again.steered, again.replayed) == (running.id, True, True)
    with pytest.raises(SessionBusyError):
        await hub.runs.start(session.id, "for another", agent="shell", busy="steer")
    chatting = asyncio.create_task(hub.runs.chat(session.id, "last", busy="steer"))
    await until(lambda: _unread(hub, running, 2))
    steered.pulls.put_nowait(0)
    steered.pulls.put_nowait(None)
    assert (await chatting).text == "took ['more', 'last']"


async def test_a_run_is_found_by_session_and_agent(
    hub: Alcove, session: Handle, steered: Steered, running: Run
) -> None:
    hosted = (await hub.runs.register("host", session_id=session.id)).run
    assert (await hub.runs.steer("a", session_id=session.id, agent="steered")).run_id == running.id
    assert (await hub.runs.steer("b", session_id=session.id, agent="host")).run_id == hosted.id
    assert (await hub.runs.steer("c", session_id=session.id)).run_id == hosted.id, "the newest"
    with pytest.raises(RunNotFoundError, match="nobody"):
        await hub.runs.steer("d", session_id=session.id, agent="nobody")
    for wrong in ({}, {"run_id": running.id, "session_id": session.id}):
        with pytest.raises(InvalidError, match="which run"):
            await hub.runs.steer("e", **wrong)
    steered.pulls.put_nowait(None)


async def test_messages_for_a_run_are_bounded_and_say_so(
    hub: Alcove, session: Handle, steered: Steered, running: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STEERING_MESSAGES", 2)
    for text in ("a", "b"):
        await hub.runs.steer(text, run_id=running.id)
    with pytest.raises(QueueFullError) as caught:
        await hub.runs.steer("c", run_id=running.id)
    assert caught.value.limit == 2
    steered.pulls.put_nowait(1)
    await until(lambda: _unread(hub, running, 1))
    assert (await hub.runs.steer("c", run_id=running.id)).n == 3
    for bad in (0, 3):
        with pytest.raises(InvalidError):
            await hub.runs.pull(running.id, limit=bad)
    steered.pulls.put_nowait(None)
    assert (await hub.runs.reply(running.id)).returned == ("b", "c")


async def test_a_run_that_has_ended_or_not_begun_takes_no_message(
    hub: Alcove, session: Handle, patient: Patient, first: Run
) -> None:
    queued = await hub.runs.start(session.id, "2", agent="patient", busy="queue")
    with pytest.raises(ConflictError, match="not begun"):
        await hub.runs.steer("x", run_id=queued.id)
    patient.go_on.set()
    await hub.runs.reply(queued.id)
    for call in (hub.runs.steer("x", run_id=first.id), hub.runs.pull(first.id)):
        with pytest.raises(RunEndedError, match="finished"):
            await call
    with pytest.raises(RunNotFoundError):
        await hub.runs.steer("x", run_id="none")
    with pytest.raises(RunNotFoundError):
        await hub.runs.steer("x", session_id=session.id)
    assert await hub.runs.unread(first.id) == []


async def test_a_run_that_is_lost_returns_its_messages_too(
    hub: Alcove, session: Handle, steered: Steered, running: Run, short_lease: None
) -> None:
    await hub.runs.steer("a", run_id=running.id)
    await execute(hub.database, "UPDATE heads SET epoch = epoch + 1 WHERE session_id = ?", session.id)
    steered.pulls.put_nowait(0)  # it has lost its lease: it takes nothing
    reply = await hub.runs.reply(running.id)
    assert (reply.run.status, reply.returned) == ("lost", ("a",))
    assert steered.taken == []
    assert await texts(session) == ["begin"]
    last = [event.type for event in await hub.events.read(running.id)][-2:]
    assert last == ["steering.returned", "run.finished"]


async def test_a_message_grants_nothing(hub: Alcove, session: Handle, steered: Steered, running: Run) -> None:
    before = await hub.runs.grant(running.id)
    await hub.runs.start(session.id, "take all", busy="steer", grant=alcove.ask(resources={"tool": ["rm"]}))
    steered.pulls.put_nowait(0)
    await until(lambda: steered.taken)
    assert await hub.runs.grant(running.id) == before
    assert not hub.runs.check(running.id, "tool", "rm", "call", fresh=True)
    steered.pulls.put_nowait(None)
    await hub.runs.reply(running.id)


def _waiting(hub: Alcove, session: Handle, number: int) -> Awaitable[bool]:
    async def found() -> bool:
        return len(await hub.runs.queue(session.id)) == number

    return found()


def _unread(hub: Alcove, run: Run, number: int) -> Awaitable[bool]:
    async def found() -> bool:
        return len(await hub.runs.unread(run.id)) == number

    return found()
