from __future__ import annotations

import os
from pathlib import Path

import pytest

from alcove.workspaces.tree import Tree
from alcove.workspaces.walk import Walk, identity

pytestmark = pytest.mark.usefixtures("way")


class Recorder(Walk):
    """Notes where it was and what it left; moves one folder when it gets there."""

    def __init__(self, source: Path, target: Path) -> None:
        super().__init__(1000)
        self.source, self.target = source, target
        self.seen: list[str] = []
        self.wrong: list[bytes] = []
        self.home = {}

    def visit(self, fd: int) -> list[bytes]:
        path = b"/".join(self.trail).decode()
        self.seen.append(path)
        self.home[path] = identity(fd)
        if path == "a/b/c":
            self.source.rename(self.target)
        return sorted((os.fsencode(entry.name) for entry in os.scandir(fd) if entry.is_dir()), reverse=True)

    def left(self, fd: int, name: bytes) -> None:
        if self.home[b"/".join(self.trail).decode()] != identity(fd):
            self.wrong.append(name)


@pytest.mark.parametrize(
    ("source", "target", "seen"),
    [
        # It stands in a folder that is moved: `..` is another folder now, so the way is found again from the top.
        ("a/b/c", "z/c", ["", "a", "a/b", "a/b/c", "a/b/c/1", "a/b/d", "a/e", "z", "z/c", "z/c/1"]),
        # What it came through is moved: from there on up nothing is as it was, but the top is.
        ("a/b", "z/b", ["", "a", "a/b", "a/b/c", "a/b/c/1", "a/b/d", "a/e", "z", "z/b", "z/b/c", "z/b/c/1", "z/b/d"]),
    ],
)
def test_a_walk_goes_on_where_it_was_when_folders_move(ours: Path, source: str, target: str, seen: list[str]):
    for path in ("a/b/c/1", "a/b/d", "a/e", "z"):
        (ours / path).mkdir(parents=True)
    top = os.open(ours, os.O_RDONLY)
    walk = Recorder(ours / source, ours / target)
    try:
        walk.run(top)
    finally:
        os.close(top)
    assert walk.seen == seen
    assert walk.wrong == []
    assert walk.complete


def test_a_write_is_on_the_disk_before_its_name_and_the_name_before_the_answer(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
):
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(fd: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{fd}")).parent.name)
        fsync(fd)

    def note_rename(source: str, target: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        done.append("rename")
        rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    tree.write("a/b", b"x")
    assert done == ["temp", "rename", "ours"]
