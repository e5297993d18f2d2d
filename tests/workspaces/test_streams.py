"""Callers that go away while a thread works for them: what it works on is not taken away from under it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import alcove.hub
from alcove.hub import Alcove
from alcove.workspaces import tree, unpacking
from alcove.workspaces.model import File
from alcove.workspaces.service import Workspaces
from alcove.workspaces.streams import ended
from runs.world import until
from workspaces.tars import gz, member


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Alcove]:
    monkeypatch.chdir(tmp_path)
    async with alcove.hub.open(workspaces=tmp_path / "sessions") as hub:
        yield hub


@pytest.fixture
def files(hub: Alcove) -> Workspaces:
    assert hub.workspaces
    return hub.workspaces


class Gate:
    """Stops a method in its thread until it is opened; then tells whether its descriptor is still what it was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, fd: Callable[[Any], int]) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.whole: list[bool] = []
        method = getattr(owner, name)

        def stopped(it: Any, *args: Any) -> Any:
            before = os.fstat(fd(it))
            self.entered.set()
            assert self.opened.wait(20)
            with suppress(OSError):
                self.whole.append(os.path.samestat(before, os.fstat(fd(it))))
            return method(it, *args)

        monkeypatch.setattr(owner, name, stopped)

    async def leave(self, work: Awaitable[object]) -> None:
        """Begin, and cancel twice while the method is in its thread; then let that go on."""
        task = asyncio.ensure_future(work)
        await until(self.entered.is_set)
        for _ in range(2):
            task.cancel()
            for _ in range(20):  # turns for whatever would let go now
                await asyncio.to_thread(os.getpid)
        assert not task.done()
        self.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_an_upload_that_is_cancelled_waits_for_its_thread(
    hub: Alcove, files: Workspaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (await hub.sessions.create()).id
    gate = Gate(monkeypatch, tree.Incoming, "add", lambda incoming: incoming.fd)
    await gate.leave(files.stream_write(own, "f", [b"one", b"two"]))
    assert gate.whole == [True]
    assert (await files.list_files(own)).files == ()
    assert os.listdir(tmp_path / "sessions/.alcove/temp") == []


async def test_an_extraction_that_is_cancelled_waits_for_its_thread(
    hub: Alcove, files: Workspaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (await hub.sessions.create()).id
    gate = Gate(monkeypatch, unpacking.Extraction, "feed", lambda extraction: extraction._stage)
    await gate.leave(files.extract(own, gz(member("f", b"x")), "into"))
    assert gate.whole == [True]
    assert (await files.list_files(own)).files == ()
    assert os.listdir(tmp_path / "sessions/.alcove/temp") == []


async def test_a_file_that_is_opened_for_nobody_is_closed(
    hub: Alcove, files: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (await hub.sessions.create()).id
    await files.write(own, "f", b"x")
    given: list[int] = []
    method = tree.Tree.open_read
    gate = Gate(monkeypatch, tree.Tree, "open_read", lambda it: it._pinned.root)
    stopped = tree.Tree.open_read

    def kept(it: tree.Tree, path: str) -> tuple[int, File]:
        fd, file = stopped(it, path)
        given.append(fd)
        return fd, file

    monkeypatch.setattr(tree.Tree, "open_read", kept)
    await gate.leave(files.open_read(own, "f"))
    monkeypatch.setattr(tree.Tree, "open_read", method)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(given[0])


async def test_waiting_for_an_end_does_not_raise_what_nobody_asked_for() -> None:
    async def fails() -> None:
        raise ValueError

    await ended(asyncio.ensure_future(fails()))
