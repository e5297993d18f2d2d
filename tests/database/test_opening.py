"""Databases that cannot be opened: each says what is wrong and what to do, and nothing is half-made."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from alcove import limits
from alcove.database.migrating import Migration, migrate, migrations
from alcove.database.opening import open_database
from alcove.errors import AlcoveError, ConfigurationError, DatabaseBusyError, DatabaseError, SchemaError
from alcove.testing.contract.drivers import everything, put
from alcove.testing.rows import execute


async def _refused(url: str, kind: type[AlcoveError], *words: str) -> AlcoveError:
    with pytest.raises(kind) as refused:
        await open_database(url)
    assert type(refused.value) is kind
    assert refused.value.remedy
    for word in words:
        assert word in str(refused.value)
    return refused.value


@pytest.mark.parametrize("url", ["", "alcove.db", "mysql://x", "sqlite:", "sqlite:///", "sqlite://x", "memory"])
async def test_what_is_not_a_url_is_refused(url: str) -> None:
    await _refused(url, ConfigurationError, repr(url), "sqlite:///")


async def test_a_missing_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:///{tmp_path}/a/b/alcove.db")
    await database.close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / "alcove.db").stat().st_mode & 0o777 == 0o600


async def test_a_relative_path_is_below_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    database = await open_database("sqlite:///some/alcove.db")
    monkeypatch.chdir("/")
    assert await database.write(put, "a", "v") == "a"
    assert await database.read(everything) == [("a", "v")]
    await database.close()
    assert (tmp_path / "some" / "alcove.db").exists()


async def test_a_file_that_is_no_database_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"these are my notes\n" * 1000)
    await _refused(f"sqlite:///{file}", DatabaseError, str(file), "not a SQLite database")
    assert file.read_bytes() == b"these are my notes\n" * 1000
    assert list(tmp_path.iterdir()) == [file]


async def test_a_folder_is_no_database(tmp_path: Path) -> None:
    await _refused(f"sqlite:///{tmp_path}", DatabaseError, str(tmp_path))
    (tmp_path / "file").write_bytes(b"")
    await _refused(f"sqlite:///{tmp_path}/file/alcove.db", DatabaseError, "file/alcove.db")


async def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "alcove.db"
    await (await open_database(f"sqlite:///{file}")).close()
    content = bytearray(file.read_bytes())
    content[100:8192] = os.urandom(8092)
    file.write_bytes(content)
    await _refused(f"sqlite:///{file}", DatabaseError, "damaged")


async def test_a_database_held_by_another_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BUSY_TIMEOUT_S", 0.1)
    file = tmp_path / "alcove.db"
    other = apsw.Connection(str(file))
    other.execute("CREATE TABLE t (x); BEGIN EXCLUSIVE")
    await _refused(f"sqlite:///{file}", DatabaseBusyError, "another program holds")
    other.close()
    await (await open_database(f"sqlite:///{file}")).close()


READ_ONLY = """
import asyncio, os, sys
from alcove.database import migrating, sqlite, sqlite_errors  # before root becomes somebody who may not read them
from alcove.database.opening import open_database
from alcove.errors import DatabaseError

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    asyncio.run(open_database("sqlite:///" + sys.argv[1]))
except DatabaseError as error:
    assert "writable" in error.remedy or "who may write" in error.remedy, error
else:
    raise AssertionError("it was opened")
"""


@pytest.mark.parametrize("what", ["file", "folder", "missing"])
async def test_what_this_user_may_not_write_is_named(what: str, shared_tmp: Path) -> None:
    folder = shared_tmp / "data"
    file = folder / "alcove.db"
    if what != "missing":
        await (await open_database(f"sqlite:///{file}")).close()
        file.chmod(0o666 if what == "folder" else 0o444)
    else:
        folder.mkdir()
    folder.chmod(0o555 if what != "file" else 0o777)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(file)],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    folder.chmod(0o755)
    assert done.returncode == 0, done.stderr


async def test_a_newer_schema_is_refused_by_name(database_url: str) -> None:
    database = await open_database(database_url)
    newer = (*migrations(), Migration(version=9999, name="the_future", sql="CREATE TABLE future (x TEXT);"))
    try:
        assert await migrate(database, newer) == 9999
        assert await migrate(database, newer) == 9999, "again is nothing"
        with pytest.raises(SchemaError, match=r"9999 \(the_future\)") as refused:
            await migrate(database)
        assert "newer Alcove" in refused.value.remedy
    finally:
        await execute(database, "DROP TABLE future")
        await execute(database, "DELETE FROM alcove_migrations WHERE version = 9999")
        await database.close()


async def test_an_altered_migration_is_refused_by_name(database_url: str) -> None:
    database = await open_database(database_url)
    first = migrations()[0]
    altered = Migration(version=first.version, name=first.name, sql=first.sql + "\n-- a remark\n")
    with pytest.raises(SchemaError, match="0001_sessions"):
        await migrate(database, (altered, *migrations()[1:]))
    await database.close()


async def test_a_migration_that_fails_leaves_nothing_of_itself(database_url: str) -> None:
    database = await open_database(database_url)
    broken = Migration(version=9999, name="broken", sql="CREATE TABLE half (x TEXT);\nCREATE TABLE half (x TEXT);\n")
    with pytest.raises(DatabaseError):
        await migrate(database, (*migrations(), broken))
    with pytest.raises(DatabaseError):
        await execute(database, "SELECT * FROM half")
    assert await migrate(database) == migrations()[-1].version
    await database.close()


def test_statements_are_split_at_the_ends_of_lines_and_remarks_are_left_out() -> None:
    step = Migration(
        version=1, name="x", sql="-- one;\nCREATE TABLE a (\n  x TEXT -- kept; on its line\n);\n\nSELECT ';' ;\n"
    )
    assert step.statements() == ["CREATE TABLE a (\n  x TEXT -- kept; on its line\n)", "SELECT ';'"]


def test_released_migrations_are_in_order_without_a_gap() -> None:
    assert [step.version for step in migrations()] == list(range(1, len(migrations()) + 1))


OPEN = """
import asyncio, sys
from alcove.database.opening import open_database

async def main():
    sys.stdin.readline()
    database = await open_database(sys.argv[1])
    await database.close()

asyncio.run(main())
"""


async def test_programs_that_migrate_at_once_do_it_once(fresh_url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    programs = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", OPEN, fresh_url, stdin=-1, stderr=-1, env=environment
        )
        for _ in range(4)
    ]
    errors = await asyncio.gather(*(program.communicate(b"go\n") for program in programs))
    assert [program.returncode for program in programs] == [0] * 4, errors
    database = await open_database(fresh_url)
    rows = await execute(database, "SELECT version FROM alcove_migrations ORDER BY version")
    assert [row[0] for row in rows] == [step.version for step in migrations()]
    await database.close()


async def test_postgres_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "alcove.database.postgres", raising=False)
    monkeypatch.delitem(sys.modules, "alcove.database.postgres_errors", raising=False)
    await _refused("postgresql://localhost/x", ConfigurationError, "pip install alcove[postgres]")
