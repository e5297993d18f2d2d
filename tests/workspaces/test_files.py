"""Files of a session as Python callers use them: streams, conditions, moves, archives, quotas and watches."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

import alcove.hub
from alcove import limits
from alcove.agents.base import AgentContext
from alcove.errors import (
    AlreadyExistsError,
    ConflictError,
    FileMissingError,
    InvalidError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleEpochError,
    StorageError,
    TooLargeError,
    VersionMismatchError,
)
from alcove.events.model import Event
from alcove.hub import Alcove
from alcove.sessions import heads
from alcove.sessions.heads import Fence
from alcove.testing.rows import idle
from alcove.workspaces.model import MISSING, Condition, Usage
from alcove.workspaces.service import Workspaces
from runs.world import new_place, until
from workspaces.tars import gz, member, names


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
def files(hub: Alcove) -> Workspaces:
    assert hub.workspaces
    return hub.workspaces


@pytest.fixture
async def own(hub: Alcove) -> str:
    return (await hub.sessions.create(session_id="own")).id


async def slowly(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def leftovers(place: Path) -> list[str]:
    return os.listdir(place / "sessions/.alcove/temp")


async def test_a_stream_is_written_and_read_back(files: Workspaces, own: str, place: Path) -> None:
    content = os.urandom(2 * limits.MIB + 17)
    written = await files.stream_write(
        own, "d/big", slowly(*(content[i : i + 70_000] for i in range(0, 2**22, 70_000)))
    )
    assert (written.size_bytes, written.path) == (len(content), "d/big")
    assert b"".join([piece async for piece in files.iter_read(own, "d/big")]) == content
    assert b"".join([piece async for piece in files.iter_read(own, "d/big", start=limits.MIB)]) == content[limits.MIB :]
    with open(place / "source", "wb") as source:
        source.write(content)
    with open(place / "source", "rb") as source:
        await files.stream_write(own, "from-a-file", source)
    assert await files.read(own, "from-a-file") == content
    assert (await files.stream_write(own, "empty", slowly())).size_bytes == 0
    assert leftovers(place) == []
    assert await files.usage(own) == await files.measure(own)


async def test_a_stream_may_be_larger_than_what_is_read_whole(files: Workspaces, own: str) -> None:
    pieces = [b"x" * limits.MIB] * (limits.FILE_BYTES // limits.MIB + 1)
    await files.stream_write(own, "f", pieces)
    with pytest.raises(TooLargeError):
        await files.read(own, "f")
    with pytest.raises(TooLargeError):
        await files.write(own, "g", pieces)


@pytest.mark.parametrize("how", ["breaks", "limit", "cancelled"])
async def test_a_stream_that_does_not_end_well_changes_nothing(
    files: Workspaces, own: str, place: Path, how: str
) -> None:
    await files.write(own, "f", b"old")
    before = await files.stat(own, "f")
    begun = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield b"x" * 3 * limits.MIB
        begun.set()
        if how == "breaks":
            raise ValueError("the sender went away")
        if how == "cancelled":
            await asyncio.Event().wait()

    writing = asyncio.create_task(
        files.stream_write(own, "f", source(), limit_bytes=limits.MIB if how == "limit" else None)
    )
    if how == "cancelled":
        await begun.wait()
        writing.cancel()
    kinds = {"breaks": ValueError, "limit": TooLargeError, "cancelled": asyncio.CancelledError}
    with pytest.raises(kinds[how]):
        await writing
    assert await files.stat(own, "f") == before
    assert leftovers(place) == []


async def test_a_slow_sender_holds_nobody_up(hub: Alcove, files: Workspaces, own: str) -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield b"x" * 2 * limits.MIB
        begun.set()
        await go.wait()

    writing = asyncio.create_task(files.stream_write(own, "slow", source()))
    await begun.wait()
    await files.write(own, "quick", b"x")
    assert (await hub.runs.chat(own, "ls")).text == "quick"
    go.set()
    assert (await writing).size_bytes == 2 * limits.MIB


async def test_uploads_that_never_end_take_no_more_than_their_share(
    hub: Alcove, files: Workspaces, own: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_UPLOADS", 2)
    monkeypatch.setattr(limits, "UPLOADS", 3)
    go = asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        await go.wait()
        yield gz(member("x", b"x"))

    async def refused(session_id: str) -> list[object]:
        found: list[object] = []
        for change in (files.stream_write(session_id, "f", b"x"), files.extract(session_id, gz(), "f")):
            with pytest.raises(ConflictError, match="uploads of") as raised:
                await change
            found.append(raised.value.limit)
        return found

    other, third = (await hub.sessions.create()).id, (await hub.sessions.create()).id
    held: list[asyncio.Task[object]] = [asyncio.create_task(files.stream_write(own, "a", source()))]
    held.append(asyncio.create_task(files.extract(own, source(), "b")))
    await until(lambda: len(leftovers(place)) == 2)
    assert await refused(own) == [2, 2]
    held.append(asyncio.create_task(files.stream_write(other, "c", source())))
    await until(lambda: len(leftovers(place)) == 3)
    assert await refused(third) == [3, 3]
    await files.write(own, "quick", b"what is there as a whole holds no place")
    go.set()
    await asyncio.gather(*held)
    await files.stream_write(third, "f", b"x")


async def test_writes_of_one_process_take_turns(files: Workspaces, own: str) -> None:
    await asyncio.gather(*(files.write(own, f"d/{number}", b"x") for number in range(20)))
    assert (await files.usage(own)).files == 20


async def test_every_change_is_refused_while_a_run_holds_the_session_and_the_runs_own_is_not(
    hub: Alcove, files: Workspaces, own: str
) -> None:
    await files.write(own, "f", b"x")
    fence = await hub.database.write(heads.hold, own, "run-1", 60_000_000)

    async def changes(fence: Fence | None) -> None:
        await files.write(own, "a", b"1", fence=fence)
        await files.stream_write(own, "b", slowly(b"2"), fence=fence)
        await files.mkdir(own, "c", fence=fence)
        await files.move(own, "a", "c/a", replace=True, fence=fence)
        await files.extract(own, slowly(gz(member("d", b"3"))), "e", replace=True, fence=fence)
        await files.delete(own, "b", fence=fence)

    for change in (
        files.write(own, "a", b"1"),
        files.stream_write(own, "a", slowly(b"1")),
        files.mkdir(own, "c"),
        files.move(own, "f", "g"),
        files.extract(own, slowly(gz(member("d", b"3")))),
        files.delete(own, "f"),
    ):
        with pytest.raises(SessionBusyError):
            await change
    assert [file.path for file in (await files.list_files(own)).files] == ["f"]
    await changes(fence)
    assert [file.path for file in (await files.list_files(own)).files] == ["c/a", "e/d", "f"]
    await hub.database.write(heads.release, own, fence)
    with pytest.raises(StaleEpochError):
        await files.write(own, "late", b"x", fence=fence)
    await changes(None)


async def test_a_function_agent_changes_files_of_its_run(hub: Alcove, files: Workspaces, own: str) -> None:
    async def agent(context: AgentContext) -> str:
        assert context.files
        await context.files.write("made", b"by the agent")
        await context.files.move("made", "kept")
        with pytest.raises(SessionBusyError):
            await files.write(own, "other", b"from outside")
        return (await context.files.read("kept")).decode()

    hub.agents.register("writer", agent)
    assert (await hub.runs.chat(own, "go", agent="writer")).text == "by the agent"
    assert (await files.list_files(own)).files[0].path == "kept"


@pytest.mark.parametrize("session_id", ["nobody", "trashed", "expired"])
async def test_a_session_that_takes_no_activity_hears_it_before_it_sends(
    hub: Alcove, files: Workspaces, session_id: str
) -> None:
    await (await hub.sessions.create(session_id="trashed")).delete()
    await hub.sessions.create(session_id="expired", ttl_s=60)
    await idle(hub.database, "expired", 100)

    async def source() -> AsyncIterator[bytes]:
        raise AssertionError("it was asked for content")
        yield b""

    kind = SessionExpiredError if session_id == "expired" else SessionNotFoundError
    for change in (files.stream_write(session_id, "f", source()), files.extract(session_id, source())):
        with pytest.raises(kind):
            await change


async def test_a_condition_is_looked_at_under_the_lease(files: Workspaces, own: str) -> None:
    first = await files.write(own, "f", b"one", condition=MISSING)
    with pytest.raises(VersionMismatchError, match="is there"):
        await files.write(own, "f", b"two", condition=MISSING)
    second = await files.write(own, "f", b"two", condition=Condition(match=(first.version,)))
    assert second.version != first.version
    for change in (
        files.stream_write(own, "f", slowly(b"three"), condition=Condition(match=(first.version,))),
        files.delete(own, "f", condition=Condition(match=(first.version,))),
        files.move(own, "f", "g", condition=Condition(match=(first.version,))),
        files.write(own, "missing", b"x", condition=Condition(match=("*",))),
        files.write(own, "f", b"x", condition=Condition(none_match=(second.version,))),
    ):
        with pytest.raises(VersionMismatchError):
            await change
    assert await files.read(own, "f") == b"two"
    won = await asyncio.gather(
        *(files.write(own, "f", b"x", condition=Condition(match=(second.version,))) for _ in range(5)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in won) == ["File"] + ["VersionMismatchError"] * 4
    moved = await files.move(own, "f", "g", condition=Condition(match=("*",)))
    await files.delete(own, "g", condition=Condition(match=(moved.version, "other")))


async def test_what_is_moved_keeps_its_content_and_replaces_nothing(files: Workspaces, own: str) -> None:
    await files.write(own, "a", b"a")
    await files.write(own, "d/b", b"b")
    assert (await files.move(own, "a", "new/place/a")).path == "new/place/a"
    assert (await files.move(own, "d", "e/f")).kind == "folder"
    assert [file.path for file in (await files.list_files(own)).files] == ["e/f/b", "new/place/a"]
    with pytest.raises(AlreadyExistsError):
        await files.move(own, "e/f/b", "new/place/a")
    assert await files.read(own, "new/place/a") == b"a"
    await files.move(own, "e/f/b", "new/place/a", replace=True)
    assert await files.read(own, "new/place/a") == b"b"
    for path, to, kind in (
        ("missing", "x", FileMissingError),
        ("new", "new/place/deeper", InvalidError),
        ("new", "../out", InvalidError),
        ("../x", "x", InvalidError),
        ("new", "new/place/a", InvalidError),
    ):
        with pytest.raises(kind):
            await files.move(own, path, to)
    await files.write(own, "f", b"f")
    for path, to in (("f", "new"), ("new", "f")):
        with pytest.raises(AlreadyExistsError):
            await files.move(own, path, to, replace=True)
    assert (await files.usage(own)) == await files.measure(own)


async def test_an_archive_goes_from_one_session_to_another(hub: Alcove, files: Workspaces, own: str) -> None:
    other = await hub.sessions.create()
    await files.write(own, "d/a", b"a")
    await hub.runs.chat(own, "ln -s a d/l; echo x > d/run; chmod 755 d/run")
    extracted = await files.extract(other.id, files.archive(own), "copy")
    assert (extracted.files, extracted.size_bytes) == (3, 3)
    assert (await other.chat("cat copy/d/l; test -x copy/d/run && echo runs; rm -r copy && echo gone")).text == (
        "aruns\ngone"
    )
    assert list(names([piece async for piece in files.archive(own, "d")])) == ["a", "l", "run"]


async def test_an_archive_that_nobody_reads_to_its_end_is_let_go(files: Workspaces, own: str) -> None:
    await files.write(own, "a", os.urandom(3 * limits.MIB))
    before = len(os.listdir("/proc/self/fd"))
    async with aclosing(files.archive(own)) as pieces:
        async for _ in pieces:
            break
    reading = asyncio.create_task(anext(files.archive(own)))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_an_extraction_that_is_refused_leaves_the_session_as_it_was(
    files: Workspaces, own: str, place: Path
) -> None:
    await files.write(own, "a", b"a")
    before = await files.usage(own)
    for data in (gz(member("b", b"x"), member("../c", b"x")), gz(member("b", b"x"), member("a", b"x"))):
        with pytest.raises((InvalidError, AlreadyExistsError)):
            await files.extract(own, slowly(data))
    assert [file.path for file in (await files.list_files(own)).files] == ["a"]
    assert await files.usage(own) == before == await files.measure(own)
    assert leftovers(place) == []


async def test_sizes_are_right_after_each_change(files: Workspaces, own: str, place: Path) -> None:
    steps = (
        lambda: files.write(own, "a/b/c", b"x" * 50_000),
        lambda: files.stream_write(own, "big", slowly(b"x" * 100_000)),
        lambda: files.extract(
            own, slowly(gz(member("d/e", b"x" * 9000), member("d/f", kind="hard link", target="d/e")))
        ),
        lambda: files.move(own, "a", "g"),
        lambda: files.write(own, "big", b""),
        lambda: files.mkdir(own, "h"),
        lambda: files.delete(own, "d", recursive=True),
    )
    for step in steps:
        await step()
        du = sum(
            os.lstat(os.path.join(at, name)).st_blocks * 512
            for at, folders, found in os.walk(place / "sessions/own")
            for name in (*folders, *found)
            if name != "f"
        )
        du += os.lstat(place / "sessions/own").st_blocks * 512
        assert (await files.usage(own)).size_bytes == du
    assert (await files.usage(own)).files == 2


async def test_a_quota_is_asked_before_each_change(files: Workspaces, own: str, place: Path) -> None:
    asked: list[str] = []

    async def quota(session_id: str) -> Usage | None:
        asked.append(session_id)
        return Usage(size_bytes=100_000, files=3)

    await files.write(own, "a", b"x" * 50_000)
    files.quota = quota
    for change in (
        files.write(own, "b", b"x" * 60_000),
        files.stream_write(own, "b", slowly(b"x" * 60_000)),
        files.extract(own, slowly(gz(member("b", b"x" * 60_000)))),
        files.extract(own, slowly(gz(*(member(f"b{number}", b"") for number in range(3))))),
    ):
        with pytest.raises(StorageError, match="the workspace may have") as caught:
            await change
        assert caught.value.limit in {100_000, 3}
        assert "quota" in caught.value.remedy
    assert set(asked) == {own}
    assert [file.path for file in (await files.list_files(own)).files] == ["a"]
    assert leftovers(place) == []
    await files.delete(own, "a")
    await files.write(own, "b", b"x" * 60_000)


async def test_the_last_room_of_the_disk_is_not_given_away(
    files: Workspaces, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await files.write(own, "a", b"x")
    monkeypatch.setattr(limits, "DISK_FREE_BYTES", 1 << 60)
    for change in (files.write(own, "b", b"x"), files.stream_write(own, "b", slowly(b"x"))):
        with pytest.raises(StorageError, match="nearly full"):
            await change
    await files.delete(own, "a")


async def heard(watch: AsyncIterator[Event]) -> tuple[str, object]:
    async with asyncio.timeout(20):
        event = await anext(watch)
    return event.type, {name: value for name, value in event.data.items() if value}


async def test_a_watch_tells_what_changes(hub: Alcove, files: Workspaces, own: str) -> None:
    await files.write(own, "old", b"x")
    async with aclosing(files.watch(own)) as watch:
        assert await heard(watch) == ("files", {})
        await files.write(own, "d/new", b"x")
        assert await heard(watch) == ("files", {"changed": ["d/new"]})
        await hub.runs.chat(own, "echo y > old; mkdir e; ln -s /etc/passwd e/l; ln -s / root")
        assert await heard(watch) == ("files", {"changed": ["e/l", "old", "root"]})
        await files.move(own, "d/new", "d/newer")
        assert await heard(watch) == ("files", {"changed": ["d/newer"], "removed": ["d/new"]})


async def test_a_watch_goes_on_where_it_was_or_says_what_is_missing(
    files: Workspaces, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WATCH_EVENTS", 2)
    async with aclosing(files.watch(own)) as watch:
        begun = await anext(watch)
        for number in range(2):
            await files.write(own, str(number), b"x")
            await heard(watch)
    async with aclosing(files.watch(own, begun.n)) as again:
        assert await heard(again) == ("files", {"changed": ["0"]})
        assert await heard(again) == ("files", {"changed": ["1"]})
        for number in range(2, 4):
            await files.write(own, str(number), b"x")
            await heard(again)
    async with aclosing(files.watch(own, begun.n)) as late:
        gap = await anext(late)
        assert (gap.type, gap.data["from"], gap.data["to"]) == ("gap", begun.n + 1, gap.n)
        assert await heard(late) == ("files", {"changed": ["2"]})
    async with aclosing(files.watch(own, 5)) as older:
        assert (await anext(older)).type == "gap"


async def test_a_watch_ends_with_its_session_and_with_the_hub(hub: Alcove, files: Workspaces, own: str) -> None:
    with pytest.raises(SessionNotFoundError):
        await anext(files.watch("nobody"))
    other = await hub.sessions.create()
    ours, theirs = files.watch(own), files.watch(other.id)
    assert [await heard(ours), await heard(theirs)] == [("files", {}), ("files", {})]
    await other.delete()
    with pytest.raises(StopAsyncIteration):
        await heard(theirs)
    await files.close()
    with pytest.raises(StopAsyncIteration):
        await heard(ours)


async def test_watches_have_a_limit_and_end_when_nobody_listens(
    hub: Alcove, files: Workspaces, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WATCHES", 1)
    monkeypatch.setattr(limits, "WATCH_LINGER_S", 0)
    other = await hub.sessions.create()
    async with aclosing(files.watch(own)) as first, aclosing(files.watch(own)) as second:
        assert [await heard(first), await heard(second)] == [("files", {})] * 2
        with pytest.raises(ConflictError, match="watched already"):
            await anext(files.watch(other.id))

    async def free() -> bool:
        try:
            async with aclosing(files.watch(other.id)) as watch:
                return (await anext(watch)).type == "files"
        except ConflictError:
            return False

    await until(free)
