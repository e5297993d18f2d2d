"""What reading a history promises on every database: pages, the last messages, windows, at any length."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Database, Statement, Steps
from alcove.errors import InvalidError
from alcove.messages import queries
from alcove.messages.model import Draft, Message, Role, Stored
from alcove.messages.service import Messages
from alcove.sessions.service import Sessions

LONG = 100_000


class Past(NamedTuple):
    """A history to be written: the role of each message, which are hidden or cleared, and which turns failed."""

    roles: list[Role]
    hidden: set[int]
    cleared: int
    failed: set[int]


def _past(length: int, seed: int) -> Past:
    # Lists that hypothesis makes are short; what goes wrong here goes wrong past a chunk of rows.
    chance = random.Random(seed)
    roles: list[Role] = chance.choices(("user", "assistant", "tool", "system"), (3, 3, 2, 1), k=length)
    hidden = {seq for seq in range(1, length + 1) if chance.random() < 0.2}
    failed = {number for number in range(1, roles.count("user") + 1) if chance.random() < 0.2}
    return Past(roles, hidden, chance.choice((0, chance.randint(0, length))), failed)


PASTS = st.builds(_past, st.integers(0, 160), st.integers(0, 2**32))


class WindowsContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    async def long_session(self, database: Database) -> str:
        """A session of 100,000 messages, 50,000 turns."""
        return await filled(database, LONG)

    @given(PASTS, st.integers(1, 100), st.integers(1, 20), st.integers(1, 170))
    @settings(max_examples=60)
    async def test_what_is_read_is_what_a_list_would_give(
        self, database: Database, past: Past, limit: int, rounds: int, at: int
    ) -> None:
        session_id = (await Sessions(database).create()).id
        await _write(database, session_id, past)
        messages = Messages(database)
        everything = (await messages.page(session_id, hidden=True, limit=1000)).messages
        assert [one.seq for one in everything] == list(range(1, len(past.roles) + 1))
        visible = [one for one in everything if not one.hidden and one.seq > past.cleared]

        assert await messages.last(session_id, limit) == visible[-limit:]
        window = await messages.window(session_id, rounds=rounds)
        assert window.messages == rounds_of(visible, past.failed, rounds)
        earlier = [one for one in visible if one.seq < at]
        window = await messages.window(session_id, rounds=rounds, before=at)
        assert window.messages == rounds_of(earlier, past.failed, rounds)
        for hidden, expected in ((False, visible), (True, everything)):
            assert await _ascending(messages, session_id, limit, hidden) == expected
            assert await _descending(messages, session_id, limit, hidden) == expected
            page = await messages.page(session_id, after=at, limit=limit, hidden=hidden)
            assert page.messages == [one for one in expected if one.seq > at][:limit]
            page = await messages.page(session_id, before=at, limit=limit, hidden=hidden)
            assert page.messages == [one for one in expected if one.seq < at][-limit:]

    async def test_pages_go_in_one_direction_and_have_a_limit(self, database: Database) -> None:
        session_id = (await Sessions(database).create()).id
        messages = Messages(database)
        for call in (
            messages.page(session_id, after=1, before=2),
            messages.page(session_id, limit=0),
            messages.page(session_id, limit=limits.MESSAGE_PAGE + 1),
            messages.last(session_id, 0),
            messages.last(session_id, limits.MESSAGE_PAGE + 1),
            messages.window(session_id, rounds=0),
            messages.window(session_id, rounds=limits.WINDOW_ROUNDS + 1),
            messages.turns(session_id, limit=0),
        ):
            with pytest.raises(InvalidError):
                await call

    async def test_a_page_of_long_messages_ends_early_and_goes_on(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "MESSAGE_PAGE_BYTES", 1000)
        session_id = (await Sessions(database).create()).id
        messages = Messages(database)
        await messages.append(session_id, [Draft("user", str(i) * 400) for i in range(9)])
        first = await messages.page(session_id, limit=9)
        assert ([one.seq for one in first.messages], first.next_after) == ([1, 2], 2)
        assert [one.seq for one in await _ascending(messages, session_id, 9, False)] == list(range(1, 10))
        assert [one.seq for one in await _descending(messages, session_id, 9, False)] == list(range(1, 10))
        await messages.append(session_id, [Draft("user", "x" * 5000)])
        assert [one.seq for one in (await messages.page(session_id, after=9)).messages] == [10]
        assert [one.seq for one in await messages.window(session_id)] == [10]

    async def test_a_window_looks_back_only_so_far(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "WINDOW_MESSAGES", 64)
        session_id = (await Sessions(database).create()).id
        messages = Messages(database)
        await messages.append(session_id, [Draft("user", "a")] + [Draft("assistant", "b")] * 70)
        assert (await messages.window(session_id)).messages == []
        assert len(await messages.window(session_id, before=60)) == 59

    async def test_a_session_of_100_000_messages_reads_and_appends(self, database: Database, long_session: str) -> None:
        messages = Messages(database)
        assert (await Sessions(database).get(long_session)).message_count == LONG
        assert [one.seq for one in await messages.last(long_session)] == list(range(LONG - 19, LONG + 1))
        assert len(await messages.window(long_session, rounds=10)) == 20
        page = await messages.page(long_session, after=LONG // 2, limit=1000)
        assert (page.messages[0].seq, page.next_after) == (LONG // 2 + 1, LONG // 2 + 1000)
        assert (await messages.append_turn(long_session, "a", "b")).first_seq == LONG + 1
        assert len(await messages.pop(long_session)) == 1
        assert await messages.clear(long_session) == LONG + 1
        assert await messages.last(long_session) == []
        assert (await messages.append_turn(long_session, "c", "d")).first_seq == LONG + 3
        assert [one.content for one in (await messages.page(long_session)).messages] == ["c", "d"]


def rounds_of(visible: Sequence[Message], failed: set[int], rounds: int) -> list[Message]:
    """Return the window of a history, the slow and plain way."""
    front = [one for one in visible if one.role in {"system", "developer"}]
    shown = [one for one in visible if one.turn not in failed and one not in front]
    starts = [i for i, one in enumerate(shown) if one.role == "user"]
    return front + (shown[starts[-rounds:][0] :] if starts else [])


async def _write(database: Database, session_id: str, past: Past) -> None:
    drafts = [Stored(role, 0, str(i), "") for i, role in enumerate(past.roles)]
    for i in range(0, len(drafts), 50):
        await database.write(queries.append, session_id, drafts[i : i + 50])
    await database.write(_mark, session_id, past)


def _mark(now: Micros, session_id: str, past: Past) -> Steps[None]:
    yield Statement("UPDATE heads SET cleared_seq = ? WHERE session_id = ?", (past.cleared, session_id))
    yield Statement(
        "UPDATE messages SET hidden = 1 WHERE session_id = ? AND seq = ?",
        [(session_id, seq) for seq in past.hidden],
        many=True,
    )
    yield Statement(
        "UPDATE turns SET status = ? WHERE session_id = ? AND number = ?",
        [(("failed", "lost")[number % 2], session_id, number) for number in past.failed],
        many=True,
    )


async def _ascending(messages: Messages, session_id: str, limit: int, hidden: bool) -> list[Message]:
    found: list[Message] = []
    after: int | None = 0
    while after is not None:
        page = await messages.page(session_id, after=after, limit=limit, hidden=hidden)
        found += page.messages
        after = page.next_after
    return found


async def _descending(messages: Messages, session_id: str, limit: int, hidden: bool) -> list[Message]:
    found: list[Message] = []
    before: int | None = 2**62
    while before is not None:
        page = await messages.page(session_id, before=before, limit=limit, hidden=hidden)
        found = page.messages + found
        before = page.next_before
    return found


async def filled(database: Database, count: int) -> str:
    """Create a session of so many messages by the back door, two to a turn, and return its id."""
    session_id = (await Sessions(database).create()).id
    for first in range(1, count + 1, 10_000):
        await database.write(_fill, session_id, first, min(10_000, count + 1 - first))
    return session_id


def _fill(now: Micros, session_id: str, first: int, count: int) -> Steps[None]:
    yield Statement(
        "INSERT INTO messages (session_id, seq, turn, role, format, content, detail, hidden, created_at) "
        "VALUES (?, ?, ?, ?, 0, ?, '', 0, ?)",
        [
            (session_id, seq, (seq + 1) // 2, "user" if seq % 2 else "assistant", f"message {seq}", now)
            for seq in range(first, first + count)
        ],
        many=True,
    )
    yield Statement(
        "INSERT INTO turns (session_id, number, status, run_id, opened_at, closed_at) VALUES (?, ?, 'done', '', ?, ?)",
        [(session_id, number, now, now) for number in range((first + 1) // 2, (first + count + 1) // 2)],
        many=True,
    )
    yield Statement(
        "UPDATE heads SET last_seq = ?, message_count = ?, turn_count = ? WHERE session_id = ?",
        (first + count - 1, first + count - 1, (first + count) // 2, session_id),
    )
