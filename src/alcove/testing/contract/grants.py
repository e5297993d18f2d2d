"""What grants promise: frozen with their run, never more than their bounds, and withdrawn for everybody in a second."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from alcove import ids, limits
from alcove.clock import Clock, Micros, SystemClock
from alcove.database.op import Database
from alcove.errors import (
    AlcoveError,
    DatabaseError,
    InvalidError,
    NotPermittedError,
    RunNotFoundError,
    SessionNotFoundError,
    TooLargeError,
)
from alcove.messages.model import Draft
from alcove.messages.rules import stored
from alcove.rights.model import Rights
from alcove.rights.rules import covers
from alcove.rights.writing import bound
from alcove.runs import queries
from alcove.runs.checking import Checks, Denial
from alcove.runs.deciding import Check
from alcove.runs.granting import Asking, new_run
from alcove.runs.grants import Asked, ask
from alcove.runs.model import Ending, RunStatus
from alcove.runs.queries import Started
from alcove.sessions.heads import Fence
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute
from alcove.testing.waiting import wait_until

TOOLS = ask(resources={"tool": ["search"]}, caller="plug-in")


class _StillClock(Clock):
    """Stands still between two moves."""

    def __init__(self) -> None:
        self._at_s = 1000.0

    def now(self) -> Micros:
        return SystemClock().now()

    def monotonic(self) -> float:
        return self._at_s

    def advance(self, seconds: float) -> None:
        self._at_s += seconds


class _Place:
    """Runs in sessions of their own, without agents; `elsewhere` is another process on the same rows."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = _StillClock()
        self.here = Checks(database, self.clock)
        self.elsewhere = Checks(database, self.clock)
        self._sessions = Sessions(database)
        self._started: dict[str, Started] = {}

    async def run(
        self, asked: Asked | None = None, *, parent: str = "", declared: Rights | None = None, session: str = ""
    ) -> str:
        session = session or (await self._sessions.create()).id
        run_id = ids.new_id()
        built = await self.here._granting.build(  # pyright: ignore[reportPrivateUsage]
            asked or Asked(),
            agent="agent",
            declared=declared or Rights(),
            session_id=session,
            tenant="default",
            user_id="",
            parent_run=parent,
        )
        new = new_run(
            built.grant, built, run_id=run_id, session_id=session, holder="holder", tenant="default", user_id=""
        )
        said = stored(Draft("user", "go"))
        self._started[run_id] = await self.database.write(queries.start, new, said, None)
        return run_id

    async def finish(self, run_id: str) -> None:
        started = self._started[run_id]
        ending = Ending(status=RunStatus.FINISHED)
        fence = Fence(run_id, started.epoch)
        await self.database.write(queries.finish, started, fence, 3, ending, None, None)


def code(checks: Checks, run_id: str, *asked: str, fresh: bool = False) -> str:
    """Return what a check is answered with."""
    return checks.check(run_id, *asked, fresh=fresh).code


SEARCH = ("tool", "search", "call", "plug-in")


class GrantsContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    def place(self, database: Database) -> _Place:
        return _Place(database)

    async def test_a_check_says_yes_or_why_not(self, place: _Place) -> None:
        run_id = await place.run(TOOLS)
        for checks in (place.here, place.elsewhere):
            assert code(checks, run_id, *SEARCH) == "allowed"
            assert code(checks, run_id, "tool", "search", "", "plug-in") == "allowed"
            assert code(checks, ids.new_id(), *SEARCH) == "unknown_run"
            assert code(checks, run_id, "model", "gpt", "invoke", "plug-in") == "unknown_type"
            assert code(checks, run_id, "tool", "delete", "call", "plug-in") == "unknown_id"
            assert code(checks, run_id, "tool", "search", "drop", "plug-in") == "unknown_operation"
            assert code(checks, run_id, "tool", "search", "call", "another") == "wrong_caller"
            assert code(checks, run_id, "tool", "search", "call") == "wrong_caller"

    async def test_a_no_is_told_in_one_place_and_a_yes_is_not(self, place: _Place) -> None:
        told: list[Denial] = []
        place.here.on_denial = told.append
        run_id = await place.run(TOOLS)
        assert place.here.check(run_id, *SEARCH)
        assert not place.here.check(run_id, "tool", "delete", "call", "plug-in")
        await place.here.authorize(run_id, [Check(kind="tool", name="x", caller="plug-in")])
        assert [(denial.check.name, denial.decision.code) for denial in told] == [
            ("delete", "unknown_id"),
            ("x", "unknown_id"),
        ]

    async def test_every_part_of_a_grant_can_be_asked_about(self, place: _Place) -> None:
        asked = ask(read=["/data"], write=["/out"], network=["x.org"], state=["conversation"], storage=["plugin"])
        run_id = await place.run(asked)
        yes = [("path", "/data/a", "read"), ("path", "/out/a", "write"), ("path", "/out", "read")]
        yes += [("network", "x.org:443", "connect"), ("state", "session", "read"), ("state", "conversation", "write")]
        yes += [("storage", "plugin", "use")]
        no = [("path", "/data/a", "write"), ("path", "/data/../etc", "read"), ("path", "/", "read")]
        no += [("network", "y.org", "connect"), ("state", "user", "read"), ("storage", "workspace", "use")]
        assert {code(place.here, run_id, *one) for one in yes} == {"allowed"}
        assert not any(place.here.check(run_id, *one) for one in no)

    async def test_a_grant_is_frozen_with_its_run(self, place: _Place) -> None:
        run_id = await place.run(TOOLS)
        held = await place.here.grant(run_id)
        [[body, digest]] = await execute(
            place.database,
            "SELECT g.body, r.digest FROM grants g JOIN runs r ON r.id = g.run_id WHERE r.id = ?",
            run_id,
        )
        assert hashlib.sha256(body.encode()).hexdigest() == digest == held.digest
        held.grant.resources["tool"]["delete"] = ("call",)
        assert code(place.here, run_id, "tool", "delete", "call", "plug-in") == "unknown_id"
        assert (await place.here.grant(run_id)).grant.resources == {"tool": {"search": ("call", "detail")}}

    async def test_a_finished_run_may_nothing(self, place: _Place) -> None:
        run_id = await place.run(TOOLS)
        assert code(place.here, run_id, *SEARCH) == "allowed"
        await place.finish(run_id)
        assert code(place.elsewhere, run_id, *SEARCH) == "finished"
        assert code(place.here, run_id, *SEARCH, fresh=True) == "finished"

    async def test_a_grant_ends_when_it_was_to_end(self, place: _Place) -> None:
        run_id = await place.run(ask(resources={"tool": ["search"]}, ttl_s=3600))
        assert code(place.here, run_id, "tool", "search", "call") == "allowed"
        place.clock.advance(3600)
        assert code(place.here, run_id, "tool", "search", "call") == "allowed", "it is the database's clock that counts"
        short = await place.run(ask(resources={"tool": ["search"]}, ttl_s=0.01))

        async def expired() -> bool:
            return code(place.here, short, "tool", "search", "call", fresh=True) == "expired"

        await wait_until(expired)
        assert code(place.elsewhere, short, "tool", "search", "call") == "expired"
        assert (await place.here.grant(short)).refusal == "expired"

    async def test_a_revocation_holds_at_once_here_and_within_a_second_elsewhere(self, place: _Place) -> None:
        run_id = await place.run(TOOLS)
        for checks in (place.here, place.elsewhere):
            assert code(checks, run_id, *SEARCH) == "allowed"
        held = await place.here.revoke(run_id, reason="it misbehaved", made_by="key:1")
        assert held.refusal == "revoked"
        assert place.here.check(run_id, *SEARCH).message.endswith("it misbehaved")
        assert code(place.elsewhere, run_id, *SEARCH) == "allowed", "the control: it has not asked yet"
        assert code(place.elsewhere, run_id, *SEARCH, fresh=True) == "revoked"
        place.clock.advance(limits.DECISION_S)
        assert code(place.elsewhere, run_id, *SEARCH) == "revoked"
        assert code(Checks(place.database), run_id, *SEARCH) == "revoked", "a restart decides the same"

    async def test_revoking_twice_is_once(self, place: _Place) -> None:
        run_id = await place.run(TOOLS)
        first = await place.here.revoke(run_id, reason="one")
        again = await place.elsewhere.revoke(run_id, reason="two")
        assert [change.reason for change in again.changes] == ["one"]
        assert first.changes == again.changes
        with pytest.raises(RunNotFoundError):
            await place.here.revoke("nothing")

    async def test_narrowing_takes_away_and_never_gives(self, place: _Place) -> None:
        run_id = await place.run(ask(resources={"tool": ["search", "mail"], "model": ["gpt"]}, state=["user"]))
        await place.here.narrow(run_id, bound(resources={"tool": {"search": ["call"], "new": ["call"]}}))
        assert code(place.here, run_id, "tool", "search", "call") == "allowed"
        assert code(place.here, run_id, "tool", "search", "detail") == "unknown_operation"
        assert code(place.here, run_id, "tool", "new", "call") == "unknown_id"
        assert code(place.here, run_id, "model", "gpt", "invoke") == "unknown_type"
        assert code(place.here, run_id, "state", "user", "read") == "allowed"
        await place.here.narrow(run_id, bound(resources={"tool": ["*"]}))
        held = await place.here.grant(run_id)
        assert held.rights.resources == {"tool": {"search": ("call",)}}
        assert set(held.grant.resources) == {"tool", "model"}, "the record stays as it was written"

    async def test_a_child_gets_what_its_parent_holds_and_no_more(self, place: _Place) -> None:
        parent = await place.run(ask(resources={"tool": ["search", "mail"]}, network=["x.org"], ttl_s=100))
        await place.here.narrow(parent, bound(resources={"tool": {"search": ["call"]}}))
        child = await place.run(
            ask(resources={"tool": ["search", "mail", "rm"], "model": ["gpt"]}, network="host", ttl_s=1000),
            parent=parent,
        )
        held, above = await place.here.grant(child), await place.here.grant(parent)
        assert held.grant.resources == {"tool": {"search": ("call",)}}
        assert held.grant.network == ("x.org",)
        assert held.grant.expires_us == above.grant.expires_us
        assert covers(above.rights, held.rights)
        [[root]] = await execute(place.database, "SELECT root_run FROM runs WHERE id = ?", child)
        assert root == parent

    async def test_who_asks_for_exactly_that_gets_it_or_nothing(self, place: _Place) -> None:
        parent = await place.run(ask(resources={"tool": ["search"]}))
        await place.run(ask(resources={"tool": ["search"]}, state=[], exact=True), parent=parent)
        with pytest.raises(NotPermittedError, match="tool rm call") as refused:
            await place.run(ask(resources={"tool": ["search", "rm"]}, exact=True), parent=parent)
        assert refused.value.field == "grant"

    async def test_what_is_withdrawn_from_a_parent_is_withdrawn_from_those_below(self, place: _Place) -> None:
        top = await place.run(ask(resources={"tool": ["search", "mail"]}))
        middle = await place.run(ask(resources={"tool": ["search", "mail"]}), parent=top)
        low = await place.run(ask(resources={"tool": ["search", "mail"]}), parent=middle)
        for checks in (place.here, place.elsewhere):
            assert code(checks, low, "tool", "mail", "call") == "allowed"
        await place.here.narrow(top, bound(resources={"tool": ["search"]}))
        assert code(place.here, low, "tool", "mail", "call") == "unknown_id"
        assert code(place.here, low, "tool", "search", "call") == "allowed"
        await place.here.revoke(middle)
        assert code(place.here, low, "tool", "search", "call") == "revoked"
        assert code(place.here, top, "tool", "search", "call") == "allowed"
        place.clock.advance(limits.DECISION_S)
        assert code(place.elsewhere, low, "tool", "search", "call") == "revoked"

    async def test_nobody_vouches_for_a_child_whose_parent_is_gone(self, place: _Place) -> None:
        parent = await place.run(ask(resources={"tool": ["search"]}))
        child = await place.run(ask(resources={"tool": ["search"]}), parent=parent)
        await execute(place.database, "DELETE FROM runs WHERE id = ?", parent)
        assert code(place.here, child, "tool", "search", "call") == "revoked"

    async def test_a_parent_that_holds_nothing_hands_nothing_on(self, place: _Place) -> None:
        ended, withdrawn = await place.run(TOOLS), await place.run(TOOLS)
        await place.finish(ended)
        await place.here.revoke(withdrawn)
        for parent, word in ((ended, "ended"), (withdrawn, "revoked")):
            with pytest.raises(NotPermittedError, match=word):
                await place.run(TOOLS, parent=parent)
        with pytest.raises(RunNotFoundError):
            await place.run(TOOLS, parent="nothing")

    async def test_a_line_of_runs_has_an_end(self, place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "RUN_DEPTH", 3)
        line = [await place.run(TOOLS)]
        for _ in range(2):
            line.append(await place.run(TOOLS, parent=line[-1]))
        assert code(place.here, line[-1], *SEARCH) == "allowed"
        with pytest.raises(InvalidError):
            await place.run(TOOLS, parent=line[-1])

    async def test_a_ceiling_bounds_runs_of_a_session_and_of_those_below_it(self, place: _Place) -> None:
        sessions = Sessions(place.database)
        above = await sessions.create()
        below = await sessions.create(parent_id=above.id)
        await place.here.set_ceiling(above.id, bound(resources={"tool": ["search"]}))
        await place.here.set_ceiling(below.id, bound(network="none"))
        run_id = await place.run(ask(resources={"tool": ["search", "rm"]}, network="host"), session=below.id)
        held = await place.here.grant(run_id)
        assert (held.grant.resources, held.grant.network) == ({"tool": {"search": ("call", "detail")}}, "none")
        assert await place.here.ceiling(below.id) == bound(network="none")
        await place.here.set_ceiling(below.id, None)
        assert await place.here.ceiling(below.id) is None
        with pytest.raises(SessionNotFoundError):
            await place.here.set_ceiling("nothing", bound())

    async def test_an_agent_gets_what_it_declares_at_most(self, place: _Place) -> None:
        declared = bound(resources={"tool": {"search": ["call"], "*": ["detail"]}}, network="none", read=["/data"])
        unasked = await place.here.grant(await place.run(declared=declared))
        assert (unasked.grant.resources, unasked.grant.read) == ({"tool": {"search": ("call",)}}, ("/data",))
        asked = ask(resources={"tool": {"rm": ["call", "detail"]}}, network="host", read=["/data/a", "/etc"])
        held = await place.here.grant(await place.run(asked, declared=declared))
        assert held.grant.resources == {"tool": {"rm": ("detail",)}}
        assert (held.grant.network, held.grant.read) == ("none", ("/data/a",))

    async def test_the_resolver_has_the_last_word(self, place: _Place) -> None:
        seen: list[Asking] = []

        async def resolver(asking: Asking) -> Rights:
            seen.append(asking)
            return bound(resources={"tool": ["search"]})

        place.here.resolver = resolver
        held = await place.here.grant(await place.run(ask(resources={"tool": ["search", "rm"]})))
        assert held.grant.resources == {"tool": {"search": ("call", "detail")}}
        assert seen[0].rights.resources == {"tool": {"search": ("call", "detail"), "rm": ("call", "detail")}}
        place.here.resolver = lambda _: bound()
        assert await place.run(ask(resources={"tool": ["rm"]}))

    async def test_a_resolver_that_fails_permits_nothing(self, place: _Place) -> None:
        def broken(_: Asking) -> Rights:
            raise ValueError("no idea")

        def silent(_: Asking) -> Any:
            return None

        for resolver in (broken, silent):
            place.here.resolver = resolver
            with pytest.raises(NotPermittedError, match="resolver"):
                await place.run(TOOLS)

    async def test_without_word_from_the_database_nothing_is_allowed_after_a_second(
        self, place: _Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = await place.run(TOOLS)
        assert code(place.here, run_id, *SEARCH) == "allowed"

        def silent(*_: object) -> None:
            raise DatabaseError("gone")

        async def silent_too(*_: object) -> None:
            raise DatabaseError("gone")

        monkeypatch.setattr(place.database, "read_now", silent)
        monkeypatch.setattr(place.database, "read", silent_too)
        place.clock.advance(limits.DECISION_S * 0.9)
        assert code(place.here, run_id, *SEARCH) == "allowed"
        assert code(place.here, run_id, *SEARCH, fresh=True) == "unreachable"
        place.clock.advance(limits.DECISION_S * 0.2)
        assert code(place.here, run_id, *SEARCH) == "unreachable"
        [decision] = await place.here.authorize(run_id, [Check(kind="tool", name="search", caller="plug-in")])
        assert decision.code == "unreachable"
        monkeypatch.undo()
        assert code(place.here, run_id, *SEARCH) == "unreachable", "nobody waits twice in a second"
        place.clock.advance(limits.DECISION_S)
        assert code(place.here, run_id, *SEARCH) == "allowed"

    async def test_many_are_answered_at_once_up_to_a_limit(self, place: _Place) -> None:
        run_id = await place.run(TOOLS)
        checks = [Check(kind="tool", name=name, operation="call", caller="plug-in") for name in ("search", "rm")]
        assert [decision.code for decision in await place.elsewhere.authorize(run_id, checks)] == [
            "allowed",
            "unknown_id",
        ]
        with pytest.raises(TooLargeError):
            await place.here.authorize(run_id, checks * limits.CHECKS)

    async def test_what_is_known_is_bounded(self, place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "GRANTS_KNOWN", 3)
        monkeypatch.setattr(limits, "GRANTS_KNOWN_RESOURCES", 5)
        runs = [await place.run(ask(resources={"tool": ["a", "b"]})) for _ in range(5)]
        for run_id in runs * 2:
            assert code(place.here, run_id, "tool", "a") == "allowed"
        assert len(place.here._known) == 2  # pyright: ignore[reportPrivateUsage]

    async def test_a_grant_over_its_size_is_refused(self, place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "GRANT_BYTES", 1000)
        with pytest.raises(AlcoveError) as refused:
            await place.run(ask(resources={"tool": [f"tool-{i}" for i in range(100)]}))
        assert (refused.value.field, refused.value.limit) == ("grant", 1000)
