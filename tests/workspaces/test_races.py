"""Somebody swaps names while the server works. What must never happen is tried many times, on both ways to open."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from alcove.errors import AlcoveError
from alcove.workspaces.tree import Tree
from workspaces.conftest import SECRET
from workspaces.probes import exchange, meanwhile, naive_read, tries
from workspaces.tars import member, tar

T = TypeVar("T")
pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture
def trap(ours: Path, outside: Path) -> Path:
    """Two names to swap: a folder of ours, and a link that leads out."""
    (ours / "folder").mkdir()
    (ours / "folder" / "secret.txt").write_text("inside")
    (ours / "folder" / "deep").mkdir()
    (ours / "swap").symlink_to(outside)
    return ours


def swapping(trap: Path):
    return meanwhile(lambda: exchange(trap / "folder", trap / "swap"))


def test_a_swap_during_reads_leaks_nothing(tree: Tree, trap: Path):
    with swapping(trap) as swaps:
        answers = {_attempt(lambda: tree.read("folder/secret.txt")) for _ in tries(1500, swaps)}
    assert answers <= {b"inside", None}
    _put_back(trap)
    assert tree.read("folder/secret.txt") == b"inside"


def test_the_same_swap_makes_a_naive_server_leak(trap: Path, way: str):
    if way == "walk":
        return  # the control does not depend on the way
    deadline = time.monotonic() + 60
    with swapping(trap):
        while time.monotonic() < deadline:
            if naive_read(trap, "folder/secret.txt") == SECRET:
                return
    pytest.fail("the race never leaked: the tests beside this one prove nothing")


def test_a_swap_during_writes_puts_nothing_outside(tree: Tree, trap: Path):
    # How many get through is the scheduler's to say, and may be none: what each of them did is looked at by the fixture
    # `outside`, and that writes work at all is seen where nothing is swapped any more.
    with swapping(trap) as swaps:
        for n in tries(200, swaps):
            _attempt(lambda n=n: tree.write(f"folder/{n % 7}.txt", b"ours"))
        for n in tries(100, swaps):
            _attempt(lambda n=n: tree.write(f"folder/new{n}/deep/x", b"ours"))
    _put_back(trap)
    assert tree.write("folder/0.txt", b"ours").size_bytes == 4
    assert (trap / "folder" / "0.txt").read_bytes() == b"ours"


def test_a_swap_during_mkdir_and_delete_changes_nothing_outside(tree: Tree, trap: Path):
    with swapping(trap) as swaps:
        for number in tries(300, swaps):
            _attempt(lambda: tree.mkdir("folder/deep/a/b"))
            _attempt(lambda: tree.delete("folder/deep", recursive=True))
            if number % 2:
                _attempt(lambda: tree.delete("folder/secret.txt"))


def test_a_swap_during_listings_and_counts_shows_nothing_outside(tree: Tree, trap: Path, outside: Path):
    (outside / "only-outside.txt").write_text("")
    with swapping(trap) as swaps:
        for _ in tries(200, swaps):
            assert not [file for file in tree.list().files if "only-outside" in file.path]
            listing = _attempt(lambda: tree.list("folder"))
            assert not listing or not [file for file in listing.files if "only-outside" in file.path]
            assert tree.usage().files <= 2
    os.unlink(outside / "only-outside.txt")


def test_a_parent_exchanged_in_the_middle_of_a_walk_leads_nowhere_else(tree: Tree, ours: Path, outside: Path):
    for at in ("a", "b"):
        (ours / at / "1/2/3/4/5").mkdir(parents=True)
        (ours / at / "1/2/3/4/5" / at).write_text(at)

    def step() -> None:
        exchange(ours / "a/1/2", ours / "b/1/2/3")
        exchange(ours / "a/1/2", ours / "b/1/2/3")
        exchange(ours / "a/1", ours / "b/1")

    with meanwhile(step) as swaps:
        for _ in tries(60, swaps):
            assert {Path(file.path).name for file in tree.list().files} <= {"a", "b"}
            tree.usage()
            assert _attempt(lambda: tree.read("a/1/2/3/4/5/a")) in {None, b"a"}
    assert tree.usage().files == 2


def test_a_folder_moved_up_while_it_is_removed_takes_nothing_else_along(tree: Tree, ours: Path, outside: Path):
    (ours / "keep").mkdir()
    (ours / "keep" / "kept.txt").write_text("kept")
    for round_ in range(30):
        deep = ours / f"gone{round_}" / "/".join("abcdefgh")
        deep.mkdir(parents=True)

        def step(round_: int = round_) -> None:
            for source, target in (("a/b/c", f"../moved{round_}"), ("a", f"../moved{round_}/a")):
                with suppress(OSError):
                    os.rename(ours / f"gone{round_}" / source, ours / f"gone{round_}" / target)

        with meanwhile(step):
            _attempt(lambda round_=round_: tree.delete(f"gone{round_}", recursive=True))
    assert (ours / "keep" / "kept.txt").read_text() == "kept"


def test_a_swap_during_moves_takes_nothing_out_and_brings_nothing_in(tree: Tree, trap: Path):
    with swapping(trap) as swaps:
        for number in tries(60, swaps):
            (trap / f"mine{number}").write_text("mine")
            _attempt(lambda n=number: tree.move(f"mine{n}", f"folder/mine{n}"))
            _attempt(lambda n=number: tree.move("folder/secret.txt", f"stolen{n}"))
            if (trap / f"stolen{number}").exists():
                assert (trap / f"stolen{number}").read_text() == "inside"
                os.rename(trap / f"stolen{number}", trap / "back")
                _attempt(lambda: tree.move("back", "folder/secret.txt"))
    _put_back(trap)
    (trap / "last").write_text("mine")
    assert tree.move("last", "folder/last").size_bytes == 4


def test_the_same_swap_makes_a_naive_move_lose_a_file_to_outside(tmp_path: Path, way: str):
    """The negative control: `realpath`, then `os.rename`."""
    if way == "walk":
        return  # the control does not depend on the way
    root, outside = tmp_path / "root", tmp_path / "elsewhere"
    (root / "folder").mkdir(parents=True)
    outside.mkdir()
    (root / "swap").symlink_to(outside)
    deadline, number = time.monotonic() + 60, 0
    with meanwhile(lambda: exchange(root / "folder", root / "swap")):
        while time.monotonic() < deadline:
            number += 1
            (root / f"mine{number}").write_text("mine")
            with suppress(OSError):
                if os.path.realpath(root / "folder").startswith(f"{root}/"):
                    os.rename(root / f"mine{number}", root / "folder" / f"mine{number}")
            if os.listdir(outside):
                return
    pytest.fail("the race never led out: the tests beside this one prove nothing")


def test_a_swap_during_uploads_and_extractions_puts_nothing_outside(tree: Tree, trap: Path):
    data = tar(member("a", b"ours"), member("deep/b", b"ours"), member("secret.txt", b"ours"))
    with swapping(trap) as swaps:
        for number in tries(30, swaps):
            _attempt(lambda n=number: _receive(tree, f"folder/up{n % 7}"))
            _attempt(lambda: _extract(tree, data, "folder"))
            _attempt(lambda n=number: _extract(tree, data, f"folder/new{n}"))
    _put_back(trap)
    _receive(tree, "folder/last")
    _extract(tree, data, "folder/last-of-all")
    assert (trap / "folder/last-of-all/deep/b").read_bytes() == (trap / "folder/last").read_bytes() == b"ours"


def _receive(tree: Tree, path: str) -> object:
    with tree.receive() as incoming:
        incoming.add(b"ours")
        return tree.put(incoming, path)


def _extract(tree: Tree, data: bytes, path: str) -> object:
    with tree.stage(path) as extraction:
        extraction.feed(data)
        extracted = extraction.finish()
        extraction.place(replace=True)
        return extracted


def test_a_swap_during_archives_packs_nothing_from_outside(tree: Tree, trap: Path, outside: Path):
    for number in range(30):
        (trap / "folder" / f"f{number}").write_text("inside")
    with swapping(trap) as swaps:
        for _ in tries(30, swaps):
            for path in ("", "folder"):
                packed = _attempt(lambda path=path: b"".join(tree.archive(path)))
                if packed:
                    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                        for info in archive:
                            opened = archive.extractfile(info) if info.isreg() else None
                            assert opened is None or opened.read() == b"inside"


def test_the_same_swap_makes_a_naive_archive_leak(trap: Path, way: str):
    """The negative control: walk by names."""
    if way == "walk":
        return
    deadline = time.monotonic() + 60
    with swapping(trap):
        while time.monotonic() < deadline:
            with suppress(OSError):
                for name in os.listdir(trap):
                    if not os.path.islink(trap / name) and (trap / name / "secret.txt").read_bytes() == SECRET:
                        return
    pytest.fail("the race never leaked: the tests beside this one prove nothing")


def test_names_that_come_and_go_break_no_listing(tree: Tree, ours: Path):
    (ours / "stays.txt").write_text("x")

    def step() -> None:
        (ours / "d" / "e").mkdir(parents=True)
        (ours / "d" / "e" / "f").write_text("x")
        os.unlink(ours / "d" / "e" / "f")
        os.rmdir(ours / "d" / "e")
        os.rmdir(ours / "d")

    with meanwhile(step) as steps:
        for _ in tries(200, steps):
            assert "stays.txt" in {file.path for file in tree.list().files}
            assert tree.usage().files in {1, 2}


def _put_back(trap: Path) -> None:
    """End with the names as they were at first, whichever swap was the last one."""
    if (trap / "folder").is_symlink():
        exchange(trap / "folder", trap / "swap")


def _attempt(act: Callable[[], T]) -> T | None:
    try:
        return act()
    except AlcoveError:
        return None
