"""Links, and what is not a regular file: reads and writes never leave the workspace and never hang."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest

from alcove.errors import ConflictError, FileMissingError, InvalidError
from alcove.workspaces.base import Base
from alcove.workspaces.openat2 import open_beneath
from alcove.workspaces.tree import Tree
from workspaces.conftest import SECRET
from workspaces.probes import naive_read

pytestmark = pytest.mark.usefixtures("way")
WAYS_OUT = {
    "absolute": "{outside}/secret.txt",
    "relative": "../../outside/secret.txt",
    "neighbour": "../theirs/secret.txt",
    "to-neighbour-through-base": "{base}/theirs/secret.txt",
    "proc-root": "/proc/self/root{outside}/secret.txt",
    "proc-cwd": "/proc/self/cwd",
    "dev-fd": "/dev/fd/0",
    "out-and-in-again": "../ours/inside.txt",
}


@pytest.mark.parametrize("target", WAYS_OUT.values(), ids=WAYS_OUT)
def test_a_link_that_leads_out_is_not_followed(
    tree: Tree, ours: Path, folder: Path, outside: Path, theirs: Path, target: str
):
    (ours / "inside.txt").write_text("inside")
    (ours / "link").symlink_to(target.format(outside=outside, base=folder))
    with pytest.raises(InvalidError):
        tree.read("link")


@pytest.mark.parametrize("target", ["{outside}", "../../outside", "../theirs", "..", "/", "../../outside/deep/.."])
def test_nothing_is_done_through_a_folder_link_that_leads_out(
    tree: Tree, ours: Path, outside: Path, theirs: Path, target: str
):
    (ours / "link").symlink_to(target.format(outside=outside))
    for act in (
        lambda: tree.read("link/secret.txt"),
        lambda: tree.stat("link/secret.txt"),
        lambda: tree.list("link"),
        lambda: tree.write("link/new.txt", b"x"),
        lambda: tree.write("link/deep/new.txt", b"x"),
        lambda: tree.mkdir("link/new"),
        lambda: tree.delete("link/secret.txt"),
        lambda: tree.delete("link/deep", recursive=True),
    ):
        with pytest.raises(InvalidError):
            act()
    assert [(file.path, file.kind) for file in tree.list().files] == [("link", "link")]
    assert tree.usage().files == 1
    tree.delete("link", recursive=True)


def test_the_same_link_leaks_without_protection(ours: Path, outside: Path):
    (ours / "link").symlink_to(outside / "secret.txt")
    assert (ours / "link").read_bytes() == SECRET


def test_a_sibling_whose_name_begins_alike_is_not_below(tree: Tree, ours: Path, folder: Path):
    evil = folder / "ours-evil"
    evil.mkdir()
    (evil / "secret.txt").write_bytes(SECRET)
    (ours / "link").symlink_to("../ours-evil/secret.txt")
    with pytest.raises(InvalidError):
        tree.read("link")
    with pytest.raises(InvalidError):
        tree.read("../ours-evil/secret.txt")
    assert os.path.realpath(ours / "link").startswith(str(ours)), "the negative control: a prefix check lets it pass"


def test_links_inside_are_followed_by_openat2_and_refused_without_it(tree: Tree, ours: Path, way: str):
    (ours / "docs").mkdir()
    (ours / "docs" / "a.txt").write_text("a")
    (ours / "link.txt").symlink_to("docs/a.txt")
    (ours / "folder").symlink_to("docs")
    (ours / "docs" / "up").symlink_to("../docs")
    for path in ("link.txt", "folder/a.txt", "docs/up/a.txt"):
        if way == "openat2":
            assert tree.read(path) == b"a"
        else:
            with pytest.raises(InvalidError):
                tree.read(path)
    if way == "openat2":
        tree.write("docs/up/new/b.txt", b"b")
        assert (ours / "docs" / "new" / "b.txt").read_text() == "b"


def test_loops_and_dangling_links_are_errors_and_break_no_listing(tree: Tree, ours: Path, way: str):
    (ours / "loop").symlink_to("loop")
    (ours / "dangling").symlink_to("nothing")
    (ours / "real").write_text("x")
    with pytest.raises(InvalidError):
        tree.read("loop")
    with pytest.raises(FileMissingError if way == "openat2" else InvalidError):
        tree.read("dangling")
    assert [(file.path, file.kind) for file in tree.list().files] == [
        ("dangling", "link"),
        ("loop", "link"),
        ("real", "file"),
    ]
    assert tree.stat("dangling").kind == "link"


def test_a_write_replaces_a_link_and_not_what_it_points_to(tree: Tree, ours: Path, outside: Path):
    (ours / "link").symlink_to(outside / "secret.txt")
    tree.write("link", b"mine")
    assert not (ours / "link").is_symlink()
    assert tree.read("link") == b"mine"


def test_a_write_leaves_other_hard_links_as_they_are(tree: Tree, ours: Path, outside: Path):
    os.link(outside / "secret.txt", ours / "hard")
    tree.write("hard", b"mine")
    assert tree.read("hard") == b"mine"
    assert (outside / "secret.txt").read_bytes() == SECRET


def test_a_root_server_does_not_read_a_hard_link_to_another_users_file(base: Base, ours: Path, outside: Path):
    os.link(outside / "secret.txt", ours / "hard")
    with base.tree("ours", owner=os.geteuid() + 1) as tree, pytest.raises(InvalidError, match="another user"):
        tree.read("hard")
    with base.tree("ours", owner=os.geteuid()) as tree:
        assert tree.read("hard") == SECRET
    os.unlink(ours / "hard")


@pytest.mark.timeout(20)
def test_what_is_not_a_regular_file_is_listed_and_neither_hangs_nor_is_read(tree: Tree, ours: Path):
    os.mkfifo(ours / "fifo")
    (ours / "folder").mkdir()
    (ours / "to-fifo").symlink_to("fifo")
    expected = {"fifo": "fifo", "socket": "socket", "to-fifo": "link"}
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(ours / "socket"))
        if os.geteuid() == 0:
            os.mknod(ours / "zero", 0o666 | 0o020000, os.makedev(1, 5))
            expected["zero"] = "device"
        assert {file.path: file.kind for file in tree.list().files} == expected
        for path in (*expected, "folder"):
            with pytest.raises(InvalidError):
                tree.read(path)
        for path in expected:
            tree.write(path, b"replaced")
            assert tree.read(path) == b"replaced"


@pytest.mark.timeout(20)
def test_a_lease_held_by_the_session_does_not_hold_up_the_server(tree: Tree, ours: Path):
    path = ours / "leased"
    path.write_text("x")
    fd = os.open(path, os.O_WRONLY)
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, 28)  # SIGWINCH, ignored: the default SIGIO would end this process
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(ConflictError, match="held by a process"):
            tree.read("leased")
    finally:
        os.close(fd)
    assert tree.read("leased") == b"x"


def test_open_beneath_itself_never_leaves(ours: Path, outside: Path):
    fd = os.open(ours, os.O_PATH)
    try:
        for path in (b"..", b"../theirs", b"a/../..", b"/", b"/etc/passwd"):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what matters
                os.close(open_beneath(fd, path, os.O_RDONLY))
            assert caught.value.errno in {18, 2, 13}
    finally:
        os.close(fd)


def test_the_naive_server_of_the_races_does_check(ours: Path, outside: Path):
    (ours / "inside.txt").write_text("inside")
    (ours / "link").symlink_to(outside / "secret.txt")
    assert naive_read(ours, "inside.txt") == b"inside"
    assert naive_read(ours, "link") == b""
