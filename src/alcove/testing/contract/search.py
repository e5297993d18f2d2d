"""What search promises on every database: what is said is found by its words, at once, by whoever may see it."""

# ruff: noqa: D102, RUF001 - the name of a test is its sentence

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from alcove import limits
from alcove.database.aside import AsideDatabase
from alcove.database.op import Database
from alcove.errors import InvalidError
from alcove.messages.content import Part
from alcove.messages.model import Draft
from alcove.messages.service import Messages
from alcove.objects.service import Objects
from alcove.search import queries
from alcove.search.service import Search
from alcove.sessions import queries as session_queries
from alcove.sessions.model import Changes
from alcove.sessions.service import Sessions

_PATIENCE_S = 60.0  # a machine may be busy; what a search does that does not wait for its index has a test of its own
GREP: Part = {"id": "c", "function": {"name": "grep", "arguments": '{"p": "rust"}'}}


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


class SearchContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    async def search(self, database: Database, tmp_path: Path) -> AsyncIterator[Search]:
        """A search over the database, its index where a hub would have it."""
        objects = Objects(database, tmp_path / "objects")
        if database.kind == "postgres":
            search = Search(database, database, objects, patience_s=_PATIENCE_S)
        else:
            index = AsideDatabase(":memory:" if database.kind == "memory" else str(tmp_path / "search.db"))
            search = Search(database, index, objects, remove=index.remove, patience_s=_PATIENCE_S)
        yield search
        await search.close()

    @pytest.fixture
    def messages(self, database: Database, tmp_path: Path) -> Messages:
        """Messages with an object store."""
        return Messages(database, Objects(database, tmp_path / "objects"))

    @pytest.mark.parametrize(
        ("said", "query"),
        [
            ("The Quick brown fox", "quick FOX"),
            ("Das Café in Málaga", "cafe malaga"),
            ("ｆｕｌｌ width", "full"),
            ("今天天气很好，我们去公园吧", "天气"),
            ("今天天气很好，我们去公园吧", "天气很好"),
            ("今天天气很好，我们去公园吧", "园"),
            ("今天天气很好，我们去公园吧", "吧"),
            ("東京タワーへ行きたい", "タワー"),
            ("서울에서 만나요", "서울"),
            ("ภาษาไทยไม่มีช่องว่าง", "ไทย"),
            ("使用Python编程", "python 编程"),
            ("使用Python编程", "Python编"),
            ("mail foo.bar@example.org now", "foo.bar@example.org"),
            ("connection refused by peer", '"refused by"'),
            ("internationalisation", "internat*"),
            ("straße", "STRASSE"),
            ("e\u0301te\u0301", "été"),
            ("𠮷野家で食べる", "𠮷野"),
        ],
    )
    async def test_words_are_found_as_people_type_them(
        self, database: Database, messages: Messages, search: Search, said: str, query: str
    ) -> None:
        session_id = (await Sessions(database).create()).id
        await messages.append(session_id, [Draft("user", "something else"), Draft("assistant", said)])
        [hit] = (await search.find(query)).hits
        assert (hit.session_id, hit.seq, hit.role) == (session_id, 2, "assistant")
        assert hit.marks
        assert all(0 <= start < end <= len(hit.snippet) for start, end in hit.marks)

    @pytest.mark.parametrize(
        ("said", "query"),
        [
            ("the refused was by peer", '"refused by"'),
            ("internationalisation", "internat"),
            ("天很好气", "天气"),
            ("one", "one two"),
            ("你好 世界", "好世"),
        ],
    )
    async def test_what_is_not_there_is_not_found(
        self, database: Database, messages: Messages, search: Search, said: str, query: str
    ) -> None:
        session_id = (await Sessions(database).create()).id
        await messages.append(session_id, [Draft("user", said)])
        assert (await search.find(query)).hits == []

    async def test_titles_tool_results_and_calls_are_found(
        self, database: Database, messages: Messages, search: Search
    ) -> None:
        sessions = Sessions(database)
        session_id = (await sessions.create(title="Harbour inspection")).id
        await messages.append(
            session_id,
            [
                Draft("user", [{"type": "text", "text": "look"}, {"type": "image", "data": "QUJD"}]),
                Draft("assistant", "", tool_calls=[GREP]),
                Draft("tool", "needle at line 4", tool_call_id="c"),
                Draft("tool", [{"type": "tool_result", "tool_call_id": "d", "content": [_text("corroded")]}]),
                Draft("assistant", "long " * 20_000 + "tail"),
            ],
        )  # fmt: skip
        expected = {"harbour": 0, "look": 1, "grep": 2, "rust": 2, "needle": 3, "corroded": 4, "long": 5}
        for query, seq in expected.items():
            assert [hit.seq for hit in (await search.find(query)).hits] == [seq], query  # fmt: skip
        await sessions.update(session_id, Changes(title="Quay inspection"))
        assert (await search.find("harbour")).hits == []
        [hit] = (await search.find("quay")).hits
        assert (hit.seq, hit.role, hit.snippet, hit.marks) == (0, "title", "Quay inspection", [(0, 4)])

    async def test_tenants_and_users_see_their_own(
        self, database: Database, messages: Messages, search: Search
    ) -> None:
        sessions = Sessions(database)
        for tenant in ("acme", "other"):
            for user in ("ana", "ben"):
                session_id = (await sessions.create(tenant=tenant, user_id=user, app="desk")).id
                await messages.append(session_id, [Draft("user", f"secret of {tenant} {user}")])
        for tenant in ("acme", "other"):
            hits = (await search.find("secret", tenant=tenant)).hits
            assert {hit.snippet for hit in hits} == {f"secret of {tenant} {user}" for user in ("ana", "ben")}
            [hit] = (await search.find("secret", tenant=tenant, user_id="ana")).hits
            assert hit.snippet == f"secret of {tenant} ana"
            assert (await search.find("secret", tenant=tenant, session_id=hit.session_id)).hits == [hit]
            assert (await search.find("secret", tenant=tenant, app="elsewhere")).hits == []
        assert (await search.find("secret")).hits == []

    async def test_what_is_hidden_or_gone_is_not_found(
        self, database: Database, messages: Messages, search: Search
    ) -> None:
        sessions = Sessions(database)
        popped, cleared, trashed, purged = [(await sessions.create(title="about needles")).id for _ in range(4)]
        for session_id in (popped, cleared, trashed, purged):
            await messages.append(session_id, [Draft("user", "one needle"), Draft("user", "needle two")])
        assert len((await search.find("needle")).hits) == 8
        await messages.pop(popped)
        await messages.clear(cleared)
        await database.write(session_queries.trash, trashed, "t1", 10)
        await database.write(session_queries.trash, purged, "t2", 10)
        await search.forget(purged)
        assert {(hit.session_id, hit.seq) for hit in (await search.find("needle")).hits} == {(popped, 1)}
        assert len((await search.find("needles")).hits) == 2

    async def test_a_purge_leaves_nothing_in_the_index(
        self, database: Database, messages: Messages, search: Search
    ) -> None:
        session_id = (await Sessions(database).create(title="about needles")).id
        await messages.append(session_id, [Draft("user", "needle " * 3) for _ in range(100)])
        assert await search.catch_up() > 0
        assert await search.places(session_id) > 0
        await database.write(session_queries.trash, session_id, "t", 10)
        await search.forget(session_id)
        assert await search.places(session_id) == 0
        await search.catch_up()
        assert await search.places(session_id) == 0

    async def test_the_best_come_first(self, database: Database, messages: Messages, search: Search) -> None:
        session_id = (await Sessions(database).create()).id
        filler = "and so on " * 60
        await messages.append(
            session_id,
            [
                Draft("user", f"pump {filler}"),
                Draft("user", "pump failure of the pump"),
                Draft("user", f"pump x {filler} failure"),
            ],
        )
        assert (await search.find("pump")).hits[0].seq == 2
        assert [hit.seq for hit in (await search.find("pump failure")).hits] == [2, 3]
        found = await search.find("pump", limit=1)
        assert ([hit.seq for hit in found.hits], found.more) == ([2], True)

    async def test_the_lag_is_told_and_made_up(self, database: Database, messages: Messages, search: Search) -> None:
        session_id = (await Sessions(database).create(title="a")).id
        await messages.append(session_id, [Draft("user", f"word{i}") for i in range(200)])
        assert await search.lag() == 201
        assert await search.catch_up() == 201
        assert await search.lag() == 0
        assert (await search.find("word199")).behind == 0
        follow = asyncio.create_task(search.follow())
        await messages.append(session_id, [Draft("user", "late")])
        while await search.lag():  # noqa: ASYNC110 - what is waited for is in the database
            await asyncio.sleep(0.01)
        follow.cancel()

    async def test_what_is_appended_meanwhile_waits_for_the_next_time(
        self, database: Database, messages: Messages, search: Search, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session_id = (await Sessions(database).create()).id
        read = search._entered  # pyright: ignore[reportPrivateUsage] - between what was read and what is entered

        async def busy(*args: Any) -> Any:
            await messages.append(session_id, [Draft("user", "one more")])
            return await read(*args)

        monkeypatch.setattr(search, "_entered", busy)
        await messages.append(session_id, [Draft("user", f"word{i}") for i in range(200)])
        assert await search.catch_up() == 201, "with the title"
        assert await search.lag() == 1

    async def test_a_backlog_is_indexed_in_turn_and_whole(
        self, database: Database, messages: Messages, search: Search, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "SEARCH_BATCH_MESSAGES", 40)
        monkeypatch.setattr(limits, "SEARCH_BATCH_SESSIONS", 2)
        sessions = [(await Sessions(database).create(session_id=f"s{number}")).id for number in range(5)]
        for session_id in sessions:
            await messages.append(
                session_id, [Draft("user", f"needle{i}") for i in range(100 if session_id < "s2" else 3)]
            )
        step = search._step  # pyright: ignore[reportPrivateUsage] - one by one
        assert [(await step())[0] for _ in range(3)] == [41, 41, 8], "with the titles"
        assert await search.catch_up() == 124
        assert await search.lag() == 0
        for word, count in (("needle2", 5), ("needle99", 2)):
            assert len((await search.find(word)).hits) == count

    async def test_a_search_that_cannot_wait_says_what_it_did_not_look_at(
        self, database: Database, messages: Messages, search: Search
    ) -> None:
        session_id = (await Sessions(database).create()).id
        await messages.append(session_id, [Draft("user", "haystack")])
        await search.catch_up()
        await messages.append(session_id, [Draft("user", "needle")])
        hasty = Search(database, search.index, patience_s=0)
        found = await hasty.find("needle")
        assert (found.hits, found.behind) == ([], 1)
        assert (await search.find("needle")).behind == 0

    async def test_several_indexers_index_everything_once(
        self, database: Database, messages: Messages, search: Search, tmp_path: Path
    ) -> None:
        sessions = [(await Sessions(database).create()).id for _ in range(5)]
        if database.kind == "postgres":
            other = Search(database, database)
        elif database.kind == "sqlite":
            other = Search(database, AsideDatabase(str(tmp_path / "search.db")))
        else:
            other = search

        async def append(session_id: str) -> None:
            for turn in range(20):
                await messages.append(session_id, [Draft("user", f"needle{turn} x"), Draft("assistant", "answer")])
                await asyncio.sleep(0)

        async def index(one: Search) -> None:
            for _ in range(30):
                await one.catch_up()
                await asyncio.sleep(0.001)

        await asyncio.gather(*map(append, sessions), index(search), index(other))
        await search.catch_up()
        for turn in range(20):
            assert len((await search.find(f"needle{turn}")).hits) == 5
        if other is not search:
            await other.close()

    async def test_the_index_can_be_made_again(self, database: Database, messages: Messages, search: Search) -> None:
        session_id = (await Sessions(database).create(title="kept")).id
        await messages.append(session_id, [Draft("user", "needle")])
        assert len((await search.find("needle")).hits) == 1
        assert await search.rebuild() == 2
        assert len((await search.find("needle")).hits) == 1
        await database.write(queries.about_index, "another")
        again = Search(database, search.index)
        assert await again.catch_up() == 2

    async def test_a_query_has_words_and_a_limit(self, search: Search) -> None:
        for query in ("", "  ", "!!", '""', "x" * (limits.SEARCH_QUERY_CHARS + 1), " ".join("ab" for _ in range(20))):
            with pytest.raises(InvalidError):
                await search.find(query)
        with pytest.raises(InvalidError):
            await search.find("x", limit=limits.SEARCH_HITS + 1)

    @pytest.mark.parametrize(
        "query", ["'", '"', "a' OR 'b", "a) OR (b", "-a", "a:*", "NEAR(a b)", "\\", "%", "a\x00b", "^a", "a*b*"]
    )
    async def test_no_query_is_taken_for_a_language(
        self, database: Database, messages: Messages, search: Search, query: str
    ) -> None:  # fmt: skip
        session_id = (await Sessions(database).create()).id
        await messages.append(session_id, [Draft("user", "plain")])
        with contextlib.suppress(InvalidError):
            assert (await search.find(query)).hits == []

    async def test_noise_does_not_stop_the_indexing(
        self, database: Database, messages: Messages, search: Search
    ) -> None:
        session_id = (await Sessions(database).create()).id
        noise = [
            "\x00" * 50,
            "x" * 300_000,
            "漢" * 90_000,
            os.urandom(30_000).hex(),
            "\U0010ffff",
            "\u0e01\u0e34" * 40_000,
        ]
        await messages.append(session_id, [Draft("user", one) for one in noise] + [Draft("user", "needle")])
        await search.catch_up()
        assert [hit.seq for hit in (await search.find("needle")).hits] == [len(noise) + 1]
        assert [hit.seq for hit in (await search.find("漢漢")).hits] == [3]
