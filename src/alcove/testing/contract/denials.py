"""What the audit promises of denials: each is counted, the first is told at once, and memory for them is bounded."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import threading

import pytest

from alcove import limits
from alcove.audit.model import AuditFilters
from alcove.audit.service import Audit
from alcove.database.op import Database
from alcove.testing.clock import FrozenClock
from alcove.testing.contract.audit import every_row
from alcove.testing.rows import execute


class DenialsContract:
    """Needs a `database` fixture; subclass it as it is."""

    async def test_the_first_denial_is_written_and_those_that_repeat_it_are_counted(self, database: Database) -> None:
        clock = FrozenClock()
        audit = Audit(database, "here", clock=clock)
        for _ in range(3):
            audit.denied("check.denied", "unknown_id", subject="run:r", name="search")
        await audit.flush()
        for _ in range(1000):
            audit.denied("check.denied", "unknown_id", subject="run:r", name="search")
        await audit.flush()
        assert [row.chained.times for row in (await audit.list()).rows] == [3]
        clock.move(limits.AUDIT_WINDOW_S)
        await audit.flush()
        assert sorted(row.chained.times for row in (await audit.list()).rows) == [3, 1000]
        clock.move(limits.AUDIT_WINDOW_S)
        await audit.flush()
        assert len((await audit.list()).rows) == 2
        assert (await audit.verify()).findings == ()

    async def test_what_was_counted_is_written_at_the_end(self, database: Database) -> None:
        audit = Audit(database, "here")
        for _ in range(2):
            for _ in range(5):
                audit.denied("check.denied", "unknown_id", subject="run:r")
            await audit.flush()
        await audit.close()
        assert sum(row.chained.times for row in (await audit.list()).rows) == 10

    async def test_denials_of_ever_new_things_are_counted_but_not_told_apart(self, database: Database) -> None:
        audit = Audit(database, "here")
        for i in range(5000):
            audit.denied("check.denied", "unknown_id", subject="run:loud", name=str(i))
        audit.denied("check.denied", "unknown_id", subject="run:other", name="x")
        await audit.flush()
        loud = await every_row(audit, AuditFilters(subject="run:loud"))
        assert len(loud) == limits.AUDIT_DISTINCT_OF_SUBJECT + 1
        assert sum(row.chained.times for row in loud) == 5000
        assert "more" in loud[0].told or "more" in loud[-1].told
        assert len(await every_row(audit, AuditFilters(subject="run:other"))) == 1

    async def test_memory_for_denials_is_bounded_and_none_is_lost_while_nothing_can_be_written(
        self, database: Database
    ) -> None:
        audit = Audit(database, "here")
        await execute(database, "ALTER TABLE audit RENAME TO away")
        many = 3 * limits.AUDIT_DISTINCT
        for i in range(many):
            audit.denied("check.denied", "unknown_run", subject=f"run:{i}")
        with pytest.raises(Exception, match="audit"):
            await audit.flush()
        assert audit.waiting <= limits.AUDIT_DISTINCT + 1
        await execute(database, "ALTER TABLE away RENAME TO audit")
        await audit.flush()
        assert int((await execute(database, "SELECT SUM(times) FROM audit"))[0][0]) == many
        assert (await audit.verify()).findings == ()

    async def test_any_thread_may_tell_of_a_denial(self, database: Database) -> None:
        audit = Audit(database, "here")

        def deny() -> None:
            for _ in range(1000):
                audit.denied("check.denied", "unknown_id", subject="run:r")

        threads = [threading.Thread(target=deny) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        await audit.close()
        assert sum(row.chained.times for row in (await audit.list()).rows) == 4000

    async def test_whatever_was_asked_for_can_be_written_down(self, database: Database) -> None:
        audit = Audit(database, "here")
        for text in ("\x00", "\udcff", "x" * 100_000, "é\u2028\x1b[31m", "\x1a"):
            audit.denied("check.denied", "unknown_run", subject=f"run:{text}", tenant=text, who=text, name=text)
        await audit.flush()
        rows = (await audit.list()).rows
        assert len(rows) == 5
        assert all(len(row.told["name"]) <= limits.AUDIT_WORD_CHARS for row in rows)  # pyright: ignore[reportArgumentType]
        assert (await audit.verify()).findings == ()
