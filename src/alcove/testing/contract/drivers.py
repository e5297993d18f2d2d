"""What a driver promises: a transaction per operation, alone in its failure, durable when it is answered."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from alcove.clock import Micros
from alcove.database.op import Database, Rows, Statement, Steps
from alcove.errors import ClosedError, DatabaseError, InvalidError
from alcove.testing.rows import execute
from alcove.testing.waiting import wait_until

PUT = "INSERT INTO installation (name, value) VALUES (?, ?)"


class DriverContract:
    """Needs a `database` fixture; subclass it as it is."""

    async def test_an_operation_gets_rows_and_returns_its_record(self, database: Database) -> None:
        assert await database.write(put, "a", "1") == "a"
        assert await database.read(everything) == [("a", "1")]

    async def test_now_is_in_microseconds_and_a_retry_is_not_before_the_first(self, database: Database) -> None:
        first = await database.write(_now)
        assert 1_700_000_000_000_000 < first <= await database.write(_now)
        assert await database.read(_now) >= first

    async def test_a_failed_operation_leaves_nothing_and_its_neighbours_everything(self, database: Database) -> None:
        asked = [database.write(put_then_refuse if i % 3 == 0 else put, str(i), "v") for i in range(30)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(one, InvalidError) for one in done] == [i % 3 == 0 for i in range(30)]
        assert {row[0] for row in await database.read(everything)} == {str(i) for i in range(30) if i % 3}

    async def test_an_operation_that_fails_before_it_changed_anything_fails_alone(self, database: Database) -> None:
        asked = [database.write(refuse if i % 3 == 0 else put, str(i), "v") for i in range(9)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(one, InvalidError) for one in done] == [i % 3 == 0 for i in range(9)]

    async def test_a_constraint_error_fails_alone(self, database: Database) -> None:
        asked = [database.write(put, "same", str(i)) for i in range(5)] + [database.write(put, "other", "v")]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, DatabaseError) for one in done) == 4
        assert len(await database.read(everything)) == 2

    async def test_errors_of_python_reach_the_caller_and_undo(self, database: Database) -> None:
        with pytest.raises(ZeroDivisionError):
            await database.write(put_then, "a", "1", lambda: 1 // 0)
        assert await database.read(everything) == []

    async def test_a_statement_in_error_names_no_type_of_the_driver(self, database: Database) -> None:
        for call in (database.write, database.read):
            with pytest.raises(DatabaseError) as refused:
                await call(_wrong)
            assert type(refused.value) is DatabaseError

    async def test_many_rows_go_in_one_statement_also_none(self, database: Database) -> None:
        await database.write(put_many, [(str(i), "v") for i in range(500)])
        await database.write(put_many, [])
        assert len(await database.read(everything)) == 500

    async def test_texts_compare_by_code_point(self, database: Database) -> None:
        names = ["B", "a", "Z", "ä", "_", "-", "1", "🦊", "\uffff", "aa", "a-", "A"]
        await database.write(put_many, [(name, "") for name in names])
        rows = await execute(database, "SELECT name FROM installation ORDER BY name")
        assert [row[0] for row in rows] == sorted(names)

    async def test_a_value_that_no_database_can_hold_is_bad_input(self, database: Database) -> None:
        with pytest.raises(InvalidError):
            await database.write(put, "a", "\ud800")
        with pytest.raises(InvalidError):
            await execute(database, "UPDATE heads SET epoch = ? WHERE session_id = 'x'", 2**70)
        assert await database.write(put, "a", "fine") == "a"

    async def test_nul_comes_back_and_is_found(self, database: Database) -> None:
        texts = ["\x00", "\x1a", "\x1a0", "\x1a1", "\x1a\x00", "\x00\x1a0\x1a1\x00", "plain"]
        await database.write(put_many, [(text, text) for text in texts])
        assert {row[0] for row in await database.read(everything)} == set(texts)
        for text in texts:
            assert await execute(database, "SELECT value FROM installation WHERE name = ?", text) == [(text,)]

    async def test_a_caller_cancelled_before_pick_up_has_not_run(self, database: Database) -> None:
        task = asyncio.create_task(database.write(put, "a", "1"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await database.write(put, "b", "2")
        assert await database.read(everything) == [("b", "2")]

    async def test_after_pick_up_an_operation_runs_to_its_end_whoever_listens(self, database: Database) -> None:
        picked_up = asyncio.Event()
        loop = asyncio.get_running_loop()

        def started() -> None:
            loop.call_soon_threadsafe(picked_up.set)

        # A companion, so that the two go to the writer and the loop stays free to cancel.
        companion = asyncio.create_task(database.write(put, "b", "2"))
        task = asyncio.create_task(database.write(put_then, "a", "1", started))
        await picked_up.wait()
        task.cancel()  # in memory it may have been faster
        await asyncio.wait([task, companion])
        await wait_until(lambda: _has(database, ["a", "b"]))

    async def test_a_read_sees_one_picture_and_all_that_was_acknowledged(self, database: Database) -> None:
        for i in range(20):
            await database.write(put, f"{i:02}", "v")
            assert len(await database.read(everything)) == i + 1

    async def test_a_thread_that_waits_reads_all_that_was_acknowledged(self, database: Database) -> None:
        rows: Rows = []
        for i in range(5):
            await database.write(put, f"{i:02}", "v\x00")
            rows = database.read_now(everything)
            assert rows == await database.read(everything)
            assert len(rows) == i + 1
        assert await asyncio.to_thread(database.read_now, everything) == rows
        with pytest.raises(DatabaseError):
            database.read_now(_wrong)
        with pytest.raises(ZeroDivisionError):
            database.read_now(_divided)
        assert database.read_now(everything) == rows

    async def test_close_drains_what_was_accepted(self, database: Database) -> None:
        first = asyncio.Event()

        async def one(name: str) -> str:
            done = await database.write(put, name, "v")
            first.set()
            return done

        tasks = [asyncio.create_task(one(str(i))) for i in range(50)]
        await first.wait()
        await database.close()
        assert len(await asyncio.gather(*tasks)) == 50

    async def test_use_after_close_is_an_error_by_name_and_closing_twice_is_fine(self, database: Database) -> None:
        await database.close()
        await database.close()
        for call in (database.write, database.read):
            with pytest.raises(ClosedError):
                await call(everything)
        with pytest.raises(ClosedError):
            await database.durability()
        with pytest.raises(ClosedError):
            database.read_now(everything)

    async def test_use_after_fork_is_an_error_by_name(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)
        for call in (database.write, database.read):
            with pytest.raises(ClosedError, match="fork"):
                await call(everything)
        monkeypatch.undo()
        assert await database.read(everything) == []

    async def test_durability_says_what_is_in_force(self, database: Database) -> None:
        said = await database.durability()
        expected = {"postgres": "synchronous_commit=on", "sqlite": "journal_mode=wal synchronous=FULL"}
        assert said.startswith("sqlite" if database.kind == "memory" else database.kind)
        assert expected.get(database.kind, "journal_mode=memory") in said


async def _has(database: Database, names: list[str]) -> bool:
    return [row[0] for row in await database.read(everything)] == names


def put(now: Micros, name: str, value: str) -> Steps[str]:
    """Insert a row and return its name."""
    yield Statement(PUT, (name, value))
    return name


def put_many(now: Micros, rows: list[tuple[str, str]]) -> Steps[None]:
    """Insert rows."""
    yield Statement(PUT, rows, many=True)


def put_then(now: Micros, name: str, value: str, then: Callable[[], Any]) -> Steps[str]:
    """Insert a row and call a function."""
    yield Statement(PUT, (name, value))
    then()
    return name


def put_then_refuse(now: Micros, name: str, value: str) -> Steps[str]:
    """Insert a row and refuse, by a rule."""
    yield Statement(PUT, (name, value))
    raise InvalidError("by a rule")


def refuse(now: Micros, name: str, value: str) -> Steps[str]:
    """Refuse before anything was changed."""
    yield Statement("SELECT name FROM installation WHERE name = ?", (name,))
    raise InvalidError("by a rule")


def everything(now: Micros) -> Steps[Rows]:
    """Return all rows, by name."""
    return (yield Statement("SELECT name, value FROM installation ORDER BY name"))


def _now(now: Micros) -> Steps[Micros]:
    yield Statement("SELECT 1")
    return now


def _divided(now: Micros) -> Steps[int]:
    yield Statement("SELECT 1")
    return 1 // 0


def _wrong(now: Micros) -> Steps[Rows]:
    return (yield Statement("SELECT nothing FROM nowhere"))
