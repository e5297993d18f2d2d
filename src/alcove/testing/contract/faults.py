"""What holds after a fault, wherever it strikes: an action happens whole or not at all."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alcove.database.idempotency import Once
from alcove.database.op import Database, Rows
from alcove.messages import queries as message_queries
from alcove.messages.model import Stored
from alcove.messages.service import Messages
from alcove.sessions import living, queries
from alcove.sessions.model import Changes, NewSession
from alcove.sessions.service import Sessions
from alcove.testing.faults import FaultError, failing
from alcove.testing.rows import execute

_TABLES = ("sessions", "heads", "session_keys", "session_metadata", "turns", "messages", "idempotency")


class FaultsContract:
    """Needs a `database` fixture; subclass it as it is."""

    async def test_a_creation_happens_whole_or_not_at_all(self, database: Database) -> None:
        await Sessions(database).create(session_id="root")
        new = NewSession(
            id="new", key="k", user_id="ana", parent_id="root", metadata_json='{"a":1}', indexed=(("a", "1"),)
        )
        assert await _loop(database, queries.create, new, Once("s", "k", "d")) >= 6

    async def test_an_append_happens_whole_or_not_at_all(self, database: Database) -> None:
        await Sessions(database).create(session_id="s")
        drafts = [Stored("user", 0, "a", ""), Stored("assistant", 0, "b", "")]
        assert await _loop(database, message_queries.append, "s", drafts, request=Once("s", "k", "d")) == 4
        assert [one.content for one in await Messages(database).last("s")] == ["a", "b"]

    async def test_a_trashing_happens_whole_or_not_at_all(self, database: Database) -> None:
        sessions = Sessions(database)
        for name, parent in (("a", None), ("b", "a"), ("c", "b")):
            await sessions.create(session_id=name, parent_id=parent, key=name)
        assert await _loop(database, queries.trash, "b", "t", 10) >= 4

    async def test_an_update_happens_whole_or_not_at_all(self, database: Database) -> None:
        await Sessions(database).create(session_id="s", metadata={"a": 1}, ttl_s=60)
        changes = Changes(title="t", agent="x", metadata={"b": 2}, pinned=True)
        assert await _loop(database, queries.update, "s", changes, 1) >= 8

    async def test_a_live_session_is_made_whole_or_not_at_all(self, database: Database) -> None:
        sessions = Sessions(database)
        await sessions.live("ana", ttl_s=1)
        await execute(database, "UPDATE heads SET last_activity = 1")
        assert await _loop(database, living.live, NewSession(id="new", user_id="ana", key="", ttl_us=1)) >= 6


async def _loop(database: Database, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Fail the first statement, then the second and so on until the action passes; return how many there are."""
    before = await _picture(database)
    number = 0
    while True:
        number += 1
        try:
            await database.write(failing(operation, number), *args, **kwargs)
        except FaultError:
            assert await _picture(database) == before, f"statement {number} left something behind"
            continue
        assert await _picture(database) != before
        return number - 1


async def _picture(database: Database) -> list[Rows]:
    # sorted here: their order is not promised, and NULL does not compare
    return [sorted(await execute(database, f"SELECT * FROM {table}"), key=repr) for table in _TABLES]
