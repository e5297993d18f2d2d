"""A base with a session `ours`, and beside it what must never be touched: a session `theirs` and a folder `outside`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from alcove.workspaces import openat2
from alcove.workspaces.base import Base
from alcove.workspaces.tree import Tree
from workspaces.probes import descriptors, picture

SECRET = b"a neighbour's secret"


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test twice: with openat2, and as where the kernel lacks it."""
    if request.param == "walk":
        monkeypatch.setattr(openat2, "supported", lambda: False)
    else:
        assert openat2.supported(), "these tests need a kernel with openat2"
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "base"


@pytest.fixture
def base(folder: Path) -> Iterator[Base]:
    before = descriptors()
    with Base.open(str(folder), "installation-1") as base:
        base.create("ours")
        base.create("theirs")
        yield base
    assert descriptors() == before, "a descriptor was left open"


@pytest.fixture
def ours(folder: Path, base: Base) -> Path:
    return folder / "ours"


@pytest.fixture
def tree(base: Base) -> Iterator[Tree]:
    with base.tree("ours") as tree:
        yield tree


@pytest.fixture
def theirs(folder: Path, base: Base) -> Iterator[Path]:
    """The neighbour, with a secret; it must be the same in every byte afterwards."""
    theirs = folder / "theirs"
    (theirs / "deep").mkdir()
    (theirs / "secret.txt").write_bytes(SECRET)
    (theirs / "deep" / "secret.txt").write_bytes(SECRET)
    before = picture(theirs)
    yield theirs
    assert picture(theirs) == before


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder of somebody else; it must be the same in every byte afterwards."""
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "secret.txt").write_bytes(SECRET)
    (outside / "deep" / "secret.txt").write_bytes(SECRET)
    before = picture(outside)
    yield outside
    assert picture(outside) == before
