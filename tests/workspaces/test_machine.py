"""Random sequences of calls against a dict, with a neighbour that must stay as it is."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from alcove.errors import AlcoveError
from alcove.workspaces import openat2
from alcove.workspaces.base import Base
from workspaces.probes import picture

NAMES = st.sampled_from(["a", "b", "c", "\udcff", "é", "..."])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


class Files(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp())
        self.base = Base.open(str(self.path / "base"), "one")
        self.base.create("ours")
        self.base.create("theirs")
        with self.base.tree("theirs") as theirs:
            theirs.write("a/b", b"theirs")
        self.theirs = picture(self.path / "base" / "theirs")
        self.tree = self.base.tree("ours")
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = set()
        self.trashed = 0

    def above(self, path: str) -> list[str]:
        parts = path.split("/")
        return ["/".join(parts[:count]) for count in range(1, len(parts))]

    def blocked(self, path: str) -> bool:
        return any(above in self.files for above in self.above(path))

    @rule(path=PATHS, content=st.binary(max_size=20))
    def write(self, path: str, content: bytes) -> None:
        if self.refused(self.blocked(path) or path in self.folders, lambda: self.tree.write(path, content)):
            return
        self.files[path] = content
        self.folders.update(self.above(path))

    @rule(path=PATHS)
    def mkdir(self, path: str) -> None:
        if self.refused(self.blocked(path) or path in self.files, lambda: self.tree.mkdir(path)):
            return
        self.folders.update((*self.above(path), path))

    @rule(path=PATHS, recursive=st.booleans())
    def delete(self, path: str, recursive: bool) -> None:
        below = [other for other in (*self.files, *self.folders) if other.startswith(f"{path}/")]
        known = path in self.files or path in self.folders
        if self.refused(
            not known or (bool(below) and not recursive), lambda: self.tree.delete(path, recursive=recursive)
        ):
            return
        for gone in (path, *below):
            self.files.pop(gone, None)
            self.folders.discard(gone)

    @rule(path=PATHS)
    def read(self, path: str) -> None:
        if not self.refused(path not in self.files, lambda: self.tree.read(path)):
            assert self.tree.read(path) == self.files[path]

    @rule()
    def trash_and_restore(self) -> None:
        self.trashed += 1
        assert self.base.trash("ours", f"t{self.trashed}")
        assert self.base.untrash("ours", f"t{self.trashed}")

    @invariant()
    def agrees(self) -> None:
        listing = self.tree.list()
        assert not listing.truncated
        assert {file.path: file.size_bytes for file in listing.files} == {
            path: len(content) for path, content in self.files.items()
        }
        assert self.tree.usage().files == len(self.files)
        for path in self.folders:
            assert self.tree.stat(path).kind == "folder"
        assert picture(self.path / "base" / "theirs") == self.theirs

    def refused(self, expected: bool, act: Callable[[], object]) -> bool:
        try:
            act()
        except AlcoveError:
            assert expected
            return True
        assert not expected
        return False

    def teardown(self) -> None:
        self.tree.close()
        self.base.close()
        shutil.rmtree(self.path)


@pytest.mark.parametrize("supported", [True, False])
def test_files_behave_like_a_dict(monkeypatch: pytest.MonkeyPatch, supported: bool):
    monkeypatch.setattr(openat2, "supported", lambda: supported)
    run_state_machine_as_test(
        Files,
        settings=settings(
            max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


@pytest.mark.long
def test_files_behave_like_a_dict_for_long():
    run_state_machine_as_test(
        Files,
        settings=settings(
            max_examples=600, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
