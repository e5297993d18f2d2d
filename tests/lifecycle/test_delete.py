"""Deletion: to the trash with everything below, or for good with everything of it, and nothing beside it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

import alcove.hub
from alcove import limits
from alcove.errors import ConflictError, FileMissingError, SessionNotFoundError, StorageError
from alcove.hub import Alcove
from alcove.lifecycle import queries
from alcove.lifecycle.service import Handle
from alcove.testing.rows import execute
from runs.world import Other, alive, rows_with, said, waiting


async def test_a_deleted_session_is_in_the_trash_with_its_descendants(hub: Alcove, folder: Path) -> None:
    root = await hub.sessions.create(user_id="ana", key="k")
    child = await root.spawn()
    grandchild = await child.spawn()
    beside = await hub.sessions.create()
    await hub.workspaces.write(grandchild.id, "file", b"kept")  # pyright: ignore[reportOptionalMemberAccess]
    receipt = await root.delete()
    assert (receipt.purged, receipt.messages, receipt.files) == (False, 0, 0)
    assert receipt.sessions == (root.id, child.id, grandchild.id)
    trash = folder / ".alcove" / "trash" / receipt.trash_id
    assert sorted(os.listdir(trash)) == sorted(receipt.sessions)
    assert (trash / grandchild.id / "file").read_bytes() == b"kept"
    assert sorted(os.listdir(folder)) == [".alcove", beside.id]
    for gone in receipt.sessions:
        with pytest.raises(SessionNotFoundError, match="trash"):
            await hub.sessions.get(gone)
    # The key is free at once, the id is not.
    assert (await hub.sessions.create(user_id="ana", key="k")).id != root.id


async def test_deleting_ends_what_runs_in_the_whole_subtree(hub: Alcove) -> None:
    root = await hub.sessions.create()
    sessions = [root, await root.spawn(), await root.spawn()]
    for session in sessions:
        run = await hub.runs.start(session.id, waiting(f"marker-{root.id}"))
        await said(hub, run.id, "ready")
    await root.delete()
    assert alive(f"marker-{root.id}") == []
    assert hub.runs.live_count == 0
    for session in sessions:
        assert [run.status for run in (await hub.runs.list(session.id)).runs] == ["cancelled"]


@pytest.mark.parametrize("purge", [False, True])
async def test_deleting_ends_what_runs_in_another_process(hub: Alcove, folder: Path, purge: bool) -> None:
    session = await hub.sessions.create()
    async with Other(folder, renew_s=0.2) as other:
        run = await other.call("start", session.id, waiting(f"marker-{session.id}", "cd; exec > out"))
        while not alive(f"marker-{session.id}"):
            await asyncio.sleep(0.01)
        await session.delete(purge=purge)
        # Ended before its folder went, not at some time afterwards.
        assert alive(f"marker-{session.id}") == []
        if purge:
            assert (await other.call("get", run["id"]))["error"] == "RunNotFoundError"
            assert not os.path.lexists(folder / session.id)
            assert not list((folder.parent / ".alcove" / "homes").iterdir())


@pytest.mark.parametrize("purge", [False, True])
@pytest.mark.parametrize("session_id", ["nobody", "../x", "a/b", "", "x" * 300, "a\x00b"])
async def test_deleting_what_is_not_there_is_an_error(hub: Alcove, session_id: str, purge: bool) -> None:
    with pytest.raises(SessionNotFoundError):
        await hub.sessions.delete(session_id, purge=purge)


async def test_deleting_twice_says_that_it_is_in_the_trash(hub: Alcove) -> None:
    session = await hub.sessions.create()
    await session.delete()
    with pytest.raises(SessionNotFoundError, match="in the trash") as caught:
        await session.delete()
    assert "purge" in caught.value.remedy


async def _full(hub: Alcove) -> Handle:
    """A session that has something of everything."""
    assert hub.workspaces
    session = await hub.sessions.create(user_id="ana", key="k", metadata={"a": 1, "b": "c"})
    await session.append_turn("a", "b", idempotency_key="key")
    await hub.messages.pop(session.id)
    run = await hub.runs.start(session.id, "echo 1 > one; echo 2 > two; echo 3 > ~/three", idempotency_key="key")
    await hub.runs.reply(run.id)
    await hub.workspaces.write(session.id, "deep/four", b"4")
    return session


async def test_a_purge_leaves_no_row_file_or_home_and_its_receipt_is_right(hub: Alcove, folder: Path) -> None:
    session, beside = await _full(hub), await hub.sessions.create(user_id="ben")
    await beside.append_turn("a", "b")
    [[events]] = await execute(hub.database, "SELECT COUNT(*) FROM events")
    there = await rows_with(hub, session.id)
    expected = {"sessions", "heads", "turns", "messages", "session_keys", "session_metadata", "workspaces", "runs"}
    assert there.keys() >= expected | {"idempotency"}
    receipt = await session.delete(purge=True)
    assert (receipt.sessions, receipt.purged) == ((session.id,), True)
    assert (receipt.messages, receipt.events, receipt.files) == (4, events, 4)
    assert receipt.size_bytes >= 4
    assert await rows_with(hub, session.id) == {}
    [[left]] = await execute(hub.database, "SELECT COUNT(*) FROM events")
    assert left == 0
    assert sorted(os.listdir(folder)) == [".alcove", beside.id]
    assert os.listdir(folder / ".alcove" / "trash") == []
    assert os.listdir(folder.parent / ".alcove" / "homes") == [beside.id]
    assert (await beside.refresh()).message_count == 2


async def test_the_trash_can_be_purged(hub: Alcove, folder: Path) -> None:
    session = await _full(hub)
    trashed = await session.delete()
    receipt = await session.delete(purge=True)
    assert (receipt.trash_id, receipt.messages, receipt.files) == (trashed.trash_id, 4, 4)
    assert await rows_with(hub, session.id) == {}
    assert os.listdir(folder / ".alcove" / "trash") == []
    with pytest.raises(SessionNotFoundError):
        await session.delete(purge=True)


async def test_purging_one_member_of_a_trashing_leaves_the_others(hub: Alcove, folder: Path) -> None:
    root = await hub.sessions.create()
    child, other = await root.spawn(), await root.spawn()
    for session in (root, child, other):
        await hub.workspaces.write(session.id, "file", b"kept")  # pyright: ignore[reportOptionalMemberAccess]
    trash = folder / ".alcove" / "trash" / (await root.delete()).trash_id
    receipt = await child.delete(purge=True)
    assert (receipt.sessions, receipt.files) == ((child.id,), 1)
    assert sorted(os.listdir(trash)) == sorted([root.id, other.id])
    assert (trash / other.id / "file").read_bytes() == b"kept"
    assert await hub.sessions.find(other.id)
    assert (await root.delete(purge=True)).sessions == (root.id, other.id)
    assert not trash.exists()


async def test_what_was_trashed_before_stays_when_its_parent_is_purged(hub: Alcove, folder: Path) -> None:
    root = await hub.sessions.create()
    child = await root.spawn()
    first = await child.delete()
    assert (await root.delete(purge=True)).sessions == (root.id,)
    assert os.listdir(folder / ".alcove" / "trash" / first.trash_id) == [child.id]
    assert (await child.delete(purge=True)).sessions == (child.id,)


async def test_a_purge_goes_in_steps_through_a_large_session_and_a_large_tree(
    hub: Alcove, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(limits, "PURGE_ROWS", 3)
    monkeypatch.setattr(limits, "TREE_SESSIONS", 2)
    root = await hub.sessions.create()
    last = root
    for _ in range(4):
        last = await last.spawn()
        await root.spawn()
    for _ in range(5):
        await root.append_turn("a", "b", idempotency_key=f"key-{_}")
    for _ in range(2):
        await last.chat("true")
    [[events]] = await execute(hub.database, "SELECT COUNT(*) FROM events")
    receipt = await root.delete(purge=True)
    assert (len(receipt.sessions), receipt.messages, receipt.events) == (9, 14, events)
    assert receipt.sessions[0] == root.id
    for table in ("sessions", "heads", "turns", "messages", "idempotency", "workspaces", "uids", "runs", "events"):
        assert (await execute(hub.database, f"SELECT COUNT(*) FROM {table}"))[0][0] == 0, table
    assert os.listdir(folder) == [".alcove"]


@pytest.mark.parametrize("at", range(6))
async def test_an_interrupted_purge_is_finished_by_purging_again(
    hub: Alcove, monkeypatch: pytest.MonkeyPatch, folder: Path, at: int
) -> None:
    root = await hub.sessions.create()
    sessions = [root, await root.spawn()]
    sessions.append(await sessions[1].spawn())
    for session in sessions:
        await session.append_turn("a", "b")
        await hub.workspaces.write(session.id, "file", b"x")  # pyright: ignore[reportOptionalMemberAccess]
    write, left = hub.database.write, [at]

    async def failing(operation: Any, *arguments: Any, **more: Any) -> Any:
        if operation is queries.purge:
            if not left[0]:
                raise StorageError("the power is gone")
            left[0] -= 1
        return await write(operation, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(hub.database, "write", failing)
        with pytest.raises(StorageError):
            await root.delete(purge=True)
    await root.delete(purge=True)
    for session in sessions:
        assert await rows_with(hub, session.id) == {}
    assert os.listdir(folder) == [".alcove"]


async def test_a_purge_that_a_process_stands_in_the_way_of_can_be_repeated(
    hub: Alcove, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alcove.workspaces import base

    session = await hub.sessions.create()

    def stuck(folder: int, name: bytes) -> None:
        raise ConflictError("a process still writes there")

    with monkeypatch.context() as patch:
        patch.setattr(base, "remove", stuck)
        with pytest.raises(ConflictError):
            await session.delete(purge=True)
    with pytest.raises(SessionNotFoundError):
        await hub.sessions.get(session.id)
    assert (await session.delete(purge=True)).purged
    assert await rows_with(hub, session.id) == {}


@pytest.mark.parametrize("purge", [False, True])
async def test_a_session_that_is_used_while_it_is_deleted_leaves_nothing(
    hub: Alcove, folder: Path, purge: bool
) -> None:
    assert hub.workspaces
    workspaces = hub.workspaces

    async def use(session: Handle) -> None:
        while True:
            try:
                await session.chat("echo x > file; sleep 0.01")
                await workspaces.write(session.id, "other", b"x")
                await session.append_turn("a", "b")
            except SessionNotFoundError:
                return
            except ConflictError:
                continue  # busy, or its folder has just gone
            except FileMissingError:
                continue

    ids: list[str] = []
    for number in range(8):
        session, _ = await hub.sessions.live("ana", str(number))
        ids.append(session.id)
        users = [asyncio.create_task(use(session)) for _ in range(3)]
        await asyncio.sleep(0.01 * number)
        await session.delete(purge=purge)
        await asyncio.gather(*users)
    assert os.listdir(folder) == [".alcove"]
    if purge:
        for session_id in ids:
            assert await rows_with(hub, session_id) == {}
        assert os.listdir(folder / ".alcove" / "trash") == []
        assert os.listdir(folder.parent / ".alcove" / "homes") == []


async def test_a_folder_that_comes_too_late_goes_again(hub: Alcove, folder: Path) -> None:
    assert hub.workspaces
    session = await hub.sessions.create()
    # The purge happens between the look at the rows and the making of the folder.
    make = hub.workspaces._make
    loop = asyncio.get_running_loop()

    def late(session_id: str, uid: int | None, guarded: bool) -> None:
        asyncio.run_coroutine_threadsafe(hub.sessions.delete(session_id, purge=True), loop).result(20)
        make(session_id, uid, guarded)

    hub.workspaces._make = late
    with pytest.raises(SessionNotFoundError):
        await hub.workspaces.ensure(session.id)
    assert os.listdir(folder) == [".alcove"]
    assert os.listdir(folder.parent / ".alcove" / "homes") == []
    assert await rows_with(hub, session.id) == {}


async def test_deletion_works_without_folders(place: Path) -> None:
    async with alcove.hub.open("memory://") as hub:
        session = await hub.sessions.create()
        await session.append_turn("a", "b")
        receipt = await session.delete(purge=True)
        assert (receipt.messages, receipt.files) == (2, 0)
    assert os.listdir(place) == []
