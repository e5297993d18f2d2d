"""Workspaces as callers use them: files of a session from outside, sizes, homes and leased uids."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import alcove.hub
from alcove import limits
from alcove.database.op import Database
from alcove.errors import (
    ConfigurationError,
    FileMissingError,
    InvalidError,
    SessionExpiredError,
    SessionNotFoundError,
    StorageError,
    TooLargeError,
)
from alcove.hub import Alcove
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute, idle
from alcove.workspaces import queries
from alcove.workspaces.model import Usage
from alcove.workspaces.service import Workspaces
from runs.world import new_place

ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="only root leases uids")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for place in new_place():
        monkeypatch.chdir(place)
        yield place


@pytest.fixture
async def hub(place: Path) -> AsyncIterator[Alcove]:
    async with alcove.hub.open(workspaces=place / "sessions") as hub:
        yield hub


@pytest.fixture
def workspaces(hub: Alcove) -> Workspaces:
    assert hub.workspaces
    return hub.workspaces


async def test_files_are_written_read_listed_and_deleted(hub: Alcove, workspaces: Workspaces) -> None:
    session = await hub.sessions.create()
    written = await workspaces.write(session.id, "deep/ü.txt", [b"hel", b"lo"])
    assert (written.path, written.size_bytes, written.kind) == ("deep/ü.txt", 5, "file")
    assert await workspaces.read(session.id, "deep/ü.txt") == b"hello"
    assert await workspaces.stat(session.id, "deep/ü.txt") == written
    fd, found = await workspaces.open_read(session.id, "deep/ü.txt")
    with os.fdopen(fd, "rb") as file:
        assert (file.read(), found) == (b"hello", written)
    await workspaces.mkdir(session.id, "empty/folder")
    listing = await workspaces.list_files(session.id)
    assert (listing.files, listing.truncated) == ((written,), False)
    await workspaces.delete(session.id, "deep", recursive=True)
    await workspaces.delete(session.id, "empty/folder")
    assert (await workspaces.list_files(session.id)).files == ()
    with pytest.raises(FileMissingError):
        await workspaces.read(session.id, "deep/ü.txt")


async def test_a_program_owns_what_was_written_from_outside(hub: Alcove, workspaces: Workspaces) -> None:
    session = await hub.sessions.create()
    await workspaces.write(session.id, "deep/file", b"from outside\n")
    reply = await session.chat("echo from inside >> deep/file; mv deep/file deep/other; cat deep/other")
    assert reply.text == "from outside\nfrom inside"
    assert await workspaces.read(session.id, "deep/other") == b"from outside\nfrom inside\n"


async def test_a_session_without_a_folder_gets_one_at_its_next_activity(hub: Alcove, workspaces: Workspaces) -> None:
    """Such as one of an older version, of `live`, or whose folder somebody removed."""
    hub.agents.register("hello", lambda context: str(os.path.isdir(context.workspace)))
    old = [(await Sessions(hub.database).create()).id for _ in range(4)]
    for session_id in old:
        assert (await workspaces.list_files(session_id)).files == ()
        assert await workspaces.usage(session_id) == Usage(size_bytes=0, files=0)
        assert not workspaces.path(session_id).exists(), "reading is no activity"
    await workspaces.write(old[0], "file", b"x")
    await hub.runs.chat(old[1], "true")
    assert (await hub.runs.chat(old[2], "go", agent="hello")).text == "True"
    await asyncio.gather(*(workspaces.ensure(old[3]) for _ in range(5)))
    for session_id in old:
        assert workspaces.path(session_id).is_dir()
        assert workspaces.home(session_id).is_dir()
    workspaces.path(old[0]).joinpath("file").unlink()
    workspaces.path(old[0]).rmdir()
    assert (await hub.runs.chat(old[0], "pwd")).text == str(workspaces.path(old[0]))


@pytest.mark.parametrize("session_id", ["nobody", "trashed", "expired"])
async def test_a_session_that_takes_no_activity_takes_no_file(
    hub: Alcove, workspaces: Workspaces, session_id: str
) -> None:
    trashed = await hub.sessions.create(session_id="trashed")
    await trashed.delete()
    await hub.sessions.create(session_id="expired", ttl_s=60)
    await idle(hub.database, "expired", 100)
    kind = SessionExpiredError if session_id == "expired" else SessionNotFoundError
    with pytest.raises(kind):
        await workspaces.write(session_id, "file", b"x")
    if session_id != "expired":
        with pytest.raises(SessionNotFoundError):
            await workspaces.ensure(session_id)
        assert not workspaces.path(session_id).exists()
        assert workspaces.home(session_id).exists() == (session_id == "trashed"), "it waits for the purge"


@pytest.mark.parametrize("session_id", ["../x", "a/b", ".", "", "x" * 300, "a\x00b", "\u2024\u2024"])
async def test_a_bad_id_names_no_folder(hub: Alcove, workspaces: Workspaces, session_id: str) -> None:
    for call in (workspaces.list_files(session_id), workspaces.stat(session_id, "x"), workspaces.measure(session_id)):
        with pytest.raises(InvalidError, match="session_id"):
            await call
    for act in (workspaces.path, workspaces.home):
        with pytest.raises(InvalidError, match="session_id"):
            act(session_id)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "n" * 300, "a\x00b"])
async def test_a_bad_path_leaves_the_session_free(hub: Alcove, workspaces: Workspaces, path: str) -> None:
    session = await hub.sessions.create()
    with pytest.raises(InvalidError):
        await workspaces.write(session.id, path, b"x")
    assert (await session.refresh()).lease_run == ""
    assert (await workspaces.list_files(session.id)).files == ()


async def test_a_write_that_fails_half_way_leaves_the_old_file_and_the_session_free(
    hub: Alcove, workspaces: Workspaces
) -> None:
    session = await hub.sessions.create()
    await workspaces.write(session.id, "file", b"old")

    def broken():
        yield b"new"
        raise ValueError("the sender went away")

    with pytest.raises(ValueError, match="went away"):
        await workspaces.write(session.id, "file", broken())
    with pytest.raises(TooLargeError):
        await workspaces.write(
            session.id, "file", (b"x" * limits.MIB for _ in range(limits.FILE_BYTES // limits.MIB + 1))
        )
    assert await workspaces.read(session.id, "file") == b"old"
    assert (await session.chat("cat file")).text == "old"


async def test_sizes_are_measured_after_every_write_and_run(hub: Alcove, workspaces: Workspaces) -> None:
    sessions = [await hub.sessions.create() for _ in range(2)]
    for session in sessions:
        await workspaces.write(session.id, "file", b"x" * 100_000)
        assert (await workspaces.usage(session.id)).files == 1
    await sessions[0].chat("head -c 500000 /dev/zero > big; rm file")
    usages = [await workspaces.usage(session.id) for session in sessions]
    assert usages == [await workspaces.measure(session.id) for session in sessions]
    assert usages[0].size_bytes > 500_000 > usages[1].size_bytes >= 100_000
    totals = await workspaces.totals()
    assert (totals.workspaces, totals.files) == (2, 2)
    assert totals.size_bytes == sum(usage.size_bytes for usage in usages)
    await workspaces.delete(sessions[0].id, "big")
    assert (await workspaces.totals()).files == 1
    await sessions[1].delete(purge=True)
    assert (await workspaces.totals()).workspaces == 1


async def test_closing_waits_for_a_write_that_is_under_way(place: Path) -> None:
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow():
        loop.call_soon_threadsafe(started.set)
        yield b"whole"

    async with alcove.hub.open(workspaces=place / "sessions") as hub:
        assert hub.workspaces
        session = await hub.sessions.create()
        writing = asyncio.create_task(hub.workspaces.write(session.id, "file", slow()))
        await started.wait()
    assert (await writing).size_bytes == 5
    assert (place / "sessions" / session.id / "file").read_bytes() == b"whole"


async def test_another_installation_may_not_have_the_same_base(hub: Alcove, place: Path) -> None:
    with pytest.raises(ConfigurationError, match="another installation"):
        async with alcove.hub.open(f"sqlite:///{place}/other.db", workspaces=place / "sessions"):
            raise AssertionError("it was opened")


async def test_homes_are_private(hub: Alcove, workspaces: Workspaces) -> None:
    ours, theirs = await hub.sessions.create(), await hub.sessions.create()
    await theirs.chat("echo secret > ~/secret; chmod -R 777 ~")
    secret = workspaces.home(theirs.id) / "secret"
    reply = await ours.chat(f"cat {secret}; ls {workspaces.home(theirs.id)}; ls {workspaces.home(theirs.id).parent}")
    assert "secret\n" not in reply.text
    # The negative control: whoever is not confined reads it.
    assert secret.read_text() == "secret\n"
    assert not stat.S_IMODE(workspaces.home(ours.id).parent.stat().st_mode) & 0o066


@as_root
async def test_each_session_has_a_uid_of_its_own_and_keeps_it(hub: Alcove, workspaces: Workspaces) -> None:
    sessions = [await hub.sessions.create() for _ in range(5)]
    uids = [int((await session.chat("id -u")).text) for session in sessions]
    assert len(set(uids)) == 5
    assert all(uid > 1_000_000_000 for uid in uids)
    assert [await workspaces.ensure(session.id) for session in sessions] == uids
    await sessions[2].delete()
    assert await workspaces.ensure((await hub.sessions.create()).id) not in uids, "the trash keeps its uid"
    assert {workspaces.path(session.id).stat().st_uid for session in sessions[:2]} == set(uids[:2])


async def test_uids_are_leased_at_once_without_a_double(hub: Alcove) -> None:
    sessions = [await Sessions(hub.database).create() for _ in range(40)]
    uids = await asyncio.gather(*(hub.database.write(queries.settle, one.id, (1000, 1050)) for one in sessions))
    if not ROOT:
        assert sorted(uids) == list(range(1000, 1040))
    assert len(set(uids)) == 40


async def test_uids_are_used_again_only_when_all_were_and_their_session_is_purged(database: Database) -> None:
    sessions = Sessions(database)
    ids = [(await sessions.create()).id for _ in range(5)]

    async def settle(number: int) -> int:
        return await database.write(queries.settle, ids[number], (1000, 1002))

    assert [await settle(number) for number in (0, 1, 2)] == [1000, 1001, 1002]
    assert await settle(1) == 1001
    with pytest.raises(StorageError, match="all 3 uids") as caught:
        await settle(3)
    assert "purge" in caught.value.remedy
    assert await database.read(queries.find, ids[3]) is None
    for freed, number in ((0, 3), (1, 4)):
        await database.write(queries.forget, ids[freed])
        assert await settle(number) == 1000 + freed
    assert len(await execute(database, "SELECT uid FROM uids")) == 3
