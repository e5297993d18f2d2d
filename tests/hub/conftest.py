"""An installation in a folder that leased uids can get to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import alcove.hub
from alcove.hub import Alcove
from runs.world import new_place


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for place in new_place():
        monkeypatch.chdir(place)
        monkeypatch.setenv("HOME", str(place))
        yield place


@pytest.fixture
def folder(place: Path) -> Path:
    return place / "sessions"


@pytest.fixture
async def hub(folder: Path) -> AsyncIterator[Alcove]:
    async with alcove.hub.open(workspaces=folder) as hub:
        yield hub
