"""What listings promise on every database: filters, stable pages, and that no message is read for them."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from alcove import ids, limits
from alcove.database.op import Database
from alcove.errors import InvalidError
from alcove.sessions import queries
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute, idle

SCALARS = (None, True, False, 0, 1, 1.5, -3, "", "1", "true", "null", "ä\x00", "x" * 200)


class ListingContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    def sessions(self, database: Database) -> Sessions:
        """The service under test."""
        return Sessions(database)

    async def test_a_listing_has_the_newest_first_and_only_the_tenants(self, sessions: Sessions) -> None:
        made = [(await sessions.create(session_id=f"s{i}")).id for i in range(5)]
        await sessions.create(tenant="acme")
        page = await sessions.list()
        assert [one.id for one in page.sessions] == made[::-1]
        assert page.next_cursor is None
        assert page.sessions[0] == await sessions.get("s4")

    async def test_every_filter_narrows_alone_and_together(self, sessions: Sessions, database: Database) -> None:
        a = await sessions.create(session_id="a", user_id="ana", app="shop", metadata={"n": 1, "m": "x"})
        await sessions.create(session_id="b", user_id="ana", app="desk", parent_id="a", metadata={"n": 1})
        await sessions.create(session_id="c", user_id="ben", app="shop", parent_id="b", ttl_s=60)
        await sessions.create(session_id="d", user_id="ben", app="desk", metadata={"n": 2, "m": "x"})
        await idle(database, "c", 100)
        await database.write(queries.trash, "d", "t1", 10)
        since = (await sessions.get("b")).last_activity_us
        expected: list[tuple[dict[str, Any], str]] = [
            ({}, "cba"),
            ({"user_id": "ana"}, "ba"),
            ({"user_id": ""}, ""),
            ({"app": "shop"}, "ca"),
            ({"parent_id": "a"}, "b"),
            ({"parent_id": ""}, "a"),
            ({"root_id": "a"}, "cba"),
            ({"status": "active"}, "ba"),
            ({"status": "expired"}, "c"),
            ({"status": "trashed"}, "d"),
            ({"metadata": {"n": 1}}, "ba"),
            ({"metadata": {"n": 1, "m": "x"}}, "a"),
            ({"metadata": {"m": "x"}, "status": "trashed"}, "d"),
            ({"active_since_us": since}, "b"),
            ({"active_before_us": since}, "ca"),
            ({"user_id": "ana", "app": "shop", "metadata": {"m": "x"}, "root_id": "a", "status": "active"}, "a"),
            ({"user_id": "ben", "app": "desk"}, ""),
        ]
        assert a.last_activity_us < since
        for filters, found in expected:
            page = await sessions.list(**filters)
            assert "".join(one.id for one in page.sessions) == found, filters

    async def test_metadata_is_found_by_exactly_its_value(self, sessions: Sessions) -> None:
        for i, value in enumerate(SCALARS):
            await sessions.create(session_id=f"s{i}", metadata={"v": value})
        await sessions.create(metadata={"v": [1]})
        await sessions.create(metadata={"v": {"a": 1}})
        for i, value in enumerate(SCALARS):
            page = await sessions.list(metadata={"v": value})
            assert [one.id for one in page.sessions] == [f"s{i}"], repr(value)
        assert [one.id for one in (await sessions.list(metadata={"v": 1.0})).sessions] == ["s4"]

    async def test_a_filter_that_cannot_be_answered_is_refused(self, sessions: Sessions) -> None:
        long = "x" * limits.METADATA_INDEXED_BYTES
        many = {f"n{i}": i for i in range(limits.METADATA_NAMES + 1)}
        await sessions.create(metadata={"v": long})
        bad: list[dict[str, Any]] = [
            {"metadata": {"v": long}},
            {"metadata": many},
            {"metadata": {"v": [1]}},
            {"status": "asleep"},
            {"limit": 0},
            {"limit": limits.PAGE + 1},
            {"cursor": "nonsense"},
            {"cursor": "ä"},
        ]
        for arguments in bad:
            with pytest.raises(InvalidError) as refused:
                await sessions.list(**arguments)
            assert refused.value.field == next(iter(arguments))

    async def test_a_session_created_in_the_same_instant_is_on_one_page_only(
        self, sessions: Sessions, database: Database
    ) -> None:
        for i in range(10):
            await sessions.create(session_id=f"s{i}")
        await execute(database, "UPDATE sessions SET created_at = 1")
        assert await _pages(sessions, 3) == [f"s{i}" for i in reversed(range(10))]

    @given(st.lists(st.tuples(st.sampled_from(["create", "trash", "page"]), st.integers(0, 99)), max_size=30))
    @settings(max_examples=20)
    async def test_pages_are_stable_under_inserts_and_deletes(
        self, database: Database, steps: list[tuple[str, int]]
    ) -> None:
        sessions, user = Sessions(database), ids.new_id()
        there = [(await sessions.create(user_id=user)).id for _ in range(12)]
        gone: set[str] = set()
        seen: list[str] = []
        cursor: str | None = None
        for step, number in [*steps, *[("page", 1)] * 12]:
            if step == "create":
                await sessions.create(user_id=user)
            elif step == "trash":
                await database.write(queries.trash, there[number % 12], ids.new_id(), 10)
                gone.add(there[number % 12])
            elif cursor is not None or not seen:
                page = await sessions.list(user_id=user, limit=1 + number % 4, cursor=cursor)
                seen += [one.id for one in page.sessions]
                cursor = page.next_cursor
                if cursor is None:
                    break
        assert len(set(seen)) == len(seen), "one session was shown twice"
        assert set(there) - gone <= set(seen), "one that was there throughout was not shown"

    async def test_a_listing_of_users_with_long_histories_reads_no_message(
        self, sessions: Sessions, database: Database
    ) -> None:
        made = await sessions.create(user_id="ana")
        # A reader that looked at messages would fail: there is no such table any more.
        await execute(database, "ALTER TABLE messages RENAME TO messages_away")
        try:
            assert [one.id for one in (await sessions.list(user_id="ana")).sessions] == [made.id]
            assert (await sessions.get(made.id)).message_count == 0
        finally:
            await execute(database, "ALTER TABLE messages_away RENAME TO messages")


async def _pages(sessions: Sessions, limit: int) -> list[str]:
    page = await sessions.list(limit=limit)
    found = [one.id for one in page.sessions]
    while page.next_cursor:
        page = await sessions.list(limit=limit, cursor=page.next_cursor)
        found += [one.id for one in page.sessions]
    return found
