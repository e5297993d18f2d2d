"""Sweeps with folders: what is moved, what belongs to nobody, and what is in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alcove import limits
from alcove.agents.base import AgentContext
from alcove.clock import SECOND
from alcove.hub import Alcove
from alcove.janitor.model import What
from alcove.testing.rows import execute, idle
from alcove.workspaces.service import Workspaces


@pytest.fixture
def workspaces(hub: Alcove) -> Workspaces:
    assert hub.workspaces
    return hub.workspaces


async def test_folders_follow_to_the_trash_and_out_of_it(hub: Alcove, workspaces: Workspaces, folder: Path) -> None:
    root = await hub.sessions.create(ttl_s=60)
    child = await hub.sessions.create(parent_id=root.id, ttl_s=60)
    await workspaces.write(child.id, "file", b"x" * 5000)
    for session in (root, child):
        await idle(hub.database, session.id, 3600)
    [group] = (await hub.janitor.sweep()).expired.groups
    assert group.trash_id
    trash = folder / ".alcove" / "trash"
    assert sorted(os.listdir(trash / group.trash_id)) == sorted([root.id, child.id])
    await execute(hub.database, "UPDATE trashings SET trashed_at = 1")
    swept = await hub.janitor.sweep()
    assert (swept.trash.sessions, swept.trash.size_bytes > 5000) == (2, True)
    assert os.listdir(trash) == []
    assert os.listdir(folder.parent / ".alcove" / "homes") == []


async def test_what_a_user_put_into_a_folder_by_hand_keeps_the_session(hub: Alcove, folder: Path) -> None:
    for name in ("empty", "used"):
        await hub.sessions.create(session_id=name)
        await idle(hub.database, name, 7200)
    (folder / "used" / "file").write_bytes(b"x")
    preview = await hub.janitor.clean(What.EMPTY, dry_run=True)
    cleaned = await hub.janitor.clean(What.EMPTY)
    assert [one.session_id for one in preview.groups] == [one.session_id for one in cleaned.groups] == ["empty"]


async def test_a_folder_that_cannot_move_is_told_and_tried_again(hub: Alcove, folder: Path) -> None:
    session = await hub.sessions.create(ttl_s=60)
    other = await hub.sessions.create(ttl_s=60)
    for one in (session, other):
        await idle(hub.database, one.id, 3600)
    (folder / session.id).rmdir()
    (folder / session.id).write_bytes(b"no folder")
    trash = folder / ".alcove" / "trash"
    trash.chmod(0o500)
    os.rename(trash, trash.parent / "away")
    trash.write_bytes(b"")
    try:
        swept = await hub.janitor.sweep()
    finally:
        trash.unlink()
        os.rename(trash.parent / "away", trash)
        trash.chmod(0o700)
    assert swept.expired.sessions == 2
    assert (await hub.janitor.sweep()).problems == ()
    steps = await execute(hub.database, "SELECT step FROM trashings")
    assert steps == [("kept",), ("kept",)]


async def test_strays_are_reported_and_removed_only_when_asked(
    hub: Alcove, workspaces: Workspaces, folder: Path
) -> None:
    kept, gone, trashed = [await hub.sessions.create(session_id=name) for name in ("kept", "gone", "trashed")]
    await workspaces.write(kept.id, "file", b"kept")
    await trashed.delete()
    (folder / gone.id).rmdir()
    homes = folder.parent / ".alcove" / "homes"
    strays = [folder / "stray", homes / "stray", folder / ".alcove" / "trash" / "stray"]
    for stray in strays:
        (stray / "deep").mkdir(parents=True)
        (stray / "deep" / "file").write_bytes(b"x" * 5000)
    (folder / "a file").write_bytes(b"not ours to judge")
    (folder / "link").symlink_to(homes)
    found = await hub.janitor.findings()
    assert sorted(found.strays) == sorted(str(stray) for stray in strays)
    assert found.folderless == (gone.id,)
    assert all(stray.exists() for stray in strays)
    assert (await hub.janitor.clean(What.STRAYS)).strays == (), "changed within the last hour"
    preview = await hub.janitor.clean(What.STRAYS, older_s=0, dry_run=True)
    cleaned = await hub.janitor.clean(What.STRAYS, older_s=0)
    assert preview.strays == cleaned.strays
    assert sorted(cleaned.strays) == sorted(str(stray) for stray in strays)
    assert cleaned.size_bytes > 3 * 5000
    assert not any(stray.exists() for stray in strays)
    assert (folder / "kept" / "file").read_bytes() == b"kept"
    assert (await hub.sessions.restore(trashed.id)).sessions == (trashed.id,)


async def test_what_runs_said_is_forgotten_after_a_week_but_for_its_end(hub: Alcove) -> None:
    async def echo(context: AgentContext) -> str:
        return context.message

    hub.agents.register("echo", echo)
    session = await hub.sessions.create(agent="echo")
    reply, young = await session.chat("said"), await session.chat("young")
    week = limits.JOURNAL_DAYS * 86400 * SECOND
    await execute(hub.database, "UPDATE runs SET ended_at = ended_at - ? WHERE id = ?", week, reply.run.id)
    before = [event async for event in hub.runs.events(reply.run.id)]
    assert (await hub.janitor.sweep(dry_run=True)).journals == 1
    assert (await hub.janitor.sweep()).journals == 1
    assert (await hub.janitor.sweep()).journals == 0
    gap, last = [event async for event in hub.runs.events(reply.run.id)]
    assert (gap.type, gap.data) == ("gap", {"from": 1, "to": len(before) - 1})
    assert last == before[-1]
    assert (await hub.runs.events(young.run.id).__anext__()).type == "run.queued"
    assert (await hub.runs.reply(reply.run.id)).text == "said"


async def test_a_disk_that_fills_up_is_warned_of(hub: Alcove, monkeypatch: pytest.MonkeyPatch) -> None:
    disks = await hub.janitor.disks()
    assert disks[0].holds == "base"
    assert 0 < disks[0].free_bytes < disks[0].size_bytes
    monkeypatch.setattr(limits, "DISK_LOW_BYTES", 2**62)
    [problem] = (await hub.janitor.sweep(dry_run=True)).problems[-1:]
    assert problem.startswith("the disk of the base is low")
