"""SIGKILL at each step, full disks, mounts, and whatever a program leaves: before or after, never between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alcove.hub import Alcove
from alcove.janitor.model import What
from alcove.testing.rows import execute, idle
from alcove.workspaces.service import Workspaces

DYING = Path(__file__).with_name("dying.py")
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
ENDS = {
    "trash": {"active", "trashed"},
    "sweep": {"expired", "trashed"},
    "restore": {"active", "trashed"},
    "purge": {"trashed", "gone"},
    "purge from outside": {"active", "trashed", "gone"},
    "empty": {"trashed", "gone"},
}


@pytest.fixture
def workspaces(hub: Alcove) -> Workspaces:
    assert hub.workspaces
    return hub.workspaces


async def _state(hub: Alcove, folder: Path, sessions: list[str]) -> str:
    """Return where these sessions are, all of them with rows and files; anything in between is an error."""
    trash = folder / ".alcove" / "trash"
    found = [await hub.sessions.find(one) for one in sessions]
    [state] = {one.status if one else "gone" for one in found}
    assert await execute(hub.database, "SELECT * FROM trashings WHERE step <> 'kept'") == []
    places = {one: [*trash.glob(f"*/{one}/deep/file"), *folder.glob(f"{one}/deep/file")] for one in sessions}
    if state == "gone":
        assert places == {one: [] for one in sessions}
        assert not any((folder.parent / ".alcove" / "homes" / one).exists() for one in sessions)
        assert await execute(hub.database, "SELECT * FROM trashings") == []
        assert list(trash.iterdir()) == []
        return state
    for one, [place] in places.items():
        assert place.read_bytes() == one.encode()
        assert place.is_relative_to(trash) == (state == "trashed")
    root = found[0]
    assert root
    assert root.child_count == len(sessions) - 1
    return state


@pytest.mark.long
@pytest.mark.parametrize("what", list(ENDS))
async def test_a_kill_at_any_step_leaves_what_was_or_what_is_to_be(
    hub: Alcove, workspaces: Workspaces, folder: Path, what: str
) -> None:
    ends: set[str] = set()
    number, killed = 0, True
    while killed:
        number += 1
        root = await hub.sessions.create(session_id=f"root{number}", ttl_s=600)
        child = await hub.sessions.create(session_id=f"child{number}", parent_id=root.id, ttl_s=600)
        sessions = [root.id, child.id]
        for one in sessions:
            await workspaces.write(one, "deep/file", one.encode())
            if what == "sweep":
                await idle(hub.database, one, 3600)
        if what in {"restore", "purge", "empty"}:
            await root.delete()
        done = subprocess.run(
            [sys.executable, str(DYING), str(folder), what, root.id, str(number)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        killed = done.returncode == -9
        assert killed or done.returncode == 0, done.stderr
        assert await hub.sessions.trash.resume() == []
        ends.add(await _state(hub, folder, sessions))
        await hub.sessions.delete(root.id, purge=True) if await hub.sessions.find(root.id) else None
        assert await _state(hub, folder, sessions) == "gone"
    assert ends == ENDS[what], "each side of the moment at which it is decided was seen"


async def test_whatever_a_program_leaves_in_its_folder_goes(hub: Alcove, workspaces: Workspaces, folder: Path) -> None:
    session = await hub.sessions.create(ttl_s=60)
    place = folder / session.id
    below = os.open(place, os.O_RDONLY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=below)
        deeper = os.open("d", os.O_RDONLY, dir_fd=below)
        os.close(below)
        below = deeper
    os.close(below)
    (place / ("ü" * 127 + "x")).write_bytes(b"x")
    (place / "locked").mkdir()
    (place / "locked" / "file").write_bytes(b"x")
    (place / "locked").chmod(0)
    (place / "link").symlink_to("/")
    for number in range(1000):
        (place / f"link{number}").symlink_to(f"link{number + 1}")  # each leads to the next, the last nowhere
    with (place / "held").open("wb") as held:
        held.write(b"x" * 4096)
        await idle(hub.database, session.id, 3600)
        assert (await hub.janitor.sweep()).problems == ()
        cleaned = await hub.janitor.clean(What.TRASH, older_s=0)
    assert (cleaned.sessions, cleaned.problems) == (1, ())
    [purged] = [one for one in (await hub.sessions.deeds(session.id)).deeds if one.what == "purged"]
    assert purged.removed
    assert (purged.removed.files, purged.removed.folders >= 1002) == (1004, True)
    assert list((folder / ".alcove" / "trash").iterdir()) == []


FULL = """
import asyncio, ctypes, os, sys
from pathlib import Path

import alcove.hub
from alcove import limits
from alcove.errors import DatabaseError, StorageError
from alcove.janitor.model import What
from alcove.testing.rows import execute, idle

libc = ctypes.CDLL(None, use_errno=True)

def mount(path, size):
    assert libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, f"size={size}".encode()) == 0, ctypes.get_errno()

limits.LOG_ROOM_PAGES = 0  # what the log has room for succeeds on a full disk

async def main(top):
    mount(top, "4m")
    os.chdir(top)
    base = top / "sessions"
    async with alcove.hub.open(workspaces=base) as hub:
        failed = 0
        acts = {
            "trash": lambda one: hub.sessions.delete(one),
            "sweep": lambda one: hub.janitor.clean(What.EXPIRED),
            "restore": lambda one: hub.sessions.restore(one),
            "purge": lambda one: hub.sessions.delete(one, purge=True),
        }
        for what, act in acts.items():
            root = await hub.sessions.create(session_id=what, ttl_s=600)
            (base / what / "file").write_bytes(b"kept")  # of us it would hear that the disk is nearly full
            await idle(hub.database, what, 3600) if what == "sweep" else None
            await root.delete() if what in {"restore", "purge"} else None
            with open(top / "filler", "wb", buffering=0) as filler:
                try:
                    while True:
                        filler.write(b"x" * 4096)
                except OSError:
                    pass
            try:
                await act(what)
            except (DatabaseError, StorageError) as error:
                assert error.remedy, error
                failed += 1
            os.unlink(top / "filler")
            assert await hub.sessions.trash.resume() == []
            assert await execute(hub.database, "SELECT * FROM trashings WHERE step <> 'kept'") == []
            found = await hub.sessions.find(what)
            kept = [*base.glob(f"{what}/file"), *base.glob(f".alcove/trash/*/{what}/file")]
            assert [one.read_bytes() for one in kept] == ([b"kept"] if found else []), (what, found, kept)
            if found:
                await hub.sessions.delete(what, purge=True)
        assert failed >= 2, failed

        root = await hub.sessions.create(session_id="mounted", ttl_s=600)
        (base / "mounted" / "inside").mkdir()
        mount(base / "mounted" / "inside", "1m")
        (base / "mounted" / "inside" / "file").write_bytes(b"not the session's")
        await idle(hub.database, "mounted", 3600)
        assert (await hub.janitor.sweep()).expired.sessions == 1
        cleaned = await hub.janitor.clean(What.TRASH, older_s=0)
        assert cleaned.sessions == 0 and "mounted" in cleaned.problems[0], cleaned
        [inside] = base.glob(".alcove/trash/*/mounted/inside")
        assert (inside / "file").read_bytes() == b"not the session's"
        assert libc.umount2(os.fsencode(inside), 0) == 0
        problems = (await hub.janitor.sweep()).problems
        assert not any("mounted" in problem for problem in problems), problems
        assert problems[0].startswith("the disk of the base is low"), problems
        assert await hub.sessions.find("mounted") is None

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_and_a_mount_leave_what_was_or_what_is_to_be(tmp_path: Path) -> None:
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets this user make no mount namespace")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
