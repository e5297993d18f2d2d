from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alcove import limits
from alcove.errors import (
    AlreadyExistsError,
    ConflictError,
    FileMissingError,
    InvalidError,
    TooLargeError,
)
from alcove.workspaces import survey
from alcove.workspaces.base import Base
from alcove.workspaces.tree import Tree
from workspaces.probes import descriptors

pytestmark = pytest.mark.usefixtures("way")


def test_a_file_comes_back_as_it_was_written(tree: Tree, ours: Path):
    file = tree.write("docs/deep/a.bin", bytes(range(256)))
    assert (file.path, file.name, file.kind, file.size_bytes) == ("docs/deep/a.bin", "a.bin", "file", 256)
    assert tree.read("docs/deep/a.bin") == bytes(range(256))
    assert tree.stat("docs/deep/a.bin") == file
    assert tree.list().files == (file,)
    assert file.modified_at == (ours / "docs/deep/a.bin").stat().st_mtime_ns // 1000


def test_a_file_is_written_from_pieces(tree: Tree):
    assert tree.write("a", (piece for piece in (b"one ", b"", b"two"))).size_bytes == 7
    assert tree.read("a") == b"one two"


def test_writing_keeps_the_mode_and_drops_setuid(tree: Tree, ours: Path):
    tree.write("run.sh", b"1")
    assert stat.S_IMODE((ours / "run.sh").stat().st_mode) == 0o644
    (ours / "run.sh").chmod(0o4751)
    tree.write("run.sh", b"2")
    assert stat.S_IMODE((ours / "run.sh").stat().st_mode) == 0o751


def test_modes_do_not_depend_on_the_umask(tree: Tree, ours: Path):
    before = os.umask(0o077)
    try:
        tree.write("a/b", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((ours / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE((ours / "a/b").stat().st_mode) == 0o644


def test_a_write_past_the_limit_leaves_the_old_content_and_nothing_else(tree: Tree, folder: Path):
    tree.write("a", b"old")
    with pytest.raises(TooLargeError) as caught:
        tree.write("a", (b"x" * 60 for _ in range(2)), limit_bytes=100)
    assert caught.value.limit == 100
    assert tree.read("a") == b"old"
    assert os.listdir(folder / ".alcove" / "temp") == []


def test_a_source_that_breaks_leaves_the_old_content_and_nothing_else(tree: Tree, folder: Path):
    tree.write("a", b"old")

    def broken():
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tree.write("a", broken())
    assert tree.read("a") == b"old"
    assert os.listdir(folder / ".alcove" / "temp") == []


def test_folders_in_the_way_are_conflicts(tree: Tree):
    tree.write("a/b", b"x")
    with pytest.raises(ConflictError):
        tree.write("a", b"x")
    with pytest.raises(ConflictError):
        tree.write("a/b/c", b"x")
    with pytest.raises(ConflictError):
        tree.mkdir("a/b/c/d")
    with pytest.raises(FileMissingError):
        tree.write("new/c", b"x", parents=False)
    assert [file.path for file in tree.list().files] == ["a/b"]


def test_what_is_missing_is_named(tree: Tree):
    tree.write("file", b"")
    for act in (tree.read, tree.stat, tree.delete, tree.list):
        for path in ("nothing", "no/thing", "file/below"):
            with pytest.raises(FileMissingError, match=path):
                act(path)


def test_folders_are_made_once(tree: Tree, ours: Path):
    tree.mkdir("a/b")
    tree.mkdir("a/b")
    with pytest.raises(AlreadyExistsError):
        tree.mkdir("a/b", exist_ok=False)
    tree.write("file", b"")
    with pytest.raises(AlreadyExistsError):
        tree.mkdir("file")
    with pytest.raises(FileMissingError):
        tree.mkdir("x/y", parents=False)
    assert sorted(os.listdir(ours)) == ["a", "file"]


def test_a_full_folder_is_deleted_only_when_that_is_asked_for(tree: Tree, ours: Path):
    tree.write("a/b/c", b"x")
    with pytest.raises(ConflictError, match="not empty"):
        tree.delete("a")
    tree.delete("a", recursive=True)
    tree.mkdir("empty")
    tree.delete("empty")
    tree.write("file", b"")
    tree.delete("file", recursive=True)
    assert os.listdir(ours) == []


def test_a_listing_is_sorted_by_the_bytes_of_the_paths(tree: Tree):
    paths = ["a", "a.b", "a-b/c", "a0/c", "Z", "é", "\udcff", "\U0001f600", "\uffee", "b/c/d", "b/c-d"]
    for path in paths:
        tree.write(path, b"")
    found = [file.path for file in tree.list().files]
    assert found == sorted(paths, key=lambda path: path.encode("utf-8", "surrogateescape"))
    assert [file.path for file in tree.list("b").files] == ["b/c-d", "b/c/d"]
    assert [file.path for file in tree.list("b", recursive=False).files] == ["b/c-d"]
    assert [file.path for file in tree.list("b/c").files] == ["b/c/d"]


def test_a_listing_ends_at_its_limits_and_says_so(tree: Tree, ours: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(30):
        tree.write(f"f{number}/file", b"")
    assert not tree.list().truncated
    monkeypatch.setattr(survey.limits, "LISTING_FILES", 40)
    assert tree.list().truncated
    assert 0 < len(tree.list().files) <= 40


def test_a_count_ends_at_its_limit(tree: Tree, monkeypatch: pytest.MonkeyPatch):
    for number in range(30):
        tree.write(f"f{number}/file", b"")
    monkeypatch.setattr(survey.limits, "USAGE_NAMES", 40)
    assert 0 < tree.usage().files < 30


def test_a_listing_ends_at_its_depth_and_a_count_does_not(tree: Tree, ours: Path):
    at = ours
    fd = os.open(ours, os.O_RDONLY)
    for _ in range(limits.TREE_DEPTH + 20):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert at.exists()
    listing = tree.list()
    assert listing.truncated
    assert len(listing.files) == limits.TREE_DEPTH
    assert tree.usage().files == limits.TREE_DEPTH + 20


def test_paths_too_long_to_be_opened_are_left_out_of_a_listing(tree: Tree, ours: Path):
    fd = os.open(ours, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 255, dir_fd=fd)
        below = os.open("d" * 255, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    listing = tree.list()
    assert listing.truncated
    assert len(listing.files) == 15
    assert all(tree.read(file.path) == b"" for file in listing.files)
    assert tree.usage().files == 20


def test_names_of_any_bytes_round_trip(tree: Tree, ours: Path):
    raw = bytes(byte for byte in range(1, 256) if byte != 0x2F)
    for name in (raw[:120], raw[120:], b"\xff", b"caf\xe9", b" ", b"\n", b"-rf", b"a\\..\\b"):
        fd = os.open(os.fsencode(ours) + b"/" + name, os.O_CREAT | os.O_WRONLY)
        os.write(fd, name)
        os.close(fd)
    files = tree.list().files
    assert len(files) == 8
    for file in files:
        assert tree.read(file.path) == file.path.encode("utf-8", "surrogateescape")
        tree.write(file.path, b"new")
        tree.delete(file.path)
    assert os.listdir(ours) == []


def test_one_unreadable_folder_breaks_neither_listing_nor_count(tree: Tree, ours: Path):
    tree.write("closed/file", b"")
    tree.write("open/file", b"")
    (ours / "closed").chmod(0)
    try:
        listing = tree.list()
        found = {file.path for file in listing.files}
        assert "open/file" in found
        assert listing.truncated or "closed/file" in found  # root reads it all the same
        tree.usage()
        if listing.truncated:
            with pytest.raises(ConflictError, match="chmod"):
                tree.read("closed/file")
    finally:
        (ours / "closed").chmod(0o700)


def test_a_sparse_file_takes_no_room_and_is_not_read_whole(tree: Tree, ours: Path):
    with open(ours / "sparse", "wb") as file:
        file.truncate(1 << 40)
    before = tree.usage()
    assert before.size_bytes < limits.MIB
    with pytest.raises(TooLargeError) as caught:
        tree.read("sparse")
    assert caught.value.limit == limits.FILE_BYTES
    fd, file = tree.open_read("sparse")
    assert file.size_bytes == 1 << 40
    assert os.pread(fd, 3, 1 << 39) == b"\0\0\0"
    os.close(fd)


def test_a_file_exactly_as_long_as_the_limit_is_read(tree: Tree):
    tree.write("a", b"12345", limit_bytes=5)
    assert tree.read("a", 5) == b"12345"
    with pytest.raises(TooLargeError):
        tree.read("a", 4)
    tree.write("empty", b"", limit_bytes=0)
    assert tree.read("empty", 0) == b""


def test_files_without_a_length_are_read_up_to_the_limit(ours: Path, folder: Path, base: Base):
    # Files of /proc say they are empty, as a file does that grows while it is read.
    proc = os.open("/proc", os.O_RDONLY)
    temp = os.open(folder / ".alcove" / "temp", os.O_RDONLY)
    try:
        with Tree(proc, str(os.getpid()), temp) as tree:
            assert b"Name:" in tree.read("status", 100_000)
            with pytest.raises(TooLargeError):
                tree.read("status", 10)
    finally:
        os.close(proc)
        os.close(temp)


def test_usage_equals_du(tree: Tree, ours: Path):
    for number in range(20):
        tree.write(f"d{number % 3}/e/f{number}", b"x" * number * 1000)
    os.link(ours / "d0/e/f18", ours / "d1/hard")
    (ours / "link").symlink_to("d0")
    du = subprocess.run(["du", "-s", "--block-size=1", ours], capture_output=True, text=True, check=True)
    assert tree.usage().size_bytes == int(du.stdout.split()[0])
    assert tree.usage().files == 22


def test_a_workspace_that_was_replaced_is_not_worked_on(base: Base, tree: Tree, ours: Path, outside: Path):
    ours.rename(ours.with_name("moved"))
    for replacement in ("nothing", "link", "folder"):
        if replacement == "link":
            ours.symlink_to(outside)
        elif replacement == "folder":
            ours.unlink()
            ours.mkdir()
        acts = (
            lambda: tree.write("a", b"x"),
            lambda: tree.read("secret.txt"),
            tree.list,
            tree.usage,
            lambda: tree.mkdir("a"),
            lambda: tree.delete("a"),
            lambda: tree.stat("a"),
        )
        for act in acts:
            with pytest.raises(ConflictError, match="replaced"):
                act()
        if replacement != "folder":
            assert not base.exists("ours")
            with pytest.raises(FileMissingError):
                base.tree("ours")
    assert os.listdir(ours) == []
    assert os.listdir(ours.with_name("moved")) == []


def test_a_closed_tree_is_closed(base: Base):
    before = descriptors()
    tree = base.tree("ours")
    tree.close()
    tree.close()
    assert descriptors() == before


def test_a_reader_finds_the_old_content_or_the_new_and_never_a_mixture(tree: Tree):
    contents = {bytes([65 + number]) * 300_000 for number in range(4)}
    tree.write("a", b"A" * 300_000)
    done = threading.Event()

    def write() -> None:
        for _ in range(10):
            for content in contents:
                tree.write("a", content)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set[bytes]()
    while not done.is_set():
        content = tree.read("a")
        assert content in contents
        seen.add(content[:1])
    writer.join()
    assert len(seen) > 1


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_content(tree: Tree, base: Base, folder: Path):
    tree.write("a", b"old")
    program = f"""
import os, signal, sys
from alcove.workspaces.base import Base
def pieces():
    yield b"new" * 100_000
    os.kill(os.getpid(), signal.SIGKILL)
Base.open({str(folder)!r}, "installation-1").tree("ours").write("a", pieces())
"""
    died = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    assert died.returncode == -signal.SIGKILL
    assert tree.read("a") == b"old"
    assert len(os.listdir(folder / ".alcove" / "temp")) == 1
    Base.open(str(folder), "installation-1").close()
    assert os.listdir(folder / ".alcove" / "temp") == []


def test_opening_a_base_leaves_what_another_process_is_writing(tree: Tree, folder: Path):
    def pieces():
        yield b"one"
        Base.open(str(folder), "installation-1").close()
        assert len(os.listdir(folder / ".alcove" / "temp")) == 1
        yield b"two"

    tree.write("a", pieces())
    assert tree.read("a") == b"onetwo"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_root_server_gives_what_it_makes_to_the_session(base: Base, folder: Path, outside: Path):
    base.create("leased", owner=54321)
    with base.tree("leased", owner=54321) as tree:
        tree.write("a/b/c", b"x")
        tree.write("a/b/c", b"y")
        tree.mkdir("d/e")
        (folder / "leased" / "link").symlink_to(outside / "secret.txt")
        tree.write("link", b"x")
    for path in ("", "a", "a/b", "a/b/c", "d", "d/e", "link"):
        info = os.lstat(folder / "leased" / path)
        assert (info.st_uid, info.st_gid) == (54321, 54321), path
    assert base.purge("t").files == 0


def test_control_characters_do_not_reach_a_message(tree: Tree):
    with pytest.raises(FileMissingError) as caught:
        tree.read("\x1b[2J\n" + "x" * 200)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_long_for_the_file_system_is_not_an_os_error(tree: Tree):
    with pytest.raises(InvalidError):
        tree.write("x" * 300, b"")
