"""A session comes with its folder, or not at all."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from alcove.errors import AlcoveError, AlreadyExistsError, SessionNotFoundError, StorageError
from alcove.hub import Alcove
from alcove.testing.rows import execute
from runs.world import rows_with

# Not as root of a namespace with a single uid, which is no place for a server.
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"])]


async def test_a_session_has_a_folder_and_a_home_of_its_own(hub: Alcove, folder: Path) -> None:
    session = await hub.sessions.create(user_id="ana", title="t", metadata={"a": 1})
    uid = await _uid(hub, session.id)
    for place in (folder / session.id, folder.parent / ".alcove" / "homes" / session.id):
        info = place.stat()
        assert stat.S_IMODE(info.st_mode) == 0o700
        assert (info.st_uid, info.st_gid) == (uid, uid if os.geteuid() == 0 else os.getegid())
    assert (uid != 0) == (os.geteuid() == 0) or uid == os.geteuid()


async def test_children_have_folders_beside_their_parents_(hub: Alcove, folder: Path) -> None:
    parent = await hub.sessions.create(session_id="parent", user_id="ana")
    child = await parent.spawn(title="child")
    assert (child.parent_id, child.root_id, child.user_id) == (parent.id, parent.id, "ana")
    assert (folder / child.id).is_dir()
    assert [one.id for one in (await parent.children()).sessions] == [child.id]


async def test_an_id_that_is_taken_leaves_the_folder_of_its_owner(hub: Alcove, folder: Path) -> None:
    await hub.sessions.create(session_id="mine")
    (folder / "mine" / "file").write_text("x")
    with pytest.raises(AlreadyExistsError):
        await hub.sessions.create(session_id="mine")
    assert (folder / "mine" / "file").read_text() == "x"


async def test_a_folder_that_cannot_be_made_takes_its_session_back(hub: Alcove, folder: Path) -> None:
    (folder / "taken").write_text("somebody's file")
    with pytest.raises(AlreadyExistsError, match="taken"):
        await hub.sessions.create(session_id="taken", user_id="ana", key="k", idempotency_key="key", metadata={"a": 1})
    assert await hub.sessions.find("taken") is None
    assert await rows_with(hub, "taken") == {}
    # The reason gone, the same request may be made again: id and both keys are free.
    (folder / "taken").unlink()
    again = await hub.sessions.create(
        session_id="taken", user_id="ana", key="k", idempotency_key="key", metadata={"a": 1}
    )
    assert again.id == "taken"
    assert (folder / "taken").is_dir()


async def test_a_folder_that_was_there_before_is_not_taken_back(
    hub: Alcove, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "adopted").mkdir()
    (folder / "adopted" / "file").write_text("x")
    homes = folder.parent / ".alcove" / "homes"
    (homes / "adopted").write_text("no folder")
    with pytest.raises(AlcoveError):
        await hub.sessions.create(session_id="adopted")
    assert await hub.sessions.find("adopted") is None
    assert (folder / "adopted" / "file").read_text() == "x"
    (homes / "adopted").unlink()
    session = await hub.sessions.create(session_id="adopted")
    assert (await session.chat("ls")).text == "file"


async def test_a_repetition_never_takes_back_what_was_created_before(
    hub: Alcove, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await hub.sessions.create(idempotency_key="key")
    await session.append_turn("a", "b")

    async def broken(session_id: str) -> None:
        raise StorageError("no")

    monkeypatch.setattr(hub.workspaces, "ensure", broken)
    assert (await hub.sessions.create(idempotency_key="key")).id == session.id
    assert (await session.refresh()).message_count == 2


async def test_a_caller_that_goes_away_leaves_a_session_or_none_but_no_half(
    hub: Alcove, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.workspaces
    going, ensure = asyncio.Event(), hub.workspaces.ensure

    async def slow(session_id: str) -> int | None:
        going.set()
        await asyncio.sleep(1000)
        return await ensure(session_id)

    with monkeypatch.context() as patch:
        patch.setattr(hub.workspaces, "ensure", slow)
        creating = asyncio.create_task(hub.sessions.create(session_id="mine", idempotency_key="key"))
        await going.wait()
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
    session = await hub.sessions.create(session_id="mine", idempotency_key="key")
    assert (await session.chat("echo works")).text == "works"


async def test_a_child_of_nobody_leaves_no_folder(hub: Alcove, folder: Path) -> None:
    before = sorted(folder.iterdir())
    with pytest.raises(SessionNotFoundError, match="parent"):
        await hub.sessions.spawn("nobody")
    assert sorted(folder.iterdir()) == before


async def test_live_gives_one_session_and_its_folder_comes_with_the_first_need(hub: Alcove, folder: Path) -> None:
    session, made = await hub.sessions.live("ana")
    again, made_again = await hub.sessions.live("ana")
    assert (again.id, made, made_again) == (session.id, True, False)
    assert not (folder / session.id).exists()
    assert (await session.chat("pwd")).text == str(folder / session.id)


FULL = """
import asyncio, ctypes, os, sys
import alcove.hub
from alcove.errors import StorageError

place, way = sys.argv[1:]

def mount(flags, data):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(place + "/sessions"), b"tmpfs", flags, data):
        raise OSError(ctypes.get_errno(), "mount")

async def main():
    os.mkdir(place + "/sessions", 0o711)
    mount(0, b"mode=711,nr_inodes=16")
    async with alcove.hub.open(workspaces=place + "/sessions") as hub:
        first = await hub.sessions.create()
        if way == "full":
            for number in range(100):
                try:
                    os.mkdir(f"{place}/sessions/{number}")
                except OSError:
                    break
        else:
            mount(32 | 1, None)  # MS_REMOUNT | MS_RDONLY
        try:
            await hub.sessions.create(session_id="second", idempotency_key="key")
        except StorageError as error:
            assert error.remedy, error
        else:
            raise AssertionError("it was made")
        assert await hub.sessions.find("second") is None
        assert [one.id for one in (await hub.sessions.list()).sessions] == [first.id]
        if way == "full":
            for left in range(number):
                os.rmdir(f"{place}/sessions/{left}")
        else:
            mount(32, None)
        await hub.sessions.create(session_id="second", idempotency_key="key")
        assert os.path.isdir(f"{place}/sessions/second")

asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["full", "read-only"])
def test_a_disk_that_takes_no_folder_leaves_no_session(place: Path, way: str) -> None:
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets this user make no mount namespace")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", FULL, str(place), way],
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr


async def _uid(hub: Alcove, session_id: str) -> int:
    [[uid]] = await execute(hub.database, "SELECT uid FROM workspaces WHERE session_id = ?", session_id)
    return uid or os.geteuid()
