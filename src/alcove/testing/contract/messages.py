"""What appends promise on every database: what is kept, dense order, exactly once, who may write."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from alcove import limits
from alcove.database.op import Database
from alcove.errors import (
    IdempotencyError,
    InvalidError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleSequenceError,
    TooLargeError,
)
from alcove.messages.model import Appended, Detail, Draft, Part
from alcove.messages.service import Messages
from alcove.sessions import queries as session_queries
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute, hold, idle

TEXTS = (
    "",
    "a\x00b",
    "\x00",
    "\x1a\x1a0\x00",
    "Ünïcode ☃ 🦊",
    "e\u0301",
    "\u202eabc",
    "\r\n\t\x1b[31m",
    "\uffff",
    '"\\{',
)
ROLES = ("system", "developer", "user", "assistant", "tool")


class MessagesContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    def sessions(self, database: Database) -> Sessions:
        """Where the messages go."""
        return Sessions(database)

    @pytest.fixture
    def messages(self, database: Database) -> Messages:
        """The service under test."""
        return Messages(database)

    @pytest.fixture
    async def session_id(self, sessions: Sessions) -> str:
        """An empty session."""
        return (await sessions.create()).id

    async def test_a_message_is_kept_as_it_was_drafted(self, messages: Messages, session_id: str) -> None:
        parts: list[Part] = [{"type": "text", "text": "a\x00"}, {"type": "new", "deep": [1, {"x": None}]}]
        calls: list[Part] = [{"id": "c1", "function": {"name": "ls", "arguments": "{}"}}]
        drafts = [
            Draft("system", "be brief"),
            Draft("developer", "and kind"),
            Draft("user", parts, name="ana", metadata={"k": [1, "\x00"]}),
            Draft("assistant", "", tool_calls=calls),
            Draft("tool", "out", tool_call_id="c1"),
        ]
        assert await messages.append(session_id, drafts) == Appended(1, 5, 1)
        kept = await messages.last(session_id)
        assert [one.role for one in kept] == list(ROLES)
        assert [one.content for one in kept] == ["be brief", "and kind", parts, "", "out"]
        assert [one.turn for one in kept] == [0, 0, 1, 1, 1]
        assert [one.hidden for one in kept] == [0] * 5
        assert kept[2].text == "a\x00"
        assert kept[2].detail == Detail(name="ana", metadata={"k": [1, "\x00"]})
        assert kept[3].detail == Detail(tool_calls=calls)
        assert kept[4].detail == Detail(tool_call_id="c1")

    @pytest.mark.parametrize("text", TEXTS)
    async def test_any_text_comes_back_as_it_went_in(self, messages: Messages, session_id: str, text: str) -> None:
        await messages.append_turn(session_id, text, text)
        assert [one.content for one in await messages.last(session_id)] == [text, text]

    @pytest.mark.parametrize(
        "draft",
        [
            Draft(cast("Any", "robot"), "x"),
            Draft("user", "\ud800"),
            Draft("user", cast("Any", [])),
            Draft("user", cast("Any", ["text"])),
            Draft("user", cast("Any", [{"text": "no type"}])),
            Draft("user", [{"type": "text", "text": "\udfff"}]),
            Draft("user", "x", name="\ud800"),
            Draft("user", "x", metadata=cast("Any", {"a": object()})),
            Draft("user", cast("Any", 5)),
            Draft("user", cast("Any", None)),
        ],
    )
    async def test_a_bad_draft_is_refused_and_nothing_of_its_append_is_kept(
        self, messages: Messages, session_id: str, draft: Draft
    ) -> None:
        with pytest.raises(InvalidError):
            await messages.append(session_id, [Draft("user", "good"), draft])
        assert await messages.last(session_id) == []

    async def test_a_message_of_a_mebibyte_fits_and_one_byte_more_does_not(
        self, messages: Messages, session_id: str
    ) -> None:
        largest = "ä" * (limits.MESSAGE_BYTES // 2)
        await messages.append(session_id, [Draft("user", largest)])
        [kept] = await messages.last(session_id)
        assert kept.content == largest
        for draft in (Draft("user", largest + "x"), Draft("user", largest, name="n")):
            with pytest.raises(TooLargeError) as refused:
                await messages.append(session_id, [draft])
            assert refused.value.limit == limits.MESSAGE_BYTES

    async def test_an_append_has_a_limit_in_messages(self, messages: Messages, session_id: str) -> None:
        drafts = [Draft("user", str(i)) for i in range(limits.APPEND_MESSAGES)]
        assert (await messages.append(session_id, drafts)).last_seq == limits.APPEND_MESSAGES
        for count in (0, limits.APPEND_MESSAGES + 1):
            with pytest.raises(InvalidError):
                await messages.append(session_id, [Draft("user", "x")] * count)

    async def test_seq_is_dense_when_many_append_at_once(
        self, messages: Messages, sessions: Sessions, database: Database, session_id: str
    ) -> None:
        appended = await asyncio.gather(
            *(messages.append(session_id, [Draft("user", f"{i}.{j}") for j in range(1 + i % 3)]) for i in range(30))
        )
        taken = [seq for one in appended for seq in range(one.first_seq, one.last_seq + 1)]
        assert sorted(taken) == list(range(1, 61))
        rows = await execute(database, "SELECT seq, content, turn FROM messages ORDER BY seq")
        assert [row[0] for row in rows] == list(range(1, 61))
        for i, one in enumerate(appended):
            assert rows[one.first_seq - 1][1] == f"{i}.0", "an append stays together"
        session = await sessions.get(session_id)
        assert (session.last_seq, session.message_count, session.turn_count) == (60, 60, 60)

    async def test_an_append_is_activity_and_a_read_is_not(
        self, messages: Messages, sessions: Sessions, database: Database, session_id: str
    ) -> None:
        await idle(database, session_id, 100)
        before = (await sessions.get(session_id)).last_activity_us
        await messages.last(session_id)
        await messages.window(session_id)
        await messages.page(session_id)
        assert (await sessions.get(session_id)).last_activity_us == before
        await messages.append_turn(session_id, "a", "b")
        assert (await sessions.get(session_id)).last_activity_us > before

    async def test_append_rejects_an_expected_seq_that_has_passed(self, messages: Messages, session_id: str) -> None:
        await messages.append(session_id, [Draft("user", "a")], expected_seq=0)
        with pytest.raises(StaleSequenceError) as stale:
            await messages.append(session_id, [Draft("user", "b")], expected_seq=0)
        assert stale.value.details["last_seq"] == 1
        await messages.append(session_id, [Draft("user", "b")], expected_seq=1)
        raced = [messages.append(session_id, [Draft("user", "c")], expected_seq=2) for _ in range(10)]
        done = await asyncio.gather(*raced, return_exceptions=True)
        assert sorted(type(one).__name__ for one in done) == ["Appended"] + ["StaleSequenceError"] * 9
        assert [one.content for one in await messages.last(session_id)] == ["a", "b", "c"]

    async def test_a_repeated_append_gets_the_first_answer(self, messages: Messages, session_id: str) -> None:
        asked = [messages.append_turn(session_id, "a", "b", idempotency_key="k") for _ in range(10)]
        answers = await asyncio.gather(*asked)
        assert {(one.first_seq, one.last_seq, one.turn) for one in answers} == {(1, 2, 1)}
        assert sorted(one.replayed for one in answers) == [False] + [True] * 9
        assert await messages.append_turn(session_id, "a", "b", idempotency_key="k") == Appended(1, 2, 1, True)
        assert len(await messages.last(session_id)) == 2

    async def test_a_repeated_append_gets_the_first_answer_whatever_happened_since(
        self, messages: Messages, database: Database, sessions: Sessions
    ) -> None:
        session_id = (await sessions.create(ttl_s=60)).id
        asked = [messages.append_turn(session_id, "a", "b", expected_seq=0, idempotency_key="k") for _ in range(10)]
        assert {one.last_seq for one in await asyncio.gather(*asked)} == {2}
        again = {"expected_seq": 0, "idempotency_key": "k"}
        await messages.append_turn(session_id, "c", "d")
        assert (await messages.append_turn(session_id, "a", "b", **cast("Any", again))).replayed
        await hold(database, session_id, "run", 30)
        assert (await messages.append_turn(session_id, "a", "b", **cast("Any", again))).replayed
        await hold(database, session_id, "", 0)
        await idle(database, session_id, 100)
        assert (await messages.append_turn(session_id, "a", "b", **cast("Any", again))).replayed
        assert len(await messages.last(session_id)) == 4

    async def test_a_key_with_another_body_is_refused(
        self, messages: Messages, sessions: Sessions, session_id: str
    ) -> None:
        await messages.append_turn(session_id, "a", "b", idempotency_key="k")
        for call in (
            messages.append_turn(session_id, "a", "c", idempotency_key="k"),
            messages.append_turn(session_id, "ab", "", idempotency_key="k"),
            messages.append_turn(session_id, "a", "b", expected_seq=2, idempotency_key="k"),
            messages.append(session_id, [Draft("user", "a")], idempotency_key="k"),
        ):
            with pytest.raises(IdempotencyError):
                await call
        other = (await sessions.create()).id
        assert not (await messages.append_turn(other, "a", "c", idempotency_key="k")).replayed
        for key in ("", "k\n", "k" * 257):
            with pytest.raises(InvalidError) as refused:
                await messages.append_turn(session_id, "a", "b", idempotency_key=key)
            assert refused.value.field == "idempotency_key"

    async def test_a_refused_append_leaves_its_key_unused(self, messages: Messages, session_id: str) -> None:
        with pytest.raises(StaleSequenceError):
            await messages.append_turn(session_id, "a", "b", expected_seq=9, idempotency_key="k")
        assert not (await messages.append_turn(session_id, "a", "b", idempotency_key="k")).replayed

    async def test_who_may_not_write_is_told_why(
        self, messages: Messages, sessions: Sessions, database: Database
    ) -> None:
        expired = (await sessions.create(ttl_s=60)).id
        await idle(database, expired, 100)
        held = (await sessions.create()).id
        await hold(database, held, "run-1", 30)
        gone = (await sessions.create()).id
        await database.write(session_queries.trash, gone, "t", 10)
        for session_id, kind in (
            ("nobody", SessionNotFoundError),
            (gone, SessionNotFoundError),
            (expired, SessionExpiredError),
            (held, SessionBusyError),
        ):
            for call in (
                messages.append_turn(session_id, "a", "b"),
                messages.pop(session_id),
                messages.clear(session_id),
            ):
                with pytest.raises(kind):
                    await call
        assert await execute(database, "SELECT * FROM messages") == []
        assert await messages.last(expired) == [], "an expired session can be read"
        await hold(database, held, "run-1", -1)
        await messages.append_turn(held, "a", "b")

    async def test_pop_hides_the_last_visible_messages(
        self, messages: Messages, sessions: Sessions, session_id: str
    ) -> None:
        await messages.append(session_id, [Draft("user", str(i)) for i in range(5)])
        assert [one.content for one in await messages.pop(session_id, 2)] == ["3", "4"]
        assert [one.content for one in await messages.pop(session_id)] == ["2"]
        assert [one.content for one in await messages.last(session_id)] == ["0", "1"]
        everything = (await messages.page(session_id, hidden=True)).messages
        assert [(one.content, one.hidden) for one in everything] == [(str(i), int(i > 1)) for i in range(5)]
        session = await sessions.get(session_id)
        assert (session.message_count, session.last_seq) == (2, 5)
        assert (await messages.append(session_id, [Draft("user", "next")])).first_seq == 6, "no seq is used twice"
        assert [one.content for one in await messages.pop(session_id, 100)] == ["0", "1", "next"]
        assert await messages.pop(session_id) == []
        for count in (0, limits.POP_MESSAGES + 1):
            with pytest.raises(InvalidError):
                await messages.pop(session_id, count)

    async def test_clear_hides_everything_so_far(self, messages: Messages, sessions: Sessions, session_id: str) -> None:
        await messages.append_turn(session_id, "a", "b")
        await messages.pop(session_id)
        assert await messages.clear(session_id) == 1
        assert await messages.clear(session_id) == 0
        assert await messages.last(session_id) == []
        assert (await messages.window(session_id)).messages == []
        assert await messages.pop(session_id) == []
        assert len((await messages.page(session_id, hidden=True)).messages) == 2
        assert (await messages.append_turn(session_id, "c", "d")).first_seq == 3
        assert [one.content for one in await messages.last(session_id)] == ["c", "d"]
        assert (await sessions.get(session_id)).message_count == 2

    async def test_turns_are_numbered_densely_newest_first(self, messages: Messages, session_id: str) -> None:
        await messages.append(session_id, [Draft("assistant", "welcome")])
        await messages.append(session_id, [Draft("user", "a"), Draft("assistant", "b"), Draft("user", "c")])
        assert (await messages.append(session_id, [Draft("assistant", "d")])).turn == 2
        await messages.append_turn(session_id, "e", "f")
        turns = await messages.turns(session_id)
        assert [(one.number, one.status, one.run_id) for one in turns] == [(i, "done", "") for i in (3, 2, 1)]
        assert all(one.closed_us == one.opened_us > 0 for one in turns)
        assert [one.number for one in await messages.turns(session_id, limit=2)] == [3, 2]
        assert [one.number for one in await messages.turns(session_id, before=2)] == [1]
        assert [one.turn for one in await messages.last(session_id)] == [0, 1, 1, 2, 2, 3, 3]
        for call in (messages.turns, messages.last, messages.window, messages.page):
            with pytest.raises(SessionNotFoundError):
                await call("nobody")
