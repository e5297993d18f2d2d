"""An installation in a folder of the test, with the fake programs of the agents' tests at hand."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import alcove.hub
from alcove import limits
from alcove.clock import SECOND
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.runs import queries
from runs.world import new_place

FAKES = Path(__file__).parents[1] / "agents" / "fakes"

AGENTS = """
[agents.q]
command = ["{fakes}/q", "chat"]
stdin_suffix = "\\n/quit\\n"
commands = ["/", "!", "@"]
history = 10
strip = ['^>[> ]*', '^Welcome to Amazon Q.*', '^/help all commands.*']
read = {read}

[agents.stubborn]
command = ["{fakes}/hostile", "stubborn"]
read = {read}
"""


@pytest.fixture
def place() -> Iterator[Path]:
    yield from new_place()


@pytest.fixture
def folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base of an installation whose `alcove.toml` knows the fake programs."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    fakes = place / "fakes"
    fakes.mkdir()
    for source in FAKES.iterdir():
        program = fakes / source.name
        program.write_text(source.read_text("utf-8").replace("#!/usr/bin/env python3", f"#!{sys.executable}"), "utf-8")
        program.chmod(0o755)
    # Where the interpreter lies, which may be a user's own folder.
    read = sorted({sys.prefix, sys.base_prefix})
    tables = AGENTS.format(fakes=fakes, read=read)
    for act in ("ansi", "binary", "flood", "forks", "silent"):
        tables += f'[agents.{act}]\ncommand = ["{fakes}/hostile", "{act}"]\nread = {read}\n'
    (place / "alcove.toml").write_text(tables)
    return place / "sessions"


@pytest.fixture
async def hub(folder: Path) -> AsyncIterator[Alcove]:
    async with alcove.hub.open(workspaces=folder) as hub:
        yield hub
    # A run's own folder is gone with the run, however that ended.
    assert not list((folder.parent / ".alcove").glob("runs/*"))


@pytest.fixture
async def session(hub: Alcove) -> Handle:
    return await hub.sessions.create()


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of two seconds, for tests that wait until one has run out."""
    monkeypatch.setattr(limits, "LEASE_S", 2)
    monkeypatch.setattr(limits, "LEASE_RENEW_S", 0.2)
    monkeypatch.setattr(queries, "LEASE", 2 * SECOND)
