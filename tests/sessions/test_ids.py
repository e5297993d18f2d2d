"""The ids of a user's sessions: the same as a listing says, without its records."""

from __future__ import annotations

from alcove.database.op import Database
from alcove.sessions.service import Sessions


async def test_the_ids_of_a_user_are_those_of_a_listing_page_by_page(database: Database) -> None:
    sessions = Sessions(database)
    made = [(await sessions.create(user_id="ana")).id for _ in range(5)]
    await sessions.create(user_id="bob")
    first, cursor = await sessions.ids_of("ana", limit=3)
    rest, end = await sessions.ids_of("ana", limit=3, cursor=cursor)
    listed = [session.id for session in (await sessions.list(user_id="ana")).sessions]
    assert first + rest == listed
    assert sorted(listed) == sorted(made)
    assert end is None
    assert await sessions.ids_of("nobody") == ([], None)
