from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from alcove import limits
from alcove.errors import ConflictError
from alcove.workspaces.base import Base
from alcove.workspaces.model import Removed
from workspaces.probes import descriptors, meanwhile, until

Purge = Callable[[], Removed]
pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture
def trash(base: Base) -> Purge:
    """Move `ours` to the trash and purge it."""

    def purge() -> Removed:
        base.trash("ours", "t1")
        return base.purge("t1")

    return purge


def deepen(folder: Path, depth: int, name: str = "d") -> None:
    """Make a tree deeper than any path can be written, and a file at the bottom of it."""
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


@pytest.mark.parametrize(("depth", "name"), [(5200, "d"), (1200, "n" * 255)])
def test_depth_costs_neither_the_stack_nor_descriptors(base: Base, ours: Path, trash: Purge, depth: int, name: str):
    deepen(ours, depth, name)
    before = descriptors()
    with base.tree("ours") as tree:
        assert tree.usage().files == 1
        assert tree.list().truncated
    receipt = trash()
    assert (receipt.files, receipt.folders) == (1, depth + 2)  # and the workspace, and its trashing
    assert receipt.size_bytes > 0
    assert descriptors() == before


def test_links_are_removed_and_not_followed(base: Base, ours: Path, trash: Purge, outside: Path, theirs: Path):
    (ours / "to-folder").symlink_to(outside)
    (ours / "to-root").symlink_to("/")
    (ours / "to-file").symlink_to(outside / "secret.txt")
    (ours / "to-theirs").symlink_to("../theirs")
    (ours / "loop").symlink_to("loop")
    assert trash().files == 5


def test_a_hard_link_goes_and_the_file_stays(ours: Path, trash: Purge, outside: Path):
    (outside.parent / "kept").write_bytes(b"x" * 100_000)
    os.link(outside.parent / "kept", ours / "hard")
    receipt = trash()
    assert receipt.size_bytes < 100_000, "room that another link still takes is not given back"
    assert (outside.parent / "kept").read_bytes() == b"x" * 100_000


@pytest.mark.parametrize("target", ["/", "{outside}", "../theirs", "nothing"])
def test_a_workspace_replaced_by_a_link_costs_only_the_link(
    base: Base, ours: Path, trash: Purge, outside: Path, theirs: Path, target: str
):
    ours.rename(ours.with_name("moved"))
    ours.symlink_to(target.format(outside=outside))
    receipt = trash()
    assert (receipt.files, receipt.folders) == (1, 1)  # the link and its trashing
    assert not os.path.lexists(ours)


def test_what_is_gone_already_is_no_error(base: Base, ours: Path, trash: Purge):
    assert trash().folders == 2
    assert trash() == Removed(files=0, folders=0, size_bytes=0)
    assert base.purge("never") == Removed(files=0, folders=0, size_bytes=0)


def test_closed_modes_are_opened(base: Base, ours: Path, trash: Purge):
    for mode in (0, 0o100, 0o200, 0o400, 0o500, 0o600):
        (ours / f"{mode:o}" / "below").mkdir(parents=True)
        (ours / f"{mode:o}" / "below" / "file").write_text("x")
        (ours / f"{mode:o}" / "below").chmod(mode)
        (ours / f"{mode:o}").chmod(mode)
    ours.chmod(0)
    assert trash().files == 6
    assert not ours.exists()


def test_modes_are_not_changed_through_a_link(base: Base, ours: Path, trash: Purge, outside: Path):
    outside.chmod(0o500)
    (ours / "link").symlink_to(outside)
    (ours / "hard").mkdir()
    assert trash().files == 1
    assert outside.stat().st_mode & 0o777 == 0o500
    outside.chmod(0o755)


def test_names_of_every_byte_go(ours: Path, trash: Purge):
    raw = bytes(byte for byte in range(1, 256) if byte != 0x2F)
    for name in [*(bytes([byte]) for byte in raw if byte != 0x2E), raw[:200], b"-rf", b"..."]:
        os.mkdir(os.path.join(os.fsencode(ours), b"d" + name[:200]))
        os.close(os.open(os.path.join(os.fsencode(ours), name), os.O_CREAT | os.O_WRONLY))
    trash()
    assert not ours.exists()


@pytest.mark.parametrize(
    "count", [pytest.param(2_000, id="2k"), pytest.param(100_000, id="100k", marks=pytest.mark.long)]
)
def test_many_files_in_one_folder_go(ours: Path, trash: Purge, count: int):
    fd = os.open(ours, os.O_RDONLY)
    for number in range(count):
        os.mknod(f"file-{number}", 0o600, dir_fd=fd)
    os.close(fd)
    assert trash().files == count


def test_names_that_vanish_meanwhile_are_no_error(base: Base, ours: Path, trash: Purge):
    for number in range(300):
        (ours / f"d{number:03}").mkdir()
        (ours / f"d{number:03}" / "f").write_text("x")
    base.trash("ours", "t1")
    gone = ours.parent / ".alcove" / "trash" / "t1" / "ours"
    names = iter(range(300))

    def step() -> None:
        number = next(names, None)
        if number is not None:
            try:
                os.unlink(gone / f"d{number:03}" / "f")
                os.rmdir(gone / f"d{number:03}")
            except OSError:
                pass

    with meanwhile(step):
        base.purge("t1")
    assert not gone.exists()


def test_a_writer_that_does_not_stop_does_not_hold_up_the_server(base: Base, ours: Path, outside: Path):
    base.trash("ours", "t1")
    fd = os.open(ours.parent / ".alcove/trash/t1/ours", os.O_RDONLY)
    # As a process that was not ended would: it works in its folder, wherever that is now.
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(fd)], pass_fds=[fd], stdin=subprocess.PIPE)
    try:
        until(lambda: os.listdir(fd))
        with suppress(ConflictError):  # who wins is not promised, only that it ends and names the reason
            base.purge("t1")
    finally:
        writer.communicate()
        os.close(fd)
    base.purge("t1")
    assert os.listdir(ours.parent / ".alcove/trash") == []


WRITER = """
import os, sys, threading
fd = int(sys.argv[1])
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set())).start()
number = 0
while not stop.is_set():
    number += 1
    try:
        os.mkdir(f"d{number}", dir_fd=fd)
        os.mknod(f"d{number}/f", 0o600, dir_fd=fd)
        os.mknod(f"f{number}", 0o600, dir_fd=fd)
    except FileNotFoundError:
        pass
"""


def test_a_folder_that_always_fills_again_ends_in_an_error(base: Base, ours: Path, monkeypatch: pytest.MonkeyPatch):
    base.trash("ours", "t1")
    gone = ours.parent / ".alcove/trash/t1/ours"
    rmdir = os.rmdir

    def refill(name: bytes, *, dir_fd: int | None = None) -> None:
        if name == b"ours":
            (gone / "again").write_text("x")
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", refill)
    with pytest.raises(ConflictError, match="a process still writes there"):
        base.purge("t1")
    monkeypatch.undo()
    base.purge("t1")
    assert not gone.exists()


@pytest.mark.parametrize("limit", ["REMOVE_NAMES", "REMOVE_AGAIN_NAMES"])
def test_a_writer_faster_than_the_removal_does_not_keep_it_for_ever(
    base: Base, ours: Path, monkeypatch: pytest.MonkeyPatch, limit: str
):
    base.trash("ours", "t1")
    gone = ours.parent / ".alcove/trash/t1/ours"
    (gone / "d").mkdir()
    monkeypatch.setattr(limits, limit, 50)
    rmdir, count = os.rmdir, 0

    def refill(name: bytes, *, dir_fd: int | None = None) -> None:
        nonlocal count
        for _ in range(2):
            count += 1
            os.mkdir(f"more{count}", dir_fd=dir_fd)
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", refill)
    with pytest.raises(ConflictError, match="a process still writes there"):
        base.purge("t1")
    assert count < 1000
    monkeypatch.undo()
    base.purge("t1")
    assert not gone.exists()


def test_a_file_that_another_process_holds_open_goes(ours: Path, trash: Purge):
    with open(ours / "held", "wb") as held:
        held.write(b"x")
        assert trash().files == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sets the immutable flag")
def test_an_immutable_file_is_named_with_the_remedy(ours: Path, trash: Purge):
    (ours / "fixed").write_text("x")
    if subprocess.run(["chattr", "+i", ours / "fixed"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this file system has no immutable flag")
    try:
        with pytest.raises(ConflictError, match="chattr -i"):
            trash()
    finally:
        subprocess.run(["chattr", "-i", ours.parent / ".alcove/trash/t1/ours/fixed"], check=True)
    trash()
