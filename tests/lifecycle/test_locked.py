"""A program that locks its own workspace locks out nobody but itself, whoever the server runs as."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alcove.errors import ConflictError
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle

ROOT = os.geteuid() == 0
LOCK = "mkdir sub; echo deep > sub/file; echo top > file; chmod 000 file sub/file sub; chmod 000 ."


async def locked(hub: Alcove) -> Handle:
    session = await hub.sessions.create()
    assert (await session.chat(LOCK)).run.status == "finished"
    return session


async def test_a_locked_workspace_is_listed_and_read_as_far_as_the_server_may_and_takes_writes(hub: Alcove) -> None:
    session = await locked(hub)
    assert hub.workspaces
    listing = await hub.workspaces.list_files(session.id)
    paths = {file.path for file in listing.files}
    if ROOT:
        assert (paths, listing.truncated) == ({"file", "sub/file"}, False)
        assert await hub.workspaces.read(session.id, "sub/file") == b"deep\n"
    else:
        assert (paths, listing.truncated) == ({"file"}, True), "what cannot be entered is not passed over in silence"
        for path in ("file", "sub/file"):
            with pytest.raises(ConflictError, match="chmod"):
                await hub.workspaces.read(session.id, path)
    await hub.workspaces.write(session.id, "new", b"content")
    await hub.workspaces.delete(session.id, "file")
    reply = await session.chat("chmod u+rwx sub; chmod u+r sub/file; cat sub/file; chmod 000 sub .")
    assert (reply.text, reply.run.exit_code) == ("deep", 0), "the next run can work in it"
    await hub.workspaces.delete(session.id, "sub", recursive=True)
    assert [file.path for file in (await hub.workspaces.list_files(session.id)).files] == ["new"]


async def test_a_locked_workspace_is_purged_whole_from_outside_the_trash_and_from_it(hub: Alcove, folder: Path) -> None:
    for trashed in (True, False):
        session = await locked(hub)
        if trashed:
            await session.delete()
        receipt = await hub.sessions.delete(session.id, purge=True)
        assert (receipt.purged, receipt.files) == (True, 2)
        assert os.listdir(folder) == [".alcove"]
        assert os.listdir(folder / ".alcove" / "trash") == []
