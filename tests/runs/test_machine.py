"""Whatever order runs are started, ended, cancelled and taken over in, the database and a model say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import alcove.hub
from alcove import limits
from alcove.agents.base import AgentContext
from alcove.errors import SessionBusyError, SessionNotFoundError
from alcove.runs.model import TURN_ENDS, Run
from alcove.testing.rows import execute

T = TypeVar("T")


class RunsMachine(RuleBasedStateMachine):
    """One session at a time, agents that answer when they are told to, and a list of what should have happened."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._hub = self._do(self._stack.enter_async_context(alcove.hub.open("memory://")))
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._hub.agents.register("told", self._answer)
        self._begin()

    def _begin(self) -> None:
        self._session_id = self._do(self._hub.sessions.create()).id
        self._live: Run | None = None
        self._lapsed = False
        self._texts: list[str] = []
        self._turns: list[str] = []

    async def _answer(self, context: AgentContext) -> str:
        self._answers[context.run_id] = asyncio.get_running_loop().create_future()
        return await self._answers[context.run_id]

    def _do(self, call: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(call)

    def teardown(self) -> None:
        self._do(self._stack.aclose())
        self._loop.close()

    @rule()
    def start(self) -> None:
        call = self._hub.runs.start(self._session_id, "go", agent="told")
        if self._live and not self._lapsed:
            with pytest.raises(SessionBusyError, match=self._live.id):
                self._do(call)
            return
        run = self._do(call)
        if self._live:
            self._lost()
        assert run.turn == len(self._turns) + 1
        self._live, self._lapsed = run, False
        self._texts.append("go")
        self._turns.append("open")
        self._do(self._until_asked(run.id))

    async def _until_asked(self, run_id: str) -> None:
        async with asyncio.timeout(20):
            while run_id not in self._answers:
                await asyncio.sleep(0)

    @precondition(lambda self: self._live and not self._lapsed)
    @rule()
    def finish(self) -> None:
        assert self._live
        self._answers[self._live.id].set_result("answer")
        self._end("done", "finished", "answer")

    @precondition(lambda self: self._live and not self._lapsed)
    @rule()
    def fail(self) -> None:
        assert self._live
        self._answers[self._live.id].set_exception(ValueError("no"))
        self._end("failed", "failed", "[failed: ValueError: no]")

    def _end(self, turn: str, status: str, text: str) -> None:
        assert self._live
        reply = self._do(self._hub.runs.reply(self._live.id))
        assert (reply.run.status, reply.text) == (status, text)
        self._closed(turn, text)

    def _closed(self, turn: str, text: str) -> None:
        assert self._live
        self._turns[self._live.turn - 1] = turn
        self._texts.append(text)
        self._live = None

    def _lost(self) -> None:
        assert self._live
        self._turns[self._live.turn - 1] = "lost"
        self._live, self._lapsed = None, False

    @precondition(lambda self: self._live and not self._lapsed)
    @rule()
    def cancel(self) -> None:
        assert self._live
        assert self._do(self._hub.runs.cancel(self._live.id)).status == "cancelled"
        self._closed("cancelled", "[cancelled]")

    @precondition(lambda self: self._live and not self._lapsed)
    @rule()
    def lose_the_lease(self) -> None:
        self._do(execute(self._hub.database, "UPDATE heads SET lease_until = 0 WHERE session_id = ?", self._session_id))
        self._lapsed = True

    @precondition(lambda self: self._lapsed)
    @rule()
    def answer_too_late(self) -> None:
        assert self._live
        self._answers[self._live.id].set_result("too late")
        assert self._do(self._hub.runs.reply(self._live.id)).run.status == "lost"
        self._lost()

    @precondition(lambda self: self._lapsed)
    @rule()
    def recover(self) -> None:
        assert self._do(self._hub.runs.recover()) == 1
        self._lost()

    @rule()
    def append(self) -> None:
        call = self._hub.messages.append_turn(self._session_id, "said", "reply")
        if self._live and not self._lapsed:
            with pytest.raises(SessionBusyError):
                self._do(call)
            return
        self._do(call)
        self._texts += ["said", "reply"]
        self._turns.append("done")

    @precondition(lambda self: not self._lapsed)
    @rule()
    def delete(self) -> None:
        self._do(self._hub.sessions.delete(self._session_id))
        with pytest.raises(SessionNotFoundError):
            self._do(self._hub.runs.start(self._session_id, "go", agent="told"))
        self._do(self._hub.sessions.delete(self._session_id, purge=True))
        rows = "SELECT COUNT(*) FROM runs WHERE session_id = ?"
        assert self._do(execute(self._hub.database, rows, self._session_id))[0][0] == 0
        self._begin()

    @invariant()
    def the_history_is_as_expected(self) -> None:
        messages = self._do(self._hub.messages.last(self._session_id, limits.MESSAGE_PAGE))
        assert [(one.seq, one.text) for one in messages] == list(enumerate(self._texts, 1))
        session = self._do(self._hub.sessions.get(self._session_id))
        assert (session.message_count, session.turn_count) == (len(self._texts), len(self._turns))

    @invariant()
    def every_turn_is_as_expected(self) -> None:
        found = self._do(self._hub.messages.turns(self._session_id, limit=limits.MESSAGE_PAGE))
        turns = {turn.number: turn for turn in found}
        assert [turns[number].status for number in sorted(turns)] == self._turns
        for run in self._do(self._hub.runs.list(self._session_id, limit=limits.PAGE)).runs:
            assert turns[run.turn].run_id == run.id
            assert turns[run.turn].status == (TURN_ENDS[run.status] if run.ended else "open")

    @invariant()
    def there_is_one_live_run_at_most(self) -> None:
        runs = self._do(self._hub.runs.list(self._session_id, limit=limits.PAGE)).runs
        assert [run.id for run in runs if not run.ended] == ([self._live.id] if self._live else [])

    @invariant()
    def events_are_dense_and_end_once(self) -> None:
        for run in self._do(self._hub.runs.list(self._session_id, limit=limits.PAGE)).runs:
            events = self._do(self._hub.events.read(run.id))
            assert [event.n for event in events] == list(range(1, len(events) + 1))
            ends = [event.n for event in events if event.type == "run.finished"]
            assert ends == ([events[-1].n] if run.ended else [])


def test_whatever_order_runs_come_in_the_model_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run_state_machine_as_test(RunsMachine, settings=settings(max_examples=30, stateful_step_count=25))


@pytest.mark.long
def test_whatever_order_many_runs_come_in_the_model_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run_state_machine_as_test(RunsMachine, settings=settings(max_examples=200, stateful_step_count=50))
