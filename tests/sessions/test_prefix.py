"""A session is found by the beginning of its id."""

from __future__ import annotations

import pytest

from alcove import limits
from alcove.database.op import Database
from alcove.database.sqlite import SqliteDatabase
from alcove.errors import InvalidError
from alcove.sessions import queries
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute


@pytest.fixture
async def sessions(database: Database) -> Sessions:
    sessions = Sessions(database)
    for name in ("a", "ab", "ab.1", "ab-1", "aB", "ab_1", "b", "AB", "ab1", "abc"):
        await sessions.create(session_id=name)
    await sessions.create(session_id="abz", tenant="acme")
    return sessions


async def test_a_prefix_finds_what_begins_with_it_in_order_of_id(sessions: Sessions) -> None:
    assert [one.id for one in await sessions.find_prefix("ab")] == ["ab", "ab-1", "ab.1", "ab1", "ab_1"]
    assert [one.id for one in await sessions.find_prefix("aB")] == ["aB"]
    assert [one.id for one in await sessions.find_prefix("b")] == ["b"]
    assert await sessions.find_prefix("abcd") == []


async def test_a_prefix_finds_only_so_many(sessions: Sessions) -> None:
    assert len(await sessions.find_prefix("a")) == limits.PREFIX_SESSIONS
    assert (await sessions.find_prefix("a"))[0].id == "a"


async def test_a_prefix_finds_sessions_of_one_tenant(sessions: Sessions) -> None:
    assert await sessions.find_prefix("abz") == []
    assert [one.id for one in await sessions.find_prefix("abz", tenant="acme")] == ["abz"]


async def test_a_prefix_finds_the_trashed_only_when_asked(sessions: Sessions, database: Database) -> None:
    await database.write(queries.trash, "ab.1", "t1", 10)
    assert [one.id for one in await sessions.find_prefix("ab.")] == []
    assert [one.id for one in await sessions.find_prefix("ab.", trashed=True)] == ["ab.1"]
    assert await sessions.find_prefix("b", trashed=True) == []


@pytest.mark.parametrize("prefix", ["", ".", "../x", "a%", "a\x00", "x" * 129])
async def test_what_begins_no_id_is_refused(sessions: Sessions, prefix: str) -> None:
    with pytest.raises(InvalidError):
        await sessions.find_prefix(prefix)


async def test_a_prefix_is_looked_up_in_the_index(sessions: Sessions, database: Database) -> None:
    if not isinstance(database, SqliteDatabase):
        return
    sql = next(queries.by_prefix(0, "default", None, "ab", False, 5)).sql
    plan = await execute(database, f"EXPLAIN QUERY PLAN {sql}", 0, "ab", "ab~", "default", 5)
    assert any("id>?" in row[3] and "id<?" in row[3] for row in plan), plan
    assert not any("SCAN" in row[3] for row in plan), plan
