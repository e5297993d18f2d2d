"""What waiting for a person promises: an answer is about exactly what was asked, comes once, and grants nothing."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from alcove import limits
from alcove.agents.catalog import Catalog
from alcove.database.op import Database
from alcove.errors import (
    AlcoveError,
    ApprovalDecidedError,
    ApprovalNotFoundError,
    ConflictError,
    IdempotencyError,
    InvalidError,
    NotPermittedError,
    RunEndedError,
    RunNotFoundError,
    TooLargeError,
)
from alcove.events.service import Events
from alcove.rights.approvals import Approval
from alcove.rights.writing import bound
from alcove.runs import queries
from alcove.runs.grants import ask
from alcove.runs.hosted import HostedRuns
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute

WHAT: dict[str, Any] = {"kind": "tool", "name": "rm", "operation": "call", "arguments": {"path": "/data", "n": 1}}


class ApprovalsContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    async def runs(self, database: Database) -> HostedRuns:
        runs = _opened(database)
        await runs.register("runner", run_id="run", user_id="ana", grant=ask(resources={"tool": ["rm"]}))
        return runs

    async def test_a_run_waits_until_a_person_answers(self, runs: HostedRuns, database: Database) -> None:
        asked = await runs.ask("run", **WHAT, message="may I?")
        assert (asked.status, asked.arguments, asked.message) == ("waiting", WHAT["arguments"], "may I?")
        assert (asked.tenant, asked.user_id, asked.agent) == ("default", "ana", "runner")
        assert asked.expires_us - asked.created_us == limits.APPROVAL_S * 1_000_000
        waiting = await runs.get("run")
        assert (waiting.status, waiting.ended) == ("waiting", False)
        assert [run.id for run in (await runs.list(status="waiting", active=True)).runs] == ["run"]
        assert runs.check("run", "tool", "rm", "call", fresh=True), "one that waits has its authority"
        answering = asyncio.create_task(runs.answer("run", asked.id))
        # Another process answers.
        given = await _opened(database).approve("run", asked.id, reason="fine", by="key:1")
        assert await answering == given
        assert (bool(given), given.status, given.reason, given.decided_by) == (True, "approved", "fine", "key:1")
        assert (await runs.get("run")).status == "running"
        events = await Events(database).read("run")
        assert [event.type for event in events] == ["run.started", "approval.requested", "approval.decided"]
        assert [event.n for event in events] == [1, 2, 3]
        assert events[1].data["arguments"] == WHAT["arguments"]
        assert (events[1].data["digest"], events[2].data["status"]) == (asked.digest, "approved")

    async def test_the_first_answer_stands(self, runs: HostedRuns, database: Database) -> None:
        yes, no = (await runs.ask("run", **WHAT)).id, (await runs.ask("run", "tool", "cp")).id
        first = await runs.approve("run", yes, reason="fine", by="key:1")
        again = await runs.approve("run", yes, reason="again", by="key:2")
        assert (first.replayed, again) == (False, msgspec.structs.replace(first, replayed=True))
        with pytest.raises(ApprovalDecidedError, match="approved already"):
            await runs.deny("run", yes)
        assert not await runs.deny("run", no, reason="never")
        with pytest.raises(ApprovalDecidedError, match="denied already"):
            await runs.approve("run", no)
        assert (await runs.approval("run", no)).reason == "never"
        [[count]] = await execute(database, "SELECT COUNT(*) FROM events WHERE type = 'approval.decided'")
        assert count == 2

    async def test_of_many_answers_at_once_one_counts(self, runs: HostedRuns, database: Database) -> None:
        asked = await runs.ask("run", **WHAT)
        others = [_opened(database) for _ in range(8)]
        tries = [
            (other.approve if i % 2 else other.deny)("run", asked.id, by=f"key:{i}") for i, other in enumerate(others)
        ]
        found = await asyncio.gather(*tries, return_exceptions=True)
        [first] = [one for one in found if isinstance(one, Approval) and not one.replayed]
        for one in found:
            if isinstance(one, Approval):
                assert msgspec.structs.replace(one, replayed=False) == first
            else:
                assert isinstance(one, ApprovalDecidedError)

    async def test_an_answer_is_about_exactly_what_was_asked(self, runs: HostedRuns) -> None:
        await runs.register("runner", run_id="other", user_id="ana")
        asked = await runs.ask("run", **WHAT)
        same: dict[str, Any] = {**WHAT, "arguments": {"n": 1, "path": "/data"}}
        assert (await runs.ask("run", **same)).id == asked.id, "the order of names says nothing"
        digests = {asked.digest}
        for change in (
            {"arguments": {"path": "/data", "n": 2}},
            {"arguments": {"path": "/data", "n": "1"}},
            {"arguments": {"path": "/data", "n": True}},
            {"arguments": None},
            {"operation": ""},
            {"name": "rm "},
            {"kind": "tools"},
        ):
            one = await runs.ask("run", **_but(change))
            digests.add(one.digest)
            assert one.id != asked.id
        digests.add((await runs.ask("other", **WHAT)).digest)
        assert len(digests) == 9
        await runs.approve("run", asked.id)
        page = await runs.approvals(waiting=True)
        assert len(page.approvals) == 8, "none of the others is answered by that"
        with pytest.raises(ApprovalNotFoundError):
            await runs.approve("other", asked.id)

    async def test_what_was_answered_answers_no_second_question(self, runs: HostedRuns) -> None:
        first = await runs.ask("run", **WHAT)
        await runs.approve("run", first.id)
        again = await runs.ask("run", **WHAT)
        assert (again.id != first.id, again.status) == (True, "waiting")

    async def test_a_question_comes_once_whatever_is_repeated(self, runs: HostedRuns) -> None:
        first = await runs.ask("run", **WHAT, idempotency_key="k")
        await runs.approve("run", first.id)
        again = await runs.ask("run", **WHAT, idempotency_key="k")
        assert (again.id, again.status, again.replayed) == (first.id, "approved", True)
        assert (await runs.get("run")).status == "running"
        with pytest.raises(IdempotencyError):
            await runs.ask("run", "tool", "cp", idempotency_key="k")

    async def test_nobody_answering_in_time_is_a_no(self, runs: HostedRuns, database: Database) -> None:
        asked, swept = await runs.ask("run", **WHAT), await runs.ask("run", "tool", "cp")
        answering = asyncio.create_task(runs.answer("run", asked.id))
        await asyncio.sleep(0)
        await _past(database)
        found = await runs.approval("run", swept.id)
        assert (found.status, found.decided_us, bool(found)) == ("expired", 0, False), "before anybody wrote it"
        with pytest.raises(ApprovalDecidedError, match="expired already"):
            await runs.approve("run", asked.id)
        assert (await runs.approvals(waiting=True)).approvals == []
        late = await answering
        assert (late.status, bool(late), late.decided_us > 0) == ("expired", False, True)
        assert await runs.sweep_expired() == 1
        assert await runs.sweep_expired() == 0
        assert (await runs.get("run")).status == "running"
        assert (await runs.ask("run", **WHAT)).waiting, "it may be asked anew"

    async def test_the_same_question_may_be_asked_anew_once_its_time_has_run_out(
        self, runs: HostedRuns, database: Database
    ) -> None:
        first = await runs.ask("run", **WHAT)
        await _past(database)
        again = await runs.ask("run", **WHAT)
        assert (again.id != first.id, again.status) == (True, "waiting")
        assert (await runs.get("run")).status == "waiting"

    async def test_a_run_waits_as_long_as_one_question_is_open(self, runs: HostedRuns) -> None:
        one, two = await runs.ask("run", **WHAT), await runs.ask("run", "tool", "cp")
        await runs.deny("run", one.id)
        assert (await runs.get("run")).status == "waiting"
        await runs.approve("run", two.id)
        assert (await runs.get("run")).status == "running"

    @pytest.mark.parametrize("end", ["finish", "lost", "cancel"])
    async def test_a_run_that_ends_waits_no_more(self, runs: HostedRuns, database: Database, end: str) -> None:
        asked = await runs.ask("run", **WHAT)
        answering = asyncio.create_task(runs.answer("run", asked.id))
        await asyncio.sleep(0)
        if end == "finish":
            await runs.finish("run")
        elif end == "lost":
            await execute(database, "UPDATE runs SET due_at = 1")
            assert await runs.sweep_stale() == 1
        else:
            await database.write(queries.ask_end, "run")
        found = await answering
        assert (found.status, bool(found)) == ("cancelled", False)
        with pytest.raises(ApprovalDecidedError, match="cancelled already"):
            await runs.approve("run", asked.id)
        with pytest.raises(ConflictError if end == "cancel" else RunEndedError):
            await runs.ask("run", **WHAT)
        assert (await runs.get("run")).status != "waiting"

    async def test_no_run_answers(self, runs: HostedRuns) -> None:
        await runs.register("runner", run_id="other")
        asked = await runs.ask("run", **WHAT)
        for who in ("run:run", "run:other"):
            with pytest.raises(NotPermittedError):
                await runs.approve("run", asked.id, by=who)
        assert (await runs.approval("run", asked.id)).waiting
        assert await runs.approve("run", asked.id, by="key:1"), "the control"

    async def test_an_answer_grants_nothing(self, runs: HostedRuns) -> None:
        before = await runs.grant("run")
        asked = await runs.ask("run", "tool", "format_disk", "call")
        assert await runs.approve("run", asked.id)
        assert runs.check("run", "tool", "format_disk", "call", fresh=True).code == "unknown_id"
        assert await runs.grant("run") == before

    async def test_what_needs_approval_is_allowed_once_by_an_approval_of_exactly_that(
        self, runs: HostedRuns, database: Database
    ) -> None:
        grant = ask(resources={"tool": {"rm": ["call?", "detail"], "ls": ["call"]}}, caller="plug-in")
        await runs.register("runner", run_id="careful", grant=grant)

        def checked(name: str, operation: str, caller: str = "plug-in") -> str:
            return runs.check("careful", "tool", name, operation, caller, fresh=True).code

        async def redeemed(approval_id: str, caller: str = "plug-in", **change: Any) -> str:
            what = _but(change)
            found = await runs.redeem("careful", approval_id, *what.values(), caller=caller)
            assert found.allowed == (found.code == "allowed")
            return found.code

        assert [checked("rm", one) for one in ("call", "detail", "", "call?")] == [
            "needs_approval",
            "allowed",
            "allowed",
            "unknown_operation",
        ]
        assert checked("rm", "call", "other") == "wrong_caller"
        asked = await runs.ask("careful", **WHAT)
        assert await redeemed(asked.id) == "needs_approval", "nobody has answered"
        await runs.approve("careful", asked.id)
        for other in ({"path": "/", "n": 1}, None):
            assert await redeemed(asked.id, arguments=other) == "needs_approval"
        assert await redeemed(asked.id, operation="remove") == "unknown_operation"
        assert await redeemed(asked.id, name="cp") == "unknown_id"
        assert await redeemed(asked.id, caller="other") == "wrong_caller"
        assert await redeemed("nothing") == "needs_approval"
        assert await redeemed(asked.id, name="ls") == "allowed", "what needs none uses none up"
        found = await asyncio.gather(*(redeemed(asked.id) for _ in range(8)))
        assert sorted(found) == ["allowed", *["needs_approval"] * 7]
        assert checked("rm", "call") == "needs_approval", "each time"
        # Denied, expired, of another run, of a run that has ended or was narrowed: none of these serves.
        denied = await runs.ask("careful", **WHAT)
        await runs.deny("careful", denied.id)
        assert await redeemed(denied.id) == "needs_approval"
        late = await runs.ask("careful", **WHAT)
        await runs.approve("careful", late.id)
        await execute(database, "UPDATE approvals SET expires_at = 1 WHERE id = ?", late.id)
        assert await redeemed(late.id) == "needs_approval"
        foreign = await runs.ask("run", **WHAT)
        await runs.approve("run", foreign.id)
        assert await redeemed(foreign.id) == "needs_approval"
        good = await runs.ask("careful", **WHAT)
        await runs.approve("careful", good.id)
        await runs.narrow("careful", bound(resources={"tool": ["ls"]}))
        assert await redeemed(good.id) == "unknown_id", "a withdrawal is stronger"
        await runs.finish("careful")
        assert await redeemed(good.id) == "finished"

    async def test_a_child_of_what_needs_approval_needs_it_too(self, runs: HostedRuns) -> None:
        await runs.register("planner", run_id="top", grant=ask(resources={"tool": {"rm": ["call?"]}}))
        await runs.register("worker", run_id="below", parent_run="top", grant=ask(resources={"tool": ["rm"]}))
        assert (await runs.grant("below")).grant.resources == {"tool": {"rm": ("call?",)}}
        of_parent = await runs.ask("top", **WHAT)
        await runs.approve("top", of_parent.id)
        assert (await runs.redeem("below", of_parent.id, *WHAT.values())).code == "needs_approval"
        own = await runs.ask("below", **WHAT)
        await runs.approve("below", own.id)
        assert await runs.redeem("below", own.id, *WHAT.values())

    async def test_bad_questions_are_refused_and_change_nothing(self, runs: HostedRuns) -> None:
        loop: list[Any] = []
        loop.append(loop)
        for wrong in (
            {"kind": ""},
            {"kind": "x" * 300},
            {"name": ""},
            {"name": "a\x00b"},
            {"operation": "a\nb"},
            {"arguments": float("nan")},
            {"arguments": {"a": [float("inf")]}},
            {"arguments": "\ud800"},
            {"arguments": {1, 2}},
            {"arguments": loop},
            {"message": "\ud800"},
            {"expires_s": 0},
            {"expires_s": float("nan")},
            {"expires_s": limits.APPROVAL_S_MAX + 1},
        ):
            with pytest.raises(InvalidError):
                await runs.ask("run", **_but(wrong))
        for long in ({"arguments": "x" * limits.APPROVAL_BYTES}, {"message": "x" * 5000}, {"name": "x" * 5000}):
            with pytest.raises(TooLargeError):
                await runs.ask("run", **_but(long))
        with pytest.raises(RunNotFoundError):
            await runs.ask("nobody", **WHAT)
        with pytest.raises(ApprovalNotFoundError):
            await runs.approve("run", "nothing")
        with pytest.raises(TooLargeError):
            await runs.approve("run", "nothing", reason="x" * 2000)
        assert (await runs.get("run")).status == "running"
        assert (await runs.approvals()).approvals == []

    async def test_a_run_asks_so_much_and_no_more(self, runs: HostedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(limits.APPROVALS_WAITING):
            await runs.ask("run", "tool", f"t{number}")
        with pytest.raises(TooLargeError, match="wait"):
            await runs.ask("run", "tool", "more")
        for one in (await runs.approvals("run")).approvals:
            await runs.deny("run", one.id)
        monkeypatch.setattr(limits, "APPROVALS", limits.APPROVALS_WAITING)
        with pytest.raises(TooLargeError, match="requests"):
            await runs.ask("run", "tool", "more")

    async def test_requests_are_listed_by_what_they_are(self, runs: HostedRuns) -> None:
        await runs.register("runner", run_id="rival", tenant="rival", user_id="ana")
        made = [await runs.ask(run_id, "tool", name) for run_id, name in (("run", "a"), ("run", "b"), ("rival", "a"))]
        await runs.deny("run", made[0].id)

        async def found(**filters: Any) -> list[str]:
            return [one.id for one in (await runs.approvals(**filters)).approvals]

        ids = [one.id for one in reversed(made)]
        assert await found() == await found(user_id="ana") == ids
        assert await found(waiting=True) == ids[:2]
        assert await found(tenant="rival") == await found(run_id="rival") == ids[:1]
        assert await found(tenant="default", user_id="ana", waiting=True) == ids[1:2]
        assert await found(session_id="none") == await found(user_id="bob") == []
        first = await runs.approvals(limit=2)
        rest = await runs.approvals(limit=2, cursor=first.next_cursor)
        assert [one.id for one in (*first.approvals, *rest.approvals)] == ids
        assert rest.next_cursor is None

    async def test_a_wait_comes_to_an_end_without_an_answer(self, runs: HostedRuns) -> None:
        asked = await runs.ask("run", **WHAT)
        assert await runs.answer("run", asked.id, wait_s=0) == asked
        assert (await runs.answer("run", asked.id, wait_s=0.01)).waiting

    async def test_what_is_asked_and_answered_in_any_order_agrees_with_a_model(
        self, runs: HostedRuns, database: Database
    ) -> None:
        """A property: whatever comes, each request has one answer, and the run waits when one of them is open."""
        chance = random.Random(7)
        model: dict[str, str] = {}
        for _ in range(150):
            act = chance.choice(["ask", "approve", "deny", "expire"])
            open_ones = [name for name, status in model.items() if status == "waiting"]
            if act == "ask":
                if len(open_ones) < limits.APPROVALS_WAITING:
                    model[(await runs.ask("run", "tool", str(chance.random()))).id] = "waiting"
            elif act == "expire":
                if open_ones and chance.random() < 0.3:
                    gone = chance.choice(open_ones)
                    await execute(database, "UPDATE approvals SET expires_at = 1 WHERE id = ?", gone)
                    model[gone] = "expired"
                    if chance.random() < 0.5:
                        assert await runs.sweep_expired() >= 0
            elif model:
                name = chance.choice(list(model))
                word = {"approve": "approved", "deny": "denied"}[act]
                given = await _tried(runs, name, approved=act == "approve")
                if model[name] == "waiting":
                    model[name] = word
                assert (given is not None) == (model[name] == word)
            found = {one.id: one.status for one in (await runs.approvals("run", limit=limits.PAGE)).approvals}
            assert found == model
        await runs.sweep_expired()
        waits = "waiting" in model.values()
        assert (await runs.get("run")).status == ("waiting" if waits else "running")


def _but(change: Mapping[str, Any]) -> dict[str, Any]:
    return {**WHAT, **change}


async def _tried(runs: HostedRuns, approval_id: str, *, approved: bool) -> Approval | None:
    try:
        return await (runs.approve if approved else runs.deny)("run", approval_id)
    except AlcoveError:
        return None


def _opened(database: Database) -> HostedRuns:
    return HostedRuns(database, sessions=Sessions(database), events=Events(database), agents=Catalog())


async def _past(database: Database) -> None:
    """Make it that nobody answered in time, on databases with clocks of their own."""
    await execute(database, "UPDATE approvals SET expires_at = created_at - 1 WHERE status = 'waiting'")
