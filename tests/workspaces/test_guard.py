"""On rungs where sessions see one file system, a run's folder is guarded; files from outside do not undo that."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import alcove.hub
from alcove.hub import Alcove
from alcove.sessions import heads
from alcove.workspaces.service import Workspaces
from runs.world import new_place

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only a root server leases uids, and guards folders from them"
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for place in new_place():
        monkeypatch.chdir(place)
        monkeypatch.setenv("ALCOVE_SANDBOX", "landlock")
        yield place


@pytest.fixture
async def hub(place: Path) -> AsyncIterator[Alcove]:
    async with alcove.hub.open(workspaces=place / "sessions") as hub:
        yield hub


@pytest.fixture
def files(hub: Alcove) -> Workspaces:
    assert hub.workspaces
    return hub.workspaces


def mode(files: Workspaces, session_id: str) -> str:
    return oct(files.path(session_id).stat().st_mode & 0o777)


async def test_a_change_from_outside_takes_the_guard_away_and_one_of_the_run_does_not(
    hub: Alcove, files: Workspaces
) -> None:
    own = (await hub.sessions.create()).id
    await files.ensure(own, guarded=True)
    await files.write(own, "f", b"from outside")
    assert mode(files, own) == "0o700"
    await files.ensure(own, guarded=True)
    fence = await hub.database.write(heads.hold, own, "run-1", 60_000_000)
    await files.write(own, "f", b"from its agent", fence=fence)
    await files.stream_write(own, "g", b"from its agent", fence=fence)
    assert mode(files, own) == "0o770"


async def test_a_file_that_comes_between_preparation_and_start_leaves_the_run_guarded(
    hub: Alcove, files: Workspaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = (await hub.sessions.create()).id
    ensure = files.ensure

    async def prepared(session_id: str, *, guarded: bool = False) -> int | None:
        uid = await ensure(session_id, guarded=guarded)
        if guarded:
            await files.write(session_id, "late", b"x")
            assert mode(files, own) == "0o700"
        return uid

    monkeypatch.setattr(files, "ensure", prepared)
    answer = await hub.runs.chat(own, "stat -c %a .; cat late; chmod 777 . 2>/dev/null || stat -c %a .", agent="shell")
    assert answer.text.split() == ["770", "x770"], answer
