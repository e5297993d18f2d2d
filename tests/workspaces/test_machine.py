"""Random sequences of calls against a dict, with a neighbour that must stay as it is."""

from __future__ import annotations

import os
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
from alcove.workspaces.model import MISSING, Condition
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

    @rule(path=PATHS, content=st.binary(max_size=20), create=st.booleans())
    def write_on_a_condition(self, path: str, content: bytes, create: bool) -> None:
        condition = MISSING if create else Condition(match=("*",))
        there = path in self.files or path in self.folders
        refused = self.blocked(path) or path in self.folders or there == create
        if self.refused(refused, lambda: self.tree.write(path, content, condition=condition)):
            return
        self.files[path] = content
        self.folders.update(self.above(path))

    @rule(path=PATHS, to=PATHS, replace=st.booleans())
    def move(self, path: str, to: str, replace: bool) -> None:
        source = {other for other in (*self.files, *self.folders) if other == path or other.startswith(f"{path}/")}
        into_itself = to.startswith(f"{path}/")
        below = [other for other in (*self.files, *self.folders) if other.startswith(f"{to}/")]
        if to in self.files:
            taken = not replace or path in self.folders
        elif to in self.folders:
            taken = not replace or path in self.files or bool(below)
        else:
            taken = False
        refused = path not in source or into_itself or (to != path and (self.blocked(to) or taken))
        if self.refused(refused, lambda: self.tree.move(path, to, replace=replace)) or to == path:
            return
        self.folders.update(self.above(to))
        for old in sorted(source):
            new = to + old[len(path) :]
            if old in self.files:
                self.files[new] = self.files.pop(old)
            else:
                self.folders.discard(old)
                self.folders.add(new)

    @rule(path=PATHS, replace=st.booleans())
    def archive_and_extract(self, path: str, replace: bool) -> None:
        """A copy of the whole, put into a folder: into itself as well."""
        if self.refused(self.blocked(path) or path in self.files, lambda: self.copy_into(path, replace), maybe=True):
            return
        copied = {f"{path}/{old}": content for old, content in self.files.items()}
        folders = {f"{path}/{old}" for old in self.folders}
        self.files |= copied
        self.folders |= {path, *self.above(path), *folders}
        if len(self.files) + len(self.folders) > 200:  # each time doubles them
            self.tree.delete(path, recursive=True)
            self.files = {one: content for one, content in self.files.items() if not f"{one}/".startswith(f"{path}/")}
            self.folders = {one for one in self.folders if not f"{one}/".startswith(f"{path}/")}

    def copy_into(self, path: str, replace: bool) -> None:
        packed = b"".join(self.tree.archive())
        with self.tree.stage(path) as extraction:
            extraction.feed(packed)
            extraction.finish()
            extraction.place(replace=replace)

    def found_folders(self) -> set[str]:
        root = self.path / "base" / "ours"
        return {os.path.relpath(os.path.join(at, name), root) for at, folders, _ in os.walk(root) for name in folders}

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
        assert self.found_folders() == self.folders
        assert os.listdir(self.path / "base/.alcove/temp") == []
        assert picture(self.path / "base" / "theirs") == self.theirs

    def refused(self, expected: bool, act: Callable[[], object], *, maybe: bool = False) -> bool:
        before = {} if not maybe else {file.path: file for file in self.tree.list().files}
        try:
            act()
        except AlcoveError:
            assert expected or maybe
            assert not maybe or before == {file.path: file for file in self.tree.list().files}, "all or nothing"
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
            max_examples=5, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


@pytest.mark.long
def test_files_behave_like_a_dict_for_long():
    run_state_machine_as_test(
        Files,
        settings=settings(
            max_examples=200, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
