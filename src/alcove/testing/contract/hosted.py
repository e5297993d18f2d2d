"""What runs of a host framework promise: alive while heard of, one end, and records that stay."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import pytest

from alcove import limits
from alcove.agents.catalog import Catalog
from alcove.database.op import Database
from alcove.errors import (
    AlreadyExistsError,
    IdempotencyError,
    InvalidError,
    RunEndedError,
    RunNotFoundError,
    SessionBusyError,
    SessionNotFoundError,
    TooLargeError,
    UnauthorizedError,
)
from alcove.events.service import Events
from alcove.messages.model import Draft
from alcove.messages.service import Messages
from alcove.rights.writing import bound
from alcove.runs.grants import ask
from alcove.runs.hosted import HostedRuns
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute, hold

TOOL = ask(resources={"tool": ["search"]}, labels={"query_id": "7"})


class HostedContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    def runs(self, database: Database) -> HostedRuns:
        return _opened(database)

    async def test_a_run_is_registered_under_the_hosts_own_id_once(self, runs: HostedRuns) -> None:
        made = (await runs.register("runner-1", run_id="query-42", user_id="ana", grant=TOOL)).run
        assert (made.id, made.agent, made.status, made.session_id, made.user_id) == (
            "query-42",
            "runner-1",
            "running",
            "",
            "ana",
        )
        assert runs.check("query-42", "tool", "search", "call")
        with pytest.raises(AlreadyExistsError):
            await runs.register("runner-1", run_id="query-42")
        for wrong in ("../x", "", "a b", "x" * 200):
            with pytest.raises(InvalidError):
                await runs.register("runner-1", run_id=wrong)
        with pytest.raises(InvalidError):
            await runs.register("", run_id="a")
        with pytest.raises(InvalidError):
            await runs.register("runner", stale_s=0)

    async def test_a_run_that_says_it_goes_on_goes_on_and_one_that_does_not_is_lost(
        self, runs: HostedRuns, database: Database
    ) -> None:
        quiet = (await runs.register("runner", grant=TOOL)).run
        heard = (await runs.register("runner", grant=TOOL)).run
        assert quiet.due_us - quiet.created_us == limits.STALE_S * 1_000_000
        for _ in range(3):
            await _later(database, limits.STALE_S - 60)
            assert (await runs.heartbeat(heard.id)).status == "running"
        assert await runs.sweep_stale() == 1
        assert runs.check(heard.id, "tool", "search", "call", fresh=True)
        lost = await runs.get(quiet.id)
        assert (lost.status, bool(lost.ended_us), bool(lost.error)) == ("lost", True, True)
        for call in (runs.heartbeat, runs.report, runs.finish):
            with pytest.raises(RunEndedError, match="lost"):
                await call(quiet.id)

    async def test_a_stale_run_has_lost_its_authority_before_anybody_swept(
        self, runs: HostedRuns, database: Database
    ) -> None:
        run = (await runs.register("runner", grant=TOOL)).run
        assert runs.check(run.id, "tool", "search", "call")
        await _later(database, limits.STALE_S)
        assert runs.check(run.id, "tool", "search", "call", fresh=True).code == "finished"
        with pytest.raises(RunEndedError, match="heard of"):
            await runs.heartbeat(run.id)

    async def test_what_it_says_goes_to_its_journal_and_its_sessions_history(
        self, runs: HostedRuns, database: Database
    ) -> None:
        session = await Sessions(database).create(user_id="ana")
        run = (await runs.register("runner", session_id=session.id, grant=TOOL)).run
        assert (run.session_id, run.user_id) == (session.id, "ana")
        await runs.report(run.id, text="thinking\n")
        reported = await runs.report(run.id, messages=[Draft("user", "hi"), Draft("tool", "42", tool_call_id="1")])
        assert reported.last_seq == 2
        ended = await runs.finish(run.id, text="hello")
        assert (ended.status, ended.answer_seq) == ("finished", 3)
        found = await Messages(database).last(session.id)
        assert [(message.role, message.text) for message in found] == [
            ("user", "hi"),
            ("tool", "42"),
            ("assistant", "hello"),
        ]
        events = await Events(database).read(run.id)
        assert [event.type for event in events] == [
            "run.started",
            "output",
            "message",
            "message",
            "message",
            "run.finished",
        ]
        assert [event.n for event in events] == list(range(1, 7))

    async def test_without_a_session_messages_are_in_the_journal(self, runs: HostedRuns, database: Database) -> None:
        run = (await runs.register("runner")).run
        assert (await runs.report(run.id, messages=[Draft("assistant", "hello")])).last_seq == 0
        event = (await Events(database).read(run.id))[-1]
        assert (event.type, event.data["text"], event.data["seq"]) == ("message", "hello", None)

    async def test_a_report_comes_once_whatever_is_repeated(self, runs: HostedRuns, database: Database) -> None:
        run = (await runs.register("runner")).run
        first = await runs.report(run.id, text="a", idempotency_key="k")
        assert await runs.report(run.id, text="a", idempotency_key="k") == first
        with pytest.raises(IdempotencyError):
            await runs.report(run.id, text="b", idempotency_key="k")
        assert len(await Events(database).read(run.id)) == 2

    async def test_a_run_ends_once(self, runs: HostedRuns) -> None:
        run = (await runs.register("runner", grant=TOOL)).run
        failed = await runs.fail(run.id, "no idea\x00\ud800")
        assert (failed.status, failed.error) == ("failed", "no idea\ufffd?")
        for call in (runs.finish, runs.heartbeat, runs.report):
            with pytest.raises(RunEndedError, match="failed"):
                await call(run.id)
        assert (await runs.get(run.id)).status == "failed", "its records stay"
        assert runs.check(run.id, "tool", "search", "call").code == "finished"
        with pytest.raises(InvalidError):
            await runs.finish(run.id, status="done")
        with pytest.raises(RunNotFoundError):
            await runs.finish("nothing")

    async def test_a_session_that_a_run_of_ours_holds_takes_no_messages_and_output_all_the_same(
        self, runs: HostedRuns, database: Database
    ) -> None:
        session = await Sessions(database).create()
        run = (await runs.register("runner", session_id=session.id)).run
        await hold(database, session.id, "another", 60)
        with pytest.raises(SessionBusyError):
            await runs.report(run.id, text="lost?", messages=[Draft("user", "hi")])
        await runs.report(run.id, text="kept")
        assert [event.data.get("text") for event in await Events(database).read(run.id, 1)] == ["kept"], (
            "all or nothing"
        )
        with pytest.raises(SessionBusyError):
            await runs.finish(run.id, text="answer")
        assert (await runs.finish(run.id)).status == "finished"
        with pytest.raises(SessionNotFoundError):
            await runs.register("runner", session_id="nothing")

    async def test_what_it_says_has_an_end(self, runs: HostedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "JOURNAL_HEAD_BYTES", 10)
        monkeypatch.setattr(limits, "JOURNAL_TAIL_BYTES", 0)
        run = (await runs.register("runner")).run
        await runs.report(run.id, text="0123456789")
        with pytest.raises(TooLargeError):
            await runs.report(run.id, text="x")

    async def test_a_token_tells_its_live_run_and_no_other(self, runs: HostedRuns, database: Database) -> None:
        made = await runs.register("runner", tenant="acme", grant=TOOL)
        assert len(bytes.fromhex(made.token.removeprefix("alcove_run_"))) == 32
        assert made.token.removeprefix("alcove_run_") not in str(await execute(database, "SELECT * FROM runs"))
        for reader in (runs, _opened(database)):
            bearer = await reader.of_token(made.token)
            assert (bearer.run_id, bearer.owner.tenant) == (made.run.id, "acme")
            for wrong in (made.token[:-1], made.token + "0", "alcove_run_", "", "alcove_run_" + "0" * 64):
                with pytest.raises(UnauthorizedError):
                    await reader.of_token(wrong)
        await runs.finish(made.run.id)
        with pytest.raises(UnauthorizedError):
            await runs.of_token(made.token)

    async def test_runs_are_listed_by_what_they_are_and_by_their_tree(self, runs: HostedRuns) -> None:
        top = (await runs.register("planner", run_id="top", user_id="ana", grant=TOOL)).run
        below = (await runs.register("worker", run_id="below", user_id="ana", parent_run="top", grant=TOOL)).run
        await runs.register("worker", run_id="lowest", user_id="bob", parent_run="below", grant=TOOL)
        await runs.register("worker", run_id="other", tenant="rival")
        await runs.finish("other")

        async def found(**filters: object) -> list[str]:
            page = await runs.list(**filters)  # pyright: ignore[reportArgumentType]
            return sorted(run.id for run in page.runs)

        assert await found(active=True) == ["below", "lowest", "top"]
        assert await found(active=False) == await found(status="finished") == await found(tenant="rival") == ["other"]
        assert await found(agent="worker", tenant="default", user_id="ana") == ["below"]
        assert await found(parent_run="top") == ["below"]
        assert await found(root_run="top", hosted=True) == ["below", "lowest", "top"]
        assert await found(hosted=False) == []
        assert [run.id for run in await runs.tree("top")] == ["top", "below", "lowest"]
        assert [run.id for run in await runs.tree(below.id)] == ["below", "lowest"]
        assert top.root_run == below.root_run == "top"
        first = await runs.list(active=True, limit=2)
        rest = await runs.list(active=True, limit=2, cursor=first.next_cursor)
        assert len({run.id for run in (*first.runs, *rest.runs)}) == 3
        assert rest.next_cursor is None

    async def test_a_child_of_a_hosted_run_has_no_more_than_that(self, runs: HostedRuns) -> None:
        await runs.register("planner", run_id="top", grant=TOOL)
        await runs.narrow("top", bound(resources={"tool": {"search": ["call"]}}))
        await runs.register("worker", run_id="below", parent_run="top", grant=ask(resources={"tool": ["search", "rm"]}))
        assert (await runs.grant("below")).grant.resources == {"tool": {"search": ("call",)}}
        assert (await runs.grant("below")).grant.parent == "top"


def _opened(database: Database) -> HostedRuns:
    return HostedRuns(database, sessions=Sessions(database), events=Events(database), agents=Catalog())


async def _later(database: Database, seconds: float) -> None:
    """Make it that much longer since hosted runs were heard of, on databases with clocks of their own."""
    await execute(database, "UPDATE runs SET due_at = due_at - ?", round(seconds * 1_000_000))
