"""What trees of sessions promise on every database: place, limits, and the trash of a whole subtree."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio

import pytest

from alcove import limits
from alcove.database.op import Database
from alcove.errors import InvalidError, SessionNotFoundError
from alcove.sessions import queries
from alcove.sessions.model import Changes
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute


class TreesContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    def sessions(self, database: Database) -> Sessions:
        """The service under test."""
        return Sessions(database)

    async def test_a_child_has_its_place_and_inherits(self, sessions: Sessions) -> None:
        root = await sessions.create(user_id="ana", app="shop", agent="shell")
        child = await sessions.spawn(root.id, title="research")
        grandchild = await sessions.spawn(child.id, user_id="ben", agent="", key="k", metadata={"a": 1})
        assert (child.parent_id, child.root_id, child.depth) == (root.id, root.id, 1)
        assert (child.user_id, child.app, child.agent, child.title) == ("ana", "shop", "shell", "research")
        assert (grandchild.parent_id, grandchild.root_id, grandchild.depth) == (child.id, root.id, 2)
        assert (grandchild.user_id, grandchild.app, grandchild.agent) == ("ben", "shop", "")
        assert (grandchild.key, grandchild.metadata) == ("k", {"a": 1})
        assert (await sessions.get(root.id)).child_count == 1

    async def test_children_are_direct_and_a_tree_is_nearest_first(self, sessions: Sessions) -> None:
        for name, parent in (("a", None), ("b", "a"), ("c", "a"), ("d", "b"), ("e", "d"), ("x", None)):
            await sessions.create(session_id=name, parent_id=parent)
        assert [one.id for one in (await sessions.children("a")).sessions] == ["c", "b"]
        assert (await sessions.children("a", limit=1)).next_cursor is not None
        assert [one.id for one in await sessions.tree("a")] == ["a", "b", "c", "d", "e"]
        assert [one.id for one in await sessions.tree("b")] == ["b", "d", "e"]
        assert [one.id for one in await sessions.tree("a", limit=3)] == ["a", "b", "c"]
        for call in (sessions.children, sessions.tree):
            with pytest.raises(SessionNotFoundError):
                await call("nobody")

    async def test_a_missing_parent_is_an_error_and_nothing_is_made(
        self, sessions: Sessions, database: Database
    ) -> None:
        await sessions.create(session_id="theirs", tenant="acme")
        await sessions.create(session_id="gone")
        await database.write(queries.trash, "gone", "t1", 10)
        for parent in ("nobody", "theirs", "gone"):
            with pytest.raises(SessionNotFoundError) as missing:
                await sessions.create(session_id="child", parent_id=parent)
            assert missing.value.field == "parent_id"
        with pytest.raises(InvalidError):
            await sessions.create(parent_id="../x")
        assert await sessions.find("child") is None
        assert (await execute(database, "SELECT SUM(child_count) FROM heads"))[0][0] == 0

    async def test_a_tree_has_a_limit_in_depth(self, sessions: Sessions) -> None:
        at = await sessions.create()
        for _ in range(limits.DEPTH):
            at = await sessions.spawn(at.id)
        assert at.depth == limits.DEPTH
        with pytest.raises(InvalidError) as refused:
            await sessions.spawn(at.id)
        assert refused.value.limit == limits.DEPTH
        assert (await sessions.get(at.id)).child_count == 0

    async def test_a_session_has_a_limit_in_children_also_when_they_come_at_once(
        self, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "CHILDREN", 5)
        root = await sessions.create()
        made = await asyncio.gather(*(sessions.spawn(root.id) for _ in range(9)), return_exceptions=True)
        assert sorted(type(one).__name__ for one in made) == ["InvalidError"] * 4 + ["Session"] * 5
        assert (await sessions.get(root.id)).child_count == 5

    async def test_trashing_takes_the_whole_subtree_and_frees_its_keys(
        self, sessions: Sessions, database: Database
    ) -> None:
        for name, parent, key in (("a", None, None), ("b", "a", "k"), ("c", "b", None), ("d", "a", None)):
            await sessions.create(session_id=name, parent_id=parent, key=key, user_id="ana")
        assert await database.write(queries.trash, "b", "t1", 10) == ["b", "c"]
        assert await database.write(queries.trash, "b", "t1", 10) == []
        for name in ("b", "c"):
            with pytest.raises(SessionNotFoundError):
                await sessions.get(name)
            for call in (sessions.touch(name), sessions.update(name, Changes(title="x")), sessions.spawn(name)):
                with pytest.raises(SessionNotFoundError):
                    await call
            found = await sessions.find(name)
            assert found is not None
            assert found.status == "trashed"
        assert [one.id for one in await sessions.tree("a")] == ["a", "d"]
        assert (await sessions.get("a")).child_count == 1
        assert await sessions.find_key("k", user_id="ana") is None
        assert (await sessions.create(key="k", user_id="ana")).key == "k"
        with pytest.raises(Exception, match="exists"):
            await sessions.create(session_id="b")

    async def test_a_subtree_larger_than_a_transaction_goes_in_several(
        self, sessions: Sessions, database: Database
    ) -> None:
        await sessions.create(session_id="root")
        for i in range(5):
            await sessions.create(session_id=f"c{i}", parent_id="root")
            for j in range(5):
                await sessions.create(session_id=f"c{i}-{j}", parent_id=f"c{i}")
        went: list[str] = []
        calls = 0
        while some := await database.write(queries.trash, "root", "t1", 7):
            assert len(some) <= 7
            went += some
            calls += 1
        assert (len(went), len(set(went)), calls) == (31, 31, 5)
        assert went[0] == "root", "parents first"
        assert all(went.index(name) > went.index(name.rpartition("-")[0] or "root") for name in went[1:])
        assert await _trashed_with(database, "t1") == sorted(went)

    async def test_an_earlier_trashing_inside_a_subtree_stays_its_own(
        self, sessions: Sessions, database: Database
    ) -> None:
        for name, parent in (("a", None), ("b", "a"), ("c", "b")):
            await sessions.create(session_id=name, parent_id=parent)
        assert await database.write(queries.trash, "b", "first", 10) == ["b", "c"]
        assert await database.write(queries.trash, "a", "second", 10) == ["a"]
        assert await _trashed_with(database, "first") == ["b", "c"]
        assert await database.write(queries.trash, "nobody", "third", 10) == []

    async def test_trashings_that_cross_each_other_take_each_session_once(
        self, sessions: Sessions, database: Database
    ) -> None:
        for i in range(5):
            names = [f"{letter}{i}" for letter in "abc"]
            for name, parent in zip(names, [None, *names], strict=False):
                await sessions.create(session_id=name, parent_id=parent)
            went = await asyncio.gather(*(database.write(queries.trash, name, f"t-{name}", 10) for name in names))
            taken = [name for some in went for name in some]
            assert sorted(taken) == names
            for some, by in zip(went, names, strict=True):
                assert await _trashed_with(database, f"t-{by}") == sorted(some)


async def _trashed_with(database: Database, trash_id: str) -> list[str]:
    rows = await execute(database, "SELECT id FROM sessions WHERE trash_id = ? ORDER BY id", trash_id)
    return [row[0] for row in rows]
