"""What only the PostgreSQL driver does: its dialect, attempts, and connections that are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import given, strategies as st

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Database, Statement, Steps
from alcove.database.opening import open_database
from alcove.database.postgres import escape, translated_sql, unescape
from alcove.errors import ConfigurationError, DatabaseBusyError, DatabaseError
from alcove.testing.contract.drivers import PUT, everything, put
from alcove.testing.rows import execute

if TYPE_CHECKING:
    from database.postgres_server import PostgresServer


@pytest.fixture
def url(postgres: PostgresServer, postgres_name: str) -> str:
    return postgres.emptied(postgres_name)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = await open_database(url)
    yield database
    await database.close()


@given(st.text(st.sampled_from("\x00\x1a01ab")))
def test_an_escaped_text_has_no_nul_and_comes_back(text: str) -> None:
    assert "\x00" not in escape(text)
    assert unescape(escape(text)) == text


@given(st.lists(st.text(st.sampled_from("\x00\x1a01"), max_size=4), max_size=20))
def test_texts_that_differ_differ_escaped(texts: list[str]) -> None:
    assert len({escape(text) for text in texts}) == len(set(texts))


def test_sql_of_the_common_subset_is_said_in_the_dialect() -> None:
    assert (
        translated_sql("SELECT a FROM t WHERE b = ? AND c LIKE 'x%'")
        == b"SELECT a FROM t WHERE b = %s AND c LIKE 'x%%'"
    )
    assert translated_sql("CREATE TABLE t (a TEXT, b BIGINT) WITHOUT ROWID") == (
        b'CREATE TABLE t (a TEXT COLLATE "C", b BIGINT)'
    )


async def test_two_that_lock_each_other_out_both_succeed(database: Database) -> None:
    await database.write(put, "a", "")
    await database.write(put, "b", "")
    attempts: list[str] = []

    def crossing(now: Micros, first: str, second: str) -> Steps[None]:
        attempts.append(first)
        yield Statement("UPDATE installation SET value = value || ? WHERE name = ?", (first, first))
        yield Statement("SELECT pg_sleep(0.2)")
        yield Statement("UPDATE installation SET value = value || ? WHERE name = ?", (first, second))

    await asyncio.gather(database.write(crossing, "a", "b"), database.write(crossing, "b", "a"))
    assert len(attempts) >= 3, "one was called anew, and on a slow machine the other too"
    assert [sorted(value) for _, value in await database.read(everything)] == [["a", "b"]] * 2


async def test_a_transaction_that_never_gets_through_is_given_up(database: Database) -> None:
    attempts: list[int] = []

    def unlucky(now: Micros) -> Steps[None]:
        attempts.append(now)
        yield Statement(PUT, ("a", ""))
        yield Statement("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")

    with pytest.raises(DatabaseBusyError):
        await database.write(unlucky)
    assert len(attempts) == limits.TRANSACTION_ATTEMPTS
    assert attempts == sorted(attempts)
    assert await database.read(everything) == []


async def test_a_lock_that_is_never_released_is_named(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.write(put, "a", "")
    monkeypatch.setattr(limits, "BUSY_TIMEOUT_S", 1)
    impatient = await open_database(url)
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute("UPDATE installation SET value = 'other'")
        with pytest.raises(DatabaseBusyError, match="lock"):
            await execute(impatient, "UPDATE installation SET value = 'mine'")
        await other.rollback()
    await execute(impatient, "UPDATE installation SET value = 'mine'")
    await impatient.close()


async def test_connections_that_the_server_ended_are_replaced(database: Database, postgres: PostgresServer) -> None:
    await asyncio.gather(*(database.write(put, str(i), "") for i in range(20)))
    for _ in range(2):
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")
        done = await asyncio.gather(*(database.read(everything) for _ in range(20)))
        assert {len(rows) for rows in done} == {20}


async def test_a_connection_lost_inside_a_transaction_runs_it_once(
    database: Database, postgres: PostgresServer
) -> None:
    attempts: list[int] = []

    def shaken(now: Micros) -> Steps[None]:
        attempts.append(now)
        yield Statement(PUT, ("a", ""))
        if len(attempts) == 1:
            postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")
        yield Statement(PUT, ("b", ""))

    await database.write(shaken)
    assert len(attempts) == 2
    assert [name for name, _ in await database.read(everything)] == ["a", "b"]


async def test_a_database_that_does_not_flush_is_told_to(
    url: str, postgres: PostgresServer, postgres_name: str
) -> None:
    postgres.execute(f"ALTER DATABASE {postgres_name} SET synchronous_commit = off")
    try:
        assert postgres.execute("SHOW synchronous_commit", postgres_name) == [("off",)]
        database = await open_database(url)
        assert "synchronous_commit=on" in await database.durability()
        await database.close()
    finally:
        postgres.execute(f"ALTER DATABASE {postgres_name} RESET synchronous_commit")


async def test_a_read_that_writes_is_an_error(database: Database) -> None:
    with pytest.raises(DatabaseError):
        await database.read(put, "a", "v")


async def test_a_url_that_leads_nowhere_is_named(postgres: PostgresServer) -> None:
    for url, kind in (
        (f"postgresql://alcove@/nowhere?host={postgres.folder}", DatabaseError),
        (f"postgresql://nobody@/postgres?host={postgres.folder}", DatabaseError),
        ("postgresql://alcove@/x?host=/nonexistent", DatabaseError),
        ("postgresql://alcove:secret@/x?nonsense=1", ConfigurationError),
    ):
        with pytest.raises(kind) as refused:
            await open_database(url)
        assert refused.value.remedy
        assert "secret" not in str(refused.value)


async def test_a_database_that_cannot_hold_every_text_is_refused(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(ConfigurationError, match="LATIN1"):
        await open_database(postgres.url("latin"))
