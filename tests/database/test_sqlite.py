"""What only the SQLite driver does: shared commits, the writer thread, and disks that fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from alcove import ids, limits
from alcove.clock import Micros
from alcove.database.op import Database, Rows, Statement, Steps
from alcove.database.opening import open_database
from alcove.database.sqlite import SqliteDatabase
from alcove.errors import (
    ClosedError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseFailedError,
    DatabaseFullError,
    InvalidError,
)
from alcove.messages.service import Messages
from alcove.sessions.service import Sessions
from alcove.testing.clock import FrozenClock
from alcove.testing.contract.drivers import PUT, everything, put, put_many, put_then_refuse
from alcove.testing.rows import execute
from alcove.testing.waiting import wait_until
from database.disk import Disk


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "alcove.db")


@pytest.fixture
async def disk(path: str) -> AsyncIterator[Disk]:
    with Disk() as disk:
        yield disk


@pytest.fixture
async def database(disk: Disk, path: str) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:///{path}")
    yield database
    disk.sync_fails = ""  # SQLite ignores failures while it closes, apsw does not
    await database.close()


async def _gather(database: Database, names: list[str], operation: Any = put) -> list[Any]:
    asked = [database.write(operation, name, "v") for name in names]
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_callers_at_once_share_a_flush(disk: Disk, database: Database) -> None:
    before = disk.syncs()
    await _gather(database, [str(i) for i in range(limits.GROUP_COMMIT_OPERATIONS)])
    assert disk.syncs() - before <= 2
    before = disk.syncs()
    for i in range(10):
        await database.write(put, f"alone {i}", "v")
    assert disk.syncs() - before >= 10, "who is alone waits for nobody, and is flushed too"


async def test_one_refusal_does_not_cost_the_others_a_flush_each(disk: Disk, database: Database) -> None:
    before = disk.syncs()
    asked = [database.write(put_then_refuse if i == 30 else put, str(i), "v") for i in range(60)]
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(one, InvalidError) for one in done] == [i == 30 for i in range(60)]
    assert disk.syncs() - before <= 2


async def test_every_setting_is_in_force(database: Database) -> None:
    settings = {"journal_mode": "wal", "synchronous": 2, "trusted_schema": 0, "journal_size_limit": 64 * limits.MIB}
    for name, value in settings.items():
        assert await execute(database, f"PRAGMA {name}") == [(value,)]
    [[readers]] = await database.read(_query_only)
    assert readers == 1


async def test_a_statement_is_not_planned_anew_for_each_value(path: str) -> None:
    database = await open_database(f"sqlite:///{path}")
    assert isinstance(database, SqliteDatabase)
    connection = database._connect()
    assert connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) == 1
    connection.close()
    await database.close()


def _query_only(now: Micros) -> Steps[Rows]:
    return (yield Statement("PRAGMA query_only"))


async def test_now_is_what_the_clock_says(tmp_path: Path) -> None:
    clock = FrozenClock()
    database = await open_database(f"sqlite:///{tmp_path / 'a.db'}", clock=clock)
    made = await Sessions(database).create(ttl_s=60)
    assert made.created_us == clock.at
    clock.move(60)
    assert (await Sessions(database).get(made.id)).status == "expired"
    await database.close()


async def test_a_failed_flush_stops_acknowledgements_until_it_is_opened_again(
    disk: Disk, database: Database, path: str
) -> None:
    session_id = (await Sessions(database).create()).id
    messages = Messages(database)
    await messages.append_turn(session_id, "safe", "safe")
    disk.sync_fails = "-wal"
    asked = [messages.append_turn(session_id, "a", "b") for _ in range(10)]
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(one) for one in done} == {DatabaseFailedError}
    disk.sync_fails = ""
    for _ in range(2):
        with pytest.raises(DatabaseFailedError, match="restart"):
            await messages.append_turn(session_id, "a", "b")
    assert len(await messages.last(session_id)) == 2, "what is safe can be read"
    await database.close()

    again = await open_database(f"sqlite:///{path}")
    messages = Messages(again)
    kept = await messages.last(session_id, 100)
    assert [one.content for one in kept[:2]] == ["safe", "safe"]
    appended = await messages.append_turn(session_id, "c", "d")
    assert appended.first_seq == kept[-1].seq + 1
    await again.close()


async def test_a_lone_append_hears_of_a_failed_flush_too(disk: Disk, database: Database) -> None:
    for i in range(50):  # so that commits are known to be fast, and run where they are
        await database.write(put, str(i), "v")
    disk.sync_fails = "-wal"
    with pytest.raises(DatabaseFailedError):
        await database.write(put, "lost", "v")
    assert len(await database.read(everything)) == 50


async def test_a_failed_flush_of_a_checkpoint_stops_acknowledgements(
    disk: Disk, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHECKPOINT_PAGES", 1)
    disk.sync_fails = ".db"
    assert await database.write(put, "safe", "v") == "safe", "it is in the log, which was flushed"
    await wait_until(lambda: _refused(database))
    disk.sync_fails = ""
    assert await _refused(database)
    assert "safe" in {row[0] for row in await database.read(everything)}


async def _refused(database: Database) -> bool:
    try:
        await database.write(put, ids.new_id(), "v")
    except DatabaseFailedError:
        return True
    return False


async def test_a_disk_that_fills_at_the_commit_acknowledges_nothing_and_works_again(
    disk: Disk, database: Database
) -> None:
    await _gather(database, ["a", "b"])
    disk.full = True
    done = await _gather(database, [str(i) for i in range(10)])
    assert {type(one) for one in done} == {DatabaseFullError}
    assert [row[0] for row in await database.read(everything)] == ["a", "b"]
    disk.full = False
    assert await _gather(database, ["c", "d"]) == ["c", "d"]
    assert [row[0] for row in await database.read(everything)] == ["a", "b", "c", "d"]


async def test_a_statement_that_needs_more_space_than_there_is_fails_alone(database: Database) -> None:
    [[pages]] = await execute(database, "PRAGMA page_count")
    await execute(database, f"PRAGMA max_page_count = {pages + 20}")
    large = [(f"large {i}", "x" * 100_000) for i in range(10)]
    done = await asyncio.gather(
        *(database.write(put, str(i), "v") for i in range(5)),
        database.write(put_many, large),
        *(database.write(put, str(i), "v") for i in range(5, 10)),
        return_exceptions=True,
    )
    assert [type(one) for one in done] == [str] * 5 + [DatabaseFullError] + [str] * 5
    assert len(await database.read(everything)) == 10


async def test_a_writer_waits_for_another_program_and_the_loop_goes_on(database: Database, path: str) -> None:
    for i in range(50):
        await database.write(put, str(i), "v")
    other = _held(path)
    task = asyncio.create_task(database.write(put, "late", "v"))
    for _ in range(50):
        await asyncio.sleep(0)
        assert len(await database.read(everything)) == 50, "readers wait for nobody"
    assert not task.done()
    other.execute("COMMIT")
    assert await task == "late"
    other.close()


async def test_another_program_that_does_not_let_go_is_named(
    database: Database, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BUSY_TIMEOUT_S", 0.2)
    other = _held(path)
    done = await _gather(database, ["a", "b"])
    assert {type(one) for one in done} == {DatabaseBusyError}
    assert all(one.retryable and one.remedy for one in done)
    other.execute("COMMIT")
    assert await _gather(database, ["a", "b"]) == ["a", "b"]
    other.close()


async def _handed_over() -> None:
    """Let the tasks submit what they have, and the round of the loop that follows give it to the writer."""
    for _ in range(3):
        await asyncio.sleep(0)


def _held(path: str) -> apsw.Connection:
    other = apsw.Connection(path)
    other.execute("BEGIN IMMEDIATE")
    return other


async def test_more_operations_than_the_queue_takes_are_refused(
    database: Database, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WRITE_QUEUE", 5)
    done = await _gather(database, [str(i) for i in range(8)])
    assert [isinstance(one, DatabaseBusyError) for one in done] == [False] * 5 + [True] * 3
    assert await _gather(database, ["a", "b"]) == ["a", "b"]


async def test_a_cancelled_operation_of_a_waiting_group_has_not_run(database: Database, path: str) -> None:
    other = _held(path)
    tasks = [asyncio.create_task(database.write(put, str(i), "v")) for i in range(4)]
    await _handed_over()
    tasks[1].cancel()
    await asyncio.sleep(0)
    other.execute("COMMIT")
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(done[1], asyncio.CancelledError)
    assert [row[0] for row in await database.read(everything)] == ["0", "2", "3"]
    other.close()


async def test_an_operation_picked_up_runs_also_when_its_group_goes_again(database: Database, path: str) -> None:
    started = threading.Event()
    cancelled = threading.Event()

    def hesitating(now: Micros, name: str) -> Steps[str]:
        yield Statement(PUT, (name, "v"))
        started.set()
        cancelled.wait(10)
        return name

    other = _held(path)  # so that the group goes to the thread, and the loop is free to cancel meanwhile
    task = asyncio.create_task(database.write(hesitating, "a"))
    rest = [asyncio.create_task(database.write(put_then_refuse, name, "v")) for name in "bc"]
    await _handed_over()
    other.execute("COMMIT")
    other.close()
    assert await asyncio.to_thread(started.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    cancelled.set()
    await asyncio.gather(*rest, return_exceptions=True)
    assert [row[0] for row in await database.read(everything)] == ["a"]


async def test_a_read_that_writes_is_an_error(database: Database) -> None:
    with pytest.raises(DatabaseError):
        await database.read(put, "a", "v")
    assert await database.read(everything) == []


async def test_a_reader_is_not_kept_waiting_by_a_writer_and_sees_whole_commits(database: Database) -> None:
    seen: set[int] = set()
    writers = asyncio.gather(*(database.write(put_many, [(f"{i}.{j}", "") for j in range(7)]) for i in range(40)))
    while not writers.done():
        seen.add(len(await database.read(everything)))
        await asyncio.sleep(0)
    await writers
    assert all(count % 7 == 0 for count in seen)


async def test_the_files_are_their_owners_alone(database: Database, path: str) -> None:
    await database.write(put, "a", "v")
    modes = {file.name: file.stat().st_mode & 0o777 for file in Path(path).parent.iterdir()}
    assert modes == dict.fromkeys(("alcove.db", "alcove.db-wal", "alcove.db-shm"), 0o600)


async def test_closing_leaves_one_file_and_the_callers_of_other_loops_their_answers(
    database: Database, path: str
) -> None:
    rows: Rows = []

    def elsewhere() -> None:
        async def one() -> None:
            await asyncio.gather(*(database.write(put, str(i), "v") for i in range(20)))
            rows.extend(await database.read(everything))

        asyncio.run(one())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert len(rows) == 20
    await database.close()
    with pytest.raises(ClosedError):
        await database.write(put, "a", "v")
    assert [file.name for file in Path(path).parent.iterdir()] == ["alcove.db"]
