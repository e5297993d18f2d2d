"""What a preview promises on every database: it tells exactly what the sweep then does, whatever there is to do."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from alcove import limits
from alcove.clock import SECOND
from alcove.database.op import Database
from alcove.hub import Alcove
from alcove.janitor.model import Cleaned, Swept, What
from alcove.messages.model import Draft
from alcove.sessions.model import Changes
from alcove.testing.installing import installed
from alcove.testing.rows import execute, hold

_DAY = 86400 * SECOND


class PreviewContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    async def hub(self, database: Database, tmp_path: Path) -> AsyncGenerator[Alcove]:
        """An installation without folders."""
        async with installed(database, tmp_path) as hub:
            yield hub

    @pytest.mark.parametrize("seed", [1, 2, 3, *(pytest.param(n, marks=pytest.mark.long) for n in range(4, 20))])
    async def test_a_sweep_does_what_its_preview_told(self, hub: Alcove, seed: int) -> None:
        chance = random.Random(seed)
        await hub.janitor.sweep()  # it has looked at the clock
        await _sessions(hub, chance)
        await _runs(hub, chance)
        await _age(hub, chance)
        if chance.random() < 0.5:
            await execute(hub.database, "UPDATE clocks SET wall = wall - ?", chance.choice([400, -400, 3]) * _DAY)
        before = await _picture(hub)
        told = await hub.janitor.sweep(dry_run=True)
        assert await _picture(hub) == before, "looking changes nothing"
        assert _facts(await hub.janitor.sweep()) == _facts(told)
        # What a lost run held goes with the next one, and then there is nothing left to do.
        told = await hub.janitor.sweep(dry_run=True)
        assert _facts(await hub.janitor.sweep()) == _facts(told)
        assert _amount(await hub.janitor.sweep(dry_run=True)) == 0

    async def test_each_kind_of_clean_up_does_what_its_preview_told(self, hub: Alcove) -> None:
        chance = random.Random(11)
        await _sessions(hub, chance)
        await _age(hub, chance)
        for what, older_s in ((What.EMPTY, 60), (What.OLD, 4000), (What.TRASH, 100), (What.EXPIRED, None)):
            told = await hub.janitor.clean(what, older_s=older_s, dry_run=True)
            assert _groups(await hub.janitor.clean(what, older_s=older_s)) == _groups(told), what
            assert told.sessions > 0, what

    async def test_lost_runs_are_told_before_they_are_ended(self, hub: Alcove) -> None:
        for number in range(3):
            await hub.runs.register("host", run_id=f"run{number}", stale_s=600)
        await execute(hub.database, "UPDATE runs SET due_at = due_at - ? WHERE id <> 'run0'", 700 * SECOND)
        assert [(await hub.janitor.sweep(dry_run=True)).lost_runs for _ in range(2)] == [2, 2]
        assert (await hub.runs.get("run1")).status == "running"
        assert (await hub.janitor.sweep()).lost_runs == 2
        assert [(await hub.runs.get(f"run{number}")).status for number in range(3)] == ["running", "lost", "lost"]
        assert (await hub.janitor.sweep(dry_run=True)).lost_runs == 0

    async def test_a_run_without_a_session_stays_for_a_year_and_then_goes_whole(self, hub: Alcove) -> None:
        session = await hub.sessions.create()
        for name, above in (("old", ""), ("old.below", "old"), ("tree", ""), ("tree.below", "tree"), ("young", "")):
            await hub.runs.register("host", run_id=name, parent_run=above)
            await hub.runs.report(name, text="said", idempotency_key=name)
        await hub.runs.revoke("old", made_by="ana")
        await hub.runs.register("host", run_id="owned", session_id=session.id)
        for name in ("old.below", "old", "tree", "young", "owned"):
            await hub.runs.finish(name)
        # One of a tree goes on, and so does what is said of who handed it on.
        old = limits.LEDGER_DAYS * _DAY
        await execute(
            hub.database,
            "UPDATE runs SET created_at = created_at - ?, "
            "ended_at = CASE WHEN ended_at > 0 THEN ended_at - ? ELSE 0 END WHERE id <> 'young'",
            old,
            old,
        )
        assert (await hub.janitor.sweep(dry_run=True)).runs == 2
        assert (await hub.janitor.sweep()).runs == 2
        left = {run.id for run in (await hub.runs.list()).runs}
        assert left == {"tree", "tree.below", "young", "owned"}
        for table, column in (("grants", "run_id"), ("grant_changes", "run_id"), ("events", "run_id")):
            rows = await execute(hub.database, f"SELECT {column} FROM {table} WHERE {column} IN ('old', 'old.below')")
            assert rows == [], table
        assert await execute(hub.database, "SELECT key FROM idempotency WHERE scope IN ('report:old')") == []
        await hub.runs.finish("tree.below")
        assert (await hub.janitor.sweep()).runs == 0, "it ended just now"

    async def test_a_jump_of_the_clock_forgets_no_journal_and_no_run(self, hub: Alcove) -> None:
        await hub.janitor.sweep()
        await hub.runs.register("host", run_id="run")
        await hub.runs.report("run", text="said")
        await hub.runs.finish("run")
        year = 500 * _DAY
        for sql in (
            "UPDATE runs SET created_at = created_at - ?, ended_at = ended_at - ?",
            "UPDATE clocks SET wall = wall - ?, steady = steady + 0 * ?",
        ):
            await execute(hub.database, sql, year, year)
        swept = await hub.janitor.sweep()
        assert (swept.journals, swept.runs) == (0, 0)
        assert [event.type for event in await hub.events.read("run", 0, 10)] == [
            "run.started",
            "output",
            "run.finished",
        ]
        # What is old by any clock goes.
        await execute(hub.database, "UPDATE runs SET created_at = created_at - ?, ended_at = ended_at - ?", year, year)
        swept = await hub.janitor.sweep()
        assert (swept.journals, swept.runs) == (1, 1)

    async def test_a_purge_takes_what_a_host_reported(self, hub: Alcove) -> None:
        session = await hub.sessions.create()
        await hub.runs.register("host", run_id="run", session_id=session.id)
        for number in range(limits.PURGE_ROWS // 400):
            await hub.runs.report("run", text="said", messages=[Draft("user", "hi")], idempotency_key=f"k{number}")
        await hub.runs.revoke("run", made_by="ana")
        receipt = await session.delete(purge=True)
        assert (receipt.runs, receipt.messages) == (1, limits.PURGE_ROWS // 400)
        for sql in (
            "SELECT key FROM idempotency WHERE scope = 'report:run'",
            "SELECT n FROM events WHERE run_id = 'run'",
            "SELECT run_id FROM grants",
            "SELECT run_id FROM grant_changes",
            "SELECT id FROM runs",
        ):
            assert await execute(hub.database, sql) == [], sql


async def _sessions(hub: Alcove, chance: random.Random) -> None:
    made: list[str] = []
    for number in range(30):
        parent = chance.choice(made) if made and chance.random() < 0.6 else None
        session = await hub.sessions.create(
            session_id=f"s{number}",
            parent_id=parent,
            ttl_s=chance.choice([None, 600, 600, 6000]),
            lifetime_s=chance.choice([None, None, 3600]),
        )
        made.append(session.id)
        if chance.random() < 0.3:
            await session.append_turn("a", "b")
        if chance.random() < 0.1:
            await session.update(Changes(pinned=True))
        if chance.random() < 0.1:
            await hold(hub.database, session.id, "somebody", 10**9)
    for number in range(6):
        session = await hub.sessions.create(session_id=f"t{number}")
        await session.delete()


async def _runs(hub: Alcove, chance: random.Random) -> None:
    for number in range(12):
        name = f"r{number}"
        session_id = f"s{chance.randrange(30)}" if chance.random() < 0.3 else ""
        await hub.runs.register("host", run_id=name, session_id=session_id, stale_s=chance.choice([60, 10**5]))
        await hub.runs.report(name, text="said")
        if chance.random() < 0.7:
            await hub.runs.finish(name)


async def _age(hub: Alcove, chance: random.Random) -> None:
    """Make some of everything older than it is."""
    for number in range(30):
        ago = chance.choice([0, 1000, 5000]) * SECOND
        await execute(
            hub.database,
            "UPDATE heads SET last_activity = last_activity - ?, due_at = CASE WHEN due_at > 0 THEN 1 ELSE 0 END, "
            "ends_at = CASE WHEN ends_at < 9000000000000000000 THEN ends_at - ? ELSE ends_at END WHERE session_id = ?",
            ago,
            ago,
            f"s{number}",
        )
    for number in range(6):
        ago = chance.choice([0, 8]) * _DAY
        await execute(
            hub.database, "UPDATE trashings SET trashed_at = trashed_at - ? WHERE session_id = ?", ago, f"t{number}"
        )
    for number in range(12):
        ago = chance.choice([0, 8, 450]) * _DAY
        await execute(
            hub.database,
            "UPDATE runs SET created_at = created_at - ?, due_at = due_at - ?, "
            "ended_at = CASE WHEN ended_at > 0 THEN ended_at - ? ELSE 0 END WHERE id = ?",
            ago,
            ago,
            ago,
            f"r{number}",
        )


async def _picture(hub: Alcove) -> list[object]:
    tables = ("sessions", "trashings", "deeds", "runs", "events", "grants", "idempotency")
    return [sorted(await execute(hub.database, f"SELECT * FROM {table}"), key=repr) for table in tables]


def _groups(cleaned: Cleaned) -> tuple[int, set[tuple[str, int]]]:
    return cleaned.sessions, {(one.session_id, one.sessions) for one in cleaned.groups}


def _facts(swept: Swept) -> tuple[object, ...]:
    return _groups(swept.expired), _groups(swept.trash), swept.lost_runs, swept.journals, swept.values, swept.runs


def _amount(swept: Swept) -> int:
    return swept.expired.sessions + swept.trash.sessions + swept.lost_runs + swept.journals + swept.runs
