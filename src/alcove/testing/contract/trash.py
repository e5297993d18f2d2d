"""What the trash promises on every database: exactly what went together comes back, or goes for good, and is told."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from alcove import limits
from alcove.database.op import Database
from alcove.errors import AlreadyExistsError, ConflictError, SessionExpiredError, SessionNotFoundError, StorageError
from alcove.lifecycle.service import Lifecycle
from alcove.sessions.model import Changes
from alcove.testing.installing import installed
from alcove.testing.rows import execute, idle


class TrashContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    async def sessions(self, database: Database, tmp_path: Path) -> AsyncGenerator[Lifecycle]:
        """The service under test."""
        async with installed(database, tmp_path) as hub:
            yield hub.sessions

    async def test_exactly_what_went_together_comes_back(self, sessions: Lifecycle) -> None:
        root = await sessions.create()
        child = await root.spawn(title="child")
        below, earlier = await child.spawn(), await child.spawn()
        await below.append_turn("a", "b")
        await earlier.delete()
        trashed = await child.delete()
        assert trashed.sessions == (child.id, below.id)
        back = await sessions.restore(child.id)
        assert (back.trash_id, back.session_id, back.sessions) == (trashed.trash_id, child.id, trashed.sessions)
        assert [one.id for one in await sessions.tree(root.id)] == [root.id, child.id, below.id]
        assert [one.text for one in await below.last()] == ["a", "b"]
        with pytest.raises(SessionNotFoundError, match="trash"):
            await sessions.get(earlier.id)
        assert (await sessions.restore(earlier.id)).sessions == (earlier.id,)
        assert [(one.title, one.child_count) for one in (await root.children()).sessions] == [("child", 2)]

    async def test_any_session_of_a_trashing_names_all_of_it(self, sessions: Lifecycle) -> None:
        root = await sessions.create()
        child = await root.spawn()
        await root.delete()
        waiting = await sessions.trashing(child.id)
        assert waiting
        assert waiting.session_id == root.id
        back = await sessions.restore(child.id)
        assert (back.session_id, back.sessions) == (root.id, (root.id, child.id))
        assert await sessions.trashing(child.id) is None
        assert (await sessions.trashings()).trashings == []

    async def test_coming_back_is_activity(self, sessions: Lifecycle, database: Database) -> None:
        session = await sessions.create(ttl_s=60)
        await idle(database, session.id, 3600)
        assert (await session.refresh()).status == "expired"
        await session.delete()
        await sessions.restore(session.id)
        assert (await session.refresh()).status == "active"
        await session.append_turn("a", "b")

    async def test_a_session_past_its_end_comes_back_for_a_day(self, sessions: Lifecycle, database: Database) -> None:
        session = await sessions.create(lifetime_s=60)
        await execute(database, "UPDATE heads SET ends_at = 1")
        await execute(database, "UPDATE sessions SET ends_at = 1")
        await session.delete()
        await sessions.restore(session.id)
        back = await session.refresh()
        assert back.status == "active"
        assert back.expires_us == back.last_activity_us + limits.RESTORED_S * 1_000_000

    async def test_what_is_not_in_the_trash_cannot_be_restored(self, sessions: Lifecycle) -> None:
        session = await sessions.create()
        with pytest.raises(ConflictError, match="not in the trash"):
            await sessions.restore(session.id)
        for unknown in ("nobody", "../x", ""):
            with pytest.raises(SessionNotFoundError):
                await sessions.restore(unknown)
        await session.delete(purge=True)
        with pytest.raises(SessionNotFoundError):
            await sessions.restore(session.id)

    async def test_a_key_comes_back_with_its_session(self, sessions: Lifecycle) -> None:
        session = await sessions.create(user_id="ana", key="k")
        await session.delete()
        assert await sessions.find_key("k", user_id="ana") is None
        await sessions.restore(session.id)
        found = await sessions.find_key("k", user_id="ana")
        assert found
        assert found.id == session.id

    async def test_a_key_that_was_taken_meanwhile_keeps_all_of_it_in_the_trash(self, sessions: Lifecycle) -> None:
        root = await sessions.create(user_id="ana", key="free")
        child = await sessions.spawn(root.id, key="taken")
        await root.delete()
        other = await sessions.create(user_id="ana", key="taken")
        with pytest.raises(
            AlreadyExistsError, match=f"'taken' of session {child.id} belongs to session {other.id}"
        ) as no:
            await sessions.restore(root.id)
        assert "without_keys" in no.value.remedy
        assert await sessions.find_key("free", user_id="ana") is None
        assert [one.step for one in (await sessions.trashings()).trashings] == ["kept"]
        back = await sessions.restore(root.id, without_keys=True)
        assert (back.sessions, back.keyless) == ((root.id, child.id), (child.id,))
        assert ((await root.refresh()).key, (await child.refresh()).key) == ("free", None)
        assert (await other.refresh()).key == "taken"

    async def test_a_live_session_of_the_same_user_is_not_replaced(self, sessions: Lifecycle) -> None:
        first, _ = await sessions.live("ana")
        await first.delete()
        second, made = await sessions.live("ana")
        assert made
        with pytest.raises(AlreadyExistsError):
            await sessions.restore(first.id)
        await sessions.restore(first.id, without_keys=True)
        assert (await sessions.live("ana"))[0].id == second.id

    async def test_a_child_waits_for_its_parent_or_comes_back_as_a_root(self, sessions: Lifecycle) -> None:
        root = await sessions.create()
        child = await root.spawn()
        below = await child.spawn()
        await child.delete()
        await root.delete()
        with pytest.raises(ConflictError, match=f"the parent {root.id} .* is in the trash") as no:
            await sessions.restore(child.id)
        assert "restore that one first" in no.value.remedy
        await root.delete(purge=True)
        with pytest.raises(ConflictError, match=f"the parent {root.id} .* is gone") as no:
            await sessions.restore(child.id)
        assert "as_root" in no.value.remedy
        await sessions.restore(child.id, as_root=True)
        child, below = await child.refresh(), await below.refresh()
        assert (child.parent_id, child.root_id, child.depth) == ("", child.id, 0)
        assert (below.parent_id, below.root_id, below.depth) == (child.id, child.id, 1)

    async def test_children_are_counted_through_trash_restore_and_purge(self, sessions: Lifecycle) -> None:
        root = await sessions.create()
        first, second = await root.spawn(), await root.spawn()
        await first.delete()
        assert (await root.refresh()).child_count == 1
        await sessions.restore(first.id)
        assert (await root.refresh()).child_count == 2
        await root.delete()
        await second.delete(purge=True)
        await sessions.restore(root.id)
        assert (await root.refresh()).child_count == 1
        await first.delete(purge=True)
        assert (await root.refresh()).child_count == 0

    async def test_a_large_tree_goes_and_comes_in_steps(
        self, sessions: Lifecycle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "TREE_SESSIONS", 2)
        root = last = await sessions.create()
        for _ in range(3):
            last = await last.spawn()
            await root.spawn()
        went = (await root.delete()).sessions
        assert len(went) == 7
        [trashing] = (await sessions.trashings()).trashings
        assert (trashing.sessions, trashing.session_id, trashing.step) == (7, root.id, "kept")
        back = await sessions.restore(last.id)
        assert set(back.sessions) == set(went)
        assert (await last.refresh()).depth == 3
        receipt = await root.delete(purge=True)
        assert set(receipt.sessions) == set(went)
        assert await execute(sessions.trash._database, "SELECT * FROM trashings") == []  # pyright: ignore[reportPrivateUsage]

    async def test_the_trash_is_listed_newest_first_in_pages(self, sessions: Lifecycle) -> None:
        made = [await sessions.create() for _ in range(5)]
        await sessions.create(tenant="other")
        for session in made:
            await sessions.delete(session.id, by="ana")
        seen: list[str] = []
        cursor = None
        while True:
            page = await sessions.trashings(limit=2, cursor=cursor)
            seen += [one.session_id for one in page.trashings]
            assert {(one.why, one.who, one.step) for one in page.trashings} == {("asked", "ana", "kept")}
            if not (cursor := page.next_cursor):
                break
        assert sorted(seen) == sorted(one.id for one in made)
        assert (await sessions.trashings(tenant="other")).trashings == []

    async def test_the_log_tells_what_went_when_why_and_by_whom(self, sessions: Lifecycle) -> None:
        root = await sessions.create(title="a secret title", user_id="ana", metadata={"a": "b"})
        child = await root.spawn()
        await child.append_turn("a", "b")
        first = await sessions.delete(root.id, by="ben")
        await sessions.restore(root.id, by="cleo")
        last = await sessions.delete(root.id, purge=True, by="dora")
        deeds = (await sessions.deeds(child.id)).deeds
        assert {(one.what, one.why, one.who, one.trash_id) for one in deeds} == {
            ("trashed", "asked", "ben", first.trash_id),
            ("restored", "asked", "cleo", first.trash_id),
            ("trashed", "asked", "dora", last.trash_id),
            ("purged", "asked", "dora", last.trash_id),
        }
        [removed] = [one.removed for one in deeds if one.what == "purged"]
        assert removed
        assert (removed.messages, removed.runs) == (2, 0)
        everything = (await sessions.deeds()).deeds
        assert [one.created_us for one in everything] == sorted((one.created_us for one in everything), reverse=True)
        assert len(everything) == 8
        assert "secret" not in str(await execute(sessions.trash._database, "SELECT * FROM deeds"))  # pyright: ignore[reportPrivateUsage]
        assert (await sessions.deeds(tenant="other")).deeds == []
        assert (await sessions.deeds("nobody")).deeds == []

    async def test_the_log_comes_in_pages(self, sessions: Lifecycle) -> None:
        for _ in range(3):
            await (await sessions.create()).delete(purge=True)
        seen: list[tuple[str, str]] = []
        cursor = None
        while True:
            page = await sessions.deeds(limit=2, cursor=cursor)
            seen += [(one.session_id, one.what) for one in page.deeds]
            if not (cursor := page.next_cursor):
                break
        assert len(seen) == len(set(seen)) == 6

    async def test_the_receipt_counts_rows_and_the_log_keeps_it(self, sessions: Lifecycle, database: Database) -> None:
        session = await sessions.create(metadata={"a": 1, "b": 2}, key="k")
        await session.append_turn("a", "b", idempotency_key="once")
        await session.append_turn("c", "d")
        receipt = await session.delete(purge=True)
        # 4 messages, 2 turns, 1 answer, 2 metadata, 1 head, 1 session; the key went with the trashing.
        assert (receipt.messages, receipt.rows, receipt.runs, receipt.files) == (4, 11, 0, 0)
        [purged] = [one for one in (await sessions.deeds(session.id)).deeds if one.what == "purged"]
        assert purged.removed
        assert (purged.removed.messages, purged.removed.rows) == (4, 11)

    @pytest.mark.parametrize("what", ["trash", "restore", "purge", "purge from outside"])
    async def test_whichever_write_fails_the_same_call_again_brings_it_to_its_end(
        self, sessions: Lifecycle, database: Database, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        monkeypatch.setattr(limits, "TREE_SESSIONS", 1)
        monkeypatch.setattr(limits, "PURGE_ROWS", 2)

        async def act(session_id: str) -> None:
            match what:
                case "trash":
                    await sessions.delete(session_id)
                case "restore":
                    await sessions.restore(session_id)
                case _:
                    await sessions.delete(session_id, purge=True)

        number, failed = 0, True
        while failed:
            number += 1
            root = await sessions.create(user_id="ana", key="k")
            child = await root.spawn()
            await child.append_turn("a", "b")
            if what in {"restore", "purge"}:
                await root.delete()
            with monkeypatch.context() as patch:
                patch.setattr(database, "write", failing := Failing(database.write, number))
                with suppress(StorageError):
                    await act(root.id)
                failed = failing.failed
            ids = [root.id, child.id]
            if failed:
                try:
                    await act(root.id)
                except SessionNotFoundError:
                    assert what != "restore"  # the rows had gone already
                except ConflictError:
                    assert what == "restore"  # they were back already
            assert await sessions.trash.resume() == []
            [[unfinished]] = await execute(database, "SELECT COUNT(*) FROM trashings WHERE step <> 'kept'")
            assert unfinished == 0
            there = [await sessions.find(one) for one in ids]
            statuses = {one.status if one else "gone" for one in there}
            wanted = {"trash": {"trashed"}, "restore": {"active"}}.get(what, {"gone"})
            assert statuses == wanted, f"write {number}"
            await self._cleared(sessions, root.id)
        assert number > 3

    async def _cleared(self, sessions: Lifecycle, session_id: str) -> None:
        if await sessions.find(session_id):
            await sessions.delete(session_id, purge=True)

    async def test_of_calls_that_meet_one_works_and_the_others_hear_of_it(self, sessions: Lifecycle) -> None:
        for _ in range(4):
            root = await sessions.create()
            child = await root.spawn()
            await root.delete()
            answers = await asyncio.gather(
                sessions.restore(root.id),
                sessions.restore(child.id),
                sessions.delete(root.id, purge=True),
                sessions.delete(child.id, purge=True),
                return_exceptions=True,
            )
            for answer in answers:
                assert not isinstance(answer, BaseException) or isinstance(
                    answer, (ConflictError, SessionNotFoundError)
                )
            assert await sessions.trash.resume() == []
            there = [one.status if (one := await sessions.find(each)) else "gone" for each in (root.id, child.id)]
            assert set(there) <= {"active", "trashed", "gone"}
            assert there != ["gone", "active"]
            assert "trashed" not in there or "active" not in there

    async def test_a_lifetime_ends_a_session_however_active_it_is(
        self, sessions: Lifecycle, database: Database
    ) -> None:
        session = await sessions.create(lifetime_s=3600, ttl_s=60)
        assert session.expires_us == session.created_us + 60_000_000
        await execute(database, "UPDATE heads SET ends_at = last_activity")
        assert (await session.refresh()).status == "expired"
        with pytest.raises(SessionExpiredError):
            await session.append_turn("a", "b")
        assert (await sessions.touch(session.id)).status == "expired"
        assert [one.id for one in (await sessions.list(status="expired")).sessions] == [session.id]
        assert (await sessions.update(session.id, Changes(lifetime_s=60))).status == "active"
        await session.append_turn("a", "b")

    @pytest.mark.parametrize(
        "change",
        [Changes(pinned=True), Changes(lifetime_s=None), Changes(lifetime_s=3600)],
        ids=["pin", "never", "more"],
    )
    async def test_a_pin_or_more_time_keeps_a_session_past_its_end(
        self, sessions: Lifecycle, database: Database, change: Changes
    ) -> None:
        session = await sessions.create(lifetime_s=60)
        await execute(database, "UPDATE sessions SET ends_at = 1")
        await execute(database, "UPDATE heads SET ends_at = 1")
        assert (await session.refresh()).status == "expired"
        await sessions.update(session.id, change)
        assert (await session.refresh()).status == "active"
        await session.append_turn("a", "b")

    async def test_a_pin_that_is_taken_off_lets_the_end_count_again(
        self, sessions: Lifecycle, database: Database
    ) -> None:
        session = await sessions.create(lifetime_s=60)
        await sessions.pin(session.id)
        await execute(database, "UPDATE sessions SET ends_at = 1")
        assert ((await session.refresh()).status, (await session.refresh()).expires_at) == ("active", None)
        await sessions.pin(session.id, pinned=False)
        assert (await session.refresh()).status == "expired"


class Failing:
    """Does every write but one, which fails as a disk would."""

    def __init__(self, write: Callable[..., Any], number: int) -> None:
        self._write = write
        self._left = number
        self.failed = False

    async def __call__(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Write, or fail."""
        self._left -= 1
        if self._left == 0:
            self.failed = True
            raise StorageError("the power is gone")
        return await self._write(operation, *args, **kwargs)
