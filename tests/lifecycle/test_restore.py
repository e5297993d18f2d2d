"""Restoring: folders, homes and what is in them come back with the rows, or all of it stays in the trash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import alcove.hub
from alcove.errors import ConflictError
from alcove.hub import Alcove
from alcove.testing.rows import execute
from alcove.workspaces.service import Workspaces


@pytest.fixture
def workspaces(hub: Alcove) -> Workspaces:
    assert hub.workspaces
    return hub.workspaces


async def test_files_and_home_come_back(hub: Alcove, workspaces: Workspaces, folder: Path) -> None:
    root = await hub.sessions.create()
    child = await root.spawn()
    await workspaces.write(child.id, "deep/file", b"kept")
    await hub.runs.chat(child.id, "echo mine > ~/notes; chmod 000 deep")
    receipt = await root.delete()
    assert not (folder / child.id).exists()
    back = await hub.sessions.restore(root.id)
    assert (back.trash_id, back.sessions) == (receipt.trash_id, (root.id, child.id))
    assert os.listdir(folder / ".alcove" / "trash") == []
    assert (folder / child.id / "deep" / "file").read_bytes() == b"kept"
    reply = await hub.runs.chat(child.id, "chmod 700 deep; cat deep/file ~/notes")
    assert reply.text.split() == ["keptmine"]


async def test_what_is_in_the_way_of_one_folder_keeps_all_of_them_in_the_trash(
    hub: Alcove, workspaces: Workspaces, folder: Path
) -> None:
    root = await hub.sessions.create(user_id="ana", key="k")
    child = await root.spawn()
    for session in (root, child):
        await workspaces.write(session.id, "file", b"kept")
    trash = folder / ".alcove" / "trash" / (await root.delete()).trash_id
    (folder / child.id).mkdir()
    with pytest.raises(ConflictError, match="two folders"):
        await hub.sessions.restore(root.id)
    assert sorted(os.listdir(trash)) == sorted([root.id, child.id])
    assert await hub.sessions.find_key("k", user_id="ana") is None
    (folder / child.id).rmdir()
    await hub.sessions.restore(root.id)
    assert (folder / child.id / "file").read_bytes() == b"kept"


async def test_a_session_whose_folder_is_gone_comes_back_with_an_empty_one(
    hub: Alcove, workspaces: Workspaces, folder: Path
) -> None:
    session = await hub.sessions.create()
    trash = folder / ".alcove" / "trash" / (await session.delete()).trash_id
    (trash / session.id).rmdir()
    await hub.sessions.restore(session.id)
    await workspaces.write(session.id, "file", b"new")
    assert await workspaces.read(session.id, "file") == b"new"


@pytest.mark.parametrize("step", ["moving", "restoring", "purging"])
async def test_what_a_dead_process_was_doing_is_gone_on_with(
    hub: Alcove, workspaces: Workspaces, folder: Path, step: str
) -> None:
    session = await hub.sessions.create()
    await workspaces.write(session.id, "file", b"kept")
    await session.delete()
    if step != "purging":
        # The folder did not get to where the rows say that it is.
        await workspaces.untrash([(session.id, (await hub.sessions.trashings()).trashings[0].id)])
    else:
        await execute(hub.database, "UPDATE heads SET trashed = 2")
    await execute(hub.database, "UPDATE trashings SET step = ?, claim = 'gone.1:1:1/x', claimed_until = ?", step, 2**62)
    if step == "purging":
        with pytest.raises(ConflictError, match="purge"):
            await hub.sessions.restore(session.id)
    else:
        with pytest.raises(ConflictError, match="another call"):
            await hub.sessions.restore(session.id)
    # As that process would be named if it had been on this machine.
    place = hub.runs._holder.partition(":")[0]
    await execute(hub.database, "UPDATE trashings SET claim = ?", f"{place}:1:1/x")
    if step == "purging":
        assert (await session.delete(purge=True)).files == 1
        assert await hub.sessions.find(session.id) is None
    else:
        await hub.sessions.restore(session.id)
        assert await workspaces.read(session.id, "file") == b"kept"
    assert await execute(hub.database, "SELECT * FROM trashings") == []
    assert os.listdir(folder / ".alcove" / "trash") == []


async def test_sessions_come_back_without_folders_too(place: Path) -> None:
    async with alcove.hub.open("memory://") as hub:
        session = await hub.sessions.create()
        await session.append_turn("a", "b")
        await session.delete()
        await hub.sessions.restore(session.id)
        assert [one.text for one in await session.last()] == ["a", "b"]
    assert os.listdir(place) == []
