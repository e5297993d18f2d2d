"""Links, swaps, mounts and modes: each with a control that the thing attacked is real."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from alcove import scratch
from alcove.scratch import ScratchError, sweeping
from scratch.conftest import age


@pytest.fixture
def precious(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old folder outside the root, with something in it."""
    path = tmp_path_factory.mktemp("precious")
    (path / "file").write_text("keep")
    age(path)
    return path


def test_a_link_in_the_place_of_a_session_or_app_folder_is_refused(root: Path, precious: Path) -> None:
    (root / "a-sessions").mkdir()
    (root / "a-sessions" / "t").symlink_to(precious)
    (root / "b-sessions").symlink_to(precious)
    stamp = precious.stat().st_mtime
    for app in ("a", "b"):
        with pytest.raises(ScratchError, match="is a link or a file"):
            scratch.session_dir(app, trace_id="t")
    for call in (scratch.folders, scratch.sweep):
        with pytest.raises(ScratchError):
            call("b")
    assert precious.stat().st_mtime == stamp, "nor was it refreshed"
    assert os.listdir(precious) == ["file"]


def test_a_file_in_the_place_of_a_folder_is_refused(root: Path) -> None:
    (root / "a-sessions").mkdir()
    (root / "a-sessions" / "t").write_text("x")
    with pytest.raises(ScratchError, match="is a link or a file"):
        scratch.session_dir("a", trace_id="t")


def test_a_linked_root_is_its_owners_choice(root: Path, precious: Path) -> None:
    (root / "link").symlink_to(precious)
    scratch.session_dir("a", root="link", trace_id="t")
    assert (precious / "a-sessions" / "t").is_dir()


def test_an_app_folder_of_somebody_else_is_refused(root: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    (root / "a-sessions").mkdir()
    os.chown(root / "a-sessions", 65534, 65534)
    with pytest.raises(ScratchError, match="somebody else"):
        scratch.session_dir("a", trace_id="t")


def test_a_sweep_removes_links_and_leaves_what_they_point_to(root: Path, precious: Path) -> None:
    old = root / "a-sessions" / "old"
    (old / "in").mkdir(parents=True)
    (old / "link").symlink_to(precious)
    (old / "in" / "up").symlink_to("../../..")
    (root / "a-sessions" / "linked").symlink_to(precious)
    age(old)
    assert scratch.sweep("a").removed == ["old"]
    assert os.listdir(precious) == ["file"]
    assert (root / "a-sessions" / "linked").is_symlink(), "what is no folder is not ours"


Swap = Callable[[Path, Path], None]


def _to_link(old: Path, precious: Path) -> None:
    old.rename(old.parent.parent / "moved")
    old.symlink_to(precious)


def _to_folder(old: Path, precious: Path) -> None:
    old.rename(old.parent.parent / "moved")
    precious.rename(old)


@pytest.mark.parametrize("swap", [_to_link, _to_folder])
def test_a_folder_swapped_after_it_was_looked_at_is_not_removed(
    root: Path, precious: Path, monkeypatch: pytest.MonkeyPatch, swap: Swap
) -> None:
    old = root / "a-sessions" / "old"
    old.mkdir(parents=True)
    age(old)
    real = sweeping.newest

    def look_and_swap(folder: int, enough: float) -> tuple[float, int]:
        found = real(folder, enough)
        swap(old, precious)
        return found

    monkeypatch.setattr(sweeping, "newest", look_and_swap)
    assert scratch.sweep("a").removed == []
    assert (old / "file").read_text() == "keep"


@pytest.mark.parametrize("swap", [_to_link, _to_folder])
def test_a_folder_swapped_at_the_last_moment_goes_back(
    root: Path, precious: Path, monkeypatch: pytest.MonkeyPatch, swap: Swap
) -> None:
    old = root / "a-sessions" / "old"
    old.mkdir(parents=True)
    age(old)
    real = sweeping._fresh_name

    def name_and_swap() -> str:
        swap(old, precious)
        return real()

    monkeypatch.setattr(sweeping, "_fresh_name", name_and_swap)
    assert scratch.sweep("a").removed == []
    assert (old / "file").read_text() == "keep"


def test_a_folder_inside_swapped_for_a_link_during_the_removal_is_not_followed(
    root: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = root / "a-sessions" / "old"
    (old / "in").mkdir(parents=True)
    age(old)
    real = sweeping._raise

    def swap_and_raise(fd: int, folder: int, name: str, new: str) -> None:
        (root / "a-sessions" / new).symlink_to(precious)

    monkeypatch.setattr(sweeping, "_raise", swap_and_raise)
    swept = scratch.sweep("a")
    monkeypatch.setattr(sweeping, "_raise", real)
    assert (swept.removed, len(swept.failed)) == (["old"], 1), "it could not be emptied, and says so"
    assert os.listdir(precious) == ["file"]
    assert scratch.sweep("a").failed == []
    assert os.listdir(precious) == ["file"]
    assert os.listdir(root / "a-sessions") == [".sweep"]


def test_a_tree_deeper_than_any_recursion_and_longer_than_any_path_goes(root: Path) -> None:
    old = root / "a-sessions" / "old"
    old.mkdir(parents=True)
    fd = os.open(old, os.O_RDONLY)
    for _ in range(1050):
        os.mkdir("d" * 20, dir_fd=fd)
        below = os.open("d" * 20, os.O_RDONLY, dir_fd=fd)
        os.utime(fd, (0, 0))
        os.close(fd)
        fd = below
    os.utime(fd, (0, 0))
    os.close(fd)
    assert scratch.sweep("a").removed == ["old"]
    assert os.listdir(root / "a-sessions") == [".sweep"]


UNREADABLE = """
import os, alcove.scratch as s
from pathlib import Path  # before the uid changes: the interpreter's own folder may be private
os.setgroups([]); os.setgid(65534); os.setuid(65534)
old = Path("a-sessions/old"); (old / "in" / "er").mkdir(parents=True); (old / "in" / "file").write_text("x")
for one in (old / "in" / "file", old / "in" / "er", old / "in", old): os.utime(one, (0, 0))
os.chmod(old / "in" / "er", 0); os.chmod(old / "in", 0); os.chmod(old, 0)
try: os.listdir(old)
except PermissionError: print("control")
print(sorted(s.sweep("a", dry_run=True).removed), oct(old.stat().st_mode & 0o777))
swept = s.sweep("a"); print(swept.removed, swept.failed, sorted(os.listdir("a-sessions")))
"""


def test_folders_that_their_owner_may_not_read_go_and_those_of_others_are_told() -> None:
    if os.geteuid():
        pytest.skip("needs a second user")
    # Not pytest's own folder: another user could not get through to it.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        other = Path(folder, "a-sessions", "root")
        other.mkdir(parents=True, mode=0o700)
        os.utime(other, (0, 0))
        os.chown(other.parent, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", UNREADABLE], cwd=folder, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.splitlines() == [
            "control",
            "['old', 'root'] 0o0",
            "['old'] [('root', 'Operation not permitted')] ['.sweep', 'root']",
        ], done.stderr


MOUNTED = """
import os, subprocess, alcove.scratch as s
from pathlib import Path
old = Path("a-sessions/old"); (old / "mount").mkdir(parents=True)
subprocess.run(["mount", "--bind", "precious", str(old / "mount")], check=True)
assert (old / "mount" / "file").exists()
os.utime("precious", (0, 0)); os.utime("precious/file", (0, 0)); os.utime(old, (0, 0))
swept = s.sweep("a")
print(swept.failed[0][1], os.listdir("precious"))
"""


def test_what_is_mounted_inside_is_never_entered(root: Path) -> None:
    (root / "precious").mkdir()
    (root / "precious" / "file").write_text("keep")
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    done = subprocess.run(
        [*unshare, sys.executable, "-c", MOUNTED], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "Device or resource busy ['file']\n", done.stderr
    assert scratch.sweep("a").failed == [], "once it is unmounted, the next sweep finishes"
    assert os.listdir(root / "a-sessions") == [".sweep"]
