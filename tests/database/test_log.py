"""Room in the write-ahead log, ahead of what needs it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from alcove import limits
from alcove.database.sqlite_log import Log

FRAME = 4096 + 24


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(tmp_path / "a.db"))
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("CREATE TABLE said (id INTEGER PRIMARY KEY, text TEXT)")
    yield connection
    connection.close()


def say(connection: apsw.Connection, log: Log, count: int = 1) -> None:
    """Write in a transaction that makes room first, as the writer does."""

    def hook(_: apsw.Connection, __: str, pages: int) -> int:
        log.pages = pages
        return apsw.SQLITE_OK

    connection.set_wal_hook(hook)
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO said (text) VALUES (?)", [("x" * 3000,)] * count)
    log.make_room()
    connection.execute("COMMIT")


def size(connection: apsw.Connection) -> int:
    return os.stat(connection.filename_wal).st_size


def test_small_commits_find_room_that_was_made_before(connection: apsw.Connection) -> None:
    log = Log(connection.filename_wal)
    say(connection, log)
    before = size(connection)
    assert before > limits.LOG_ROOM_PAGES * FRAME
    sizes = {before}
    while log.pages < 300:
        say(connection, log)
        assert size(connection) > log.pages * FRAME
        sizes.add(size(connection))
    assert sizes == {before + number * limits.LOG_ROOM_PAGES * FRAME for number in range(len(sizes))}


def test_a_large_commit_makes_no_room(connection: apsw.Connection) -> None:
    log = Log(connection.filename_wal)
    for _ in range(3):
        say(connection, log, 100)
    assert size(connection) < (log.pages + limits.LOG_ROOM_PAGES + 1) * FRAME, "but for the first, before it was known"


def test_room_is_the_end_of_the_log_for_whoever_reads_it(connection: apsw.Connection, tmp_path: Path) -> None:
    log = Log(connection.filename_wal)
    for _ in range(10):
        say(connection, log)
    for name in ("a.db", "a.db-wal"):  # as after a crash: without the index that is in memory
        shutil.copy(tmp_path / name, tmp_path / name.replace("a", "b", 1))
    copy = apsw.Connection(str(tmp_path / "b.db"))
    assert copy.execute("SELECT COUNT(*) FROM said").fetchall() == [(10,)]
    assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    copy.close()


def test_where_no_room_can_be_made_sqlite_goes_on_by_itself(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "pwrite", full)
    log = Log(connection.filename_wal)
    say(connection, log)
    assert connection.execute("SELECT COUNT(*) FROM said").fetchall() == [(1,)]
    assert size(connection) < 10 * FRAME
    Log("").make_room()
