"""What callers without an event loop see: records, handles, iterators, errors, from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import assert_type

import pytest

import alcove
import alcove.sync
from alcove.agents.base import AgentContext
from alcove.errors import ClosedError, ConfigurationError, ConflictError, SessionNotFoundError
from alcove.events.model import Event
from alcove.sessions.model import Page
from alcove.sync.doors import BlockingContext, BlockingIterator, door_class
from alcove.sync.portal import Portal


async def count(context: AgentContext) -> AsyncIterator[str]:
    for number in range(int(context.message)):
        yield f"{number}\n"
        await asyncio.sleep(0)


@pytest.fixture
def hub() -> Iterator[alcove.sync.Alcove]:
    with alcove.sync.open("memory://") as hub:
        hub.agents.register("count", count)
        yield hub


def test_a_script_reads_as_the_async_one_without_await(hub: alcove.sync.Alcove) -> None:
    session = assert_type(hub.sessions.create(user_id="ana", metadata={"channel": "web"}), alcove.sync.Handle)
    appended = session.append_turn("What is here?", "Nothing.")
    assert (appended.first_seq, appended.last_seq) == (1, 2)
    child = assert_type(session.spawn(title="research"), alcove.sync.Handle)
    assert assert_type(child.parent_id, str) == session.id
    assert [message.text for message in session.last(2)] == ["What is here?", "Nothing."]
    live, made = assert_type(hub.sessions.live("bo"), tuple[alcove.sync.Handle, bool])
    assert made
    assert isinstance(live, alcove.sync.Handle)
    assert assert_type(hub.sessions.list(user_id="ana"), Page).sessions[0].id == child.id
    assert "create" in dir(hub.sessions)
    assert (type(session).append_turn.__doc__ or "").startswith("Append what a user said")


def test_an_iterator_is_a_for_loop(hub: alcove.sync.Alcove) -> None:
    session = hub.sessions.create()
    events = assert_type(hub.runs.stream(session.id, "3", agent="count"), BlockingIterator[Event])
    said = [str(event.data["text"]) for event in events if event.type == "output"]
    assert "".join(said) == "0\n1\n2\n"
    assert list(events) == [], "an iterator that has ended stays ended"
    assert [event.type for event in session.stream("1", agent="count")][-1] == "run.finished"


def test_an_error_ends_an_iterator_and_is_raised_where_it_is_read(hub: alcove.sync.Alcove) -> None:
    events = hub.runs.stream("nobody", "3", agent="count")
    with pytest.raises(SessionNotFoundError):
        next(events)
    assert next(events, None) is None


def test_leaving_a_loop_early_ends_the_listener_and_not_the_run(hub: alcove.sync.Alcove) -> None:
    session = hub.sessions.create()
    events = hub.runs.stream(session.id, "50", agent="count")
    next(events)
    events.close()
    events.close()
    assert list(events) == []
    assert hub.runs.reply(hub.runs.list(session.id).runs[0].id).run.status == "finished"


def test_an_iterator_that_was_never_begun_can_be_closed_or_forgotten(hub: alcove.sync.Alcove) -> None:
    hub.runs.stream("nobody", "3").close()
    hub.runs.stream("nobody", "3")


def test_errors_are_those_of_the_async_hub(hub: alcove.sync.Alcove) -> None:
    with pytest.raises(SessionNotFoundError):
        hub.sessions.get("nobody")
    with pytest.raises(TypeError):
        hub.sessions.get()  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigurationError):
        alcove.sync.open("nonsense://")
    assert [thread.name for thread in threading.enumerate()].count("alcove-portal") == 1, "the fixture's"


def test_many_threads_append_at_once(tmp_path: Path) -> None:
    with alcove.sync.open(f"sqlite:///{tmp_path}/a.db") as hub, ThreadPoolExecutor(8) as threads:
        session = hub.sessions.create()
        appended = threads.map(session.append_turn, map(str, range(200)), ["x"] * 200)
        assert sorted(one.last_seq for one in appended) == list(range(2, 402, 2))


async def test_it_works_where_a_loop_already_runs(hub: alcove.sync.Alcove) -> None:
    assert hub.sessions.create().id


def test_a_hub_can_be_used_without_a_with_statement() -> None:
    hub = assert_type(alcove.sync.open("memory://"), alcove.sync.Alcove)
    assert hub.sessions.create().id
    hub.close()


def test_what_is_closed_says_so(hub: alcove.sync.Alcove) -> None:
    session = hub.sessions.create()
    events = hub.runs.stream(session.id, "3", agent="count")
    next(events)
    hub.close()
    hub.close()
    for call in (hub.sessions.list, lambda: session.last(1), lambda: next(events), events.close):
        with pytest.raises(ClosedError):
            call()


def test_a_call_that_waits_when_the_hub_is_closed_is_answered(hub: alcove.sync.Alcove) -> None:
    begun = threading.Event()

    async def slow(_: AgentContext) -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    hub.agents.register("slow", slow)
    session = hub.sessions.create()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(hub.runs.chat, session.id, "x", agent="slow")
        begun.wait()
        hub.close()
        with contextlib.suppress(ClosedError):
            assert waiting.result(timeout=30).run.status == "cancelled"


def test_a_call_from_the_hubs_own_loop_is_refused_and_not_stuck(hub: alcove.sync.Alcove) -> None:
    async def inside(_: AgentContext) -> str:
        with pytest.raises(ConflictError, match="own event loop"):
            hub.sessions.list()
        with pytest.raises(ConflictError):
            hub.close()
        return "refused"

    hub.agents.register("inside", inside)
    assert hub.runs.chat(hub.sessions.create().id, "x", agent="inside").text == "refused"


class Later:
    """Something that a service of tomorrow might have."""

    async def numbers(self) -> AsyncIterator[int]:
        # The limit spans two steps, so both have to come from one task.
        async with asyncio.timeout(60):
            yield 1
            yield 2

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncGenerator[str]:
        with contextlib.suppress(KeyError):
            yield "held"

    async def nested(self) -> tuple[Later, int]:
        return Later(), 1


Later.__module__ = "alcove.later"


def test_iterators_contexts_and_nested_doors_of_any_async_class() -> None:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncGenerator[Later]:
        yield Later()

    portal = Portal()
    later = door_class(Later)(portal, portal.open(opened))
    assert list(later.numbers()) == [1, 2]
    with later.held() as held:
        assert held == "held"
        raise KeyError
    assert isinstance(later.held(), BlockingContext)
    again, number = later.nested()
    assert list(again.numbers()) == [1, 2]
    assert number == 1
    portal.close()


def script(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


FORKED = """
import os, alcove.sync
hub = alcove.sync.open("memory://")
session = hub.sessions.create()
events = hub.runs.stream(session.id, "x")
child = os.fork()
if child == 0:
    for call in (hub.sessions.list, lambda: session.last(1), lambda: next(events)):
        try: call()
        except alcove.ClosedError as error: print(error.message, flush=True)
    hub.close()
    del events
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(session.append_turn("a", "b").last_seq)
"""


def test_a_forked_child_is_told_and_its_parent_goes_on() -> None:
    done = script(FORKED)
    assert done.stdout.splitlines() == ["the hub was opened before a fork"] * 3 + ["2"], done.stderr


INTERRUPTED = """
import asyncio, os, signal, threading, alcove.sync
ended = threading.Event()
async def slow(context):
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    await asyncio.sleep(60)
with alcove.sync.open("memory://") as hub:
    hub.agents.register("slow", slow)
    session = hub.sessions.create()
    try: hub.runs.chat(session.id, "x", agent="slow")
    except KeyboardInterrupt: print("interrupted")
    print([run.status for run in hub.runs.list(session.id).runs])
print("closed")
"""


def test_ctrl_c_ends_the_wait_and_the_hub_goes_on() -> None:
    done = script(INTERRUPTED)
    assert done.stdout.splitlines() == ["interrupted", "['running']", "closed"], done.stderr


LEFT_OPEN = """
import alcove.sync, sys
hub = alcove.sync.open(f"sqlite:///{sys.argv[1]}")
hub.sessions.create()
"""


def test_a_hub_left_open_is_closed_at_the_end_of_the_interpreter(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEFT_OPEN, str(tmp_path / "a.db")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"], "SQLite takes its log in when it is closed"


def test_a_script_answers_what_a_run_asks(hub: alcove.sync.Alcove) -> None:
    hub.runs.register("runner", run_id="r")
    asked = hub.runs.ask("r", "tool", "rm", "call", {"path": "/data"})
    assert [one.id for one in hub.runs.approvals(waiting=True).approvals] == [asked.id]
    assert hub.runs.approve("r", asked.id, reason="fine")
    assert hub.runs.answer("r", asked.id).reason == "fine"
