"""Full disks and mounts, in a mount namespace that goes away with the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[[str], None]
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]

PRELUDE = """
import ctypes, os, sys
from alcove.errors import AlcoveError, InvalidError, StorageError
from alcove.workspaces import openat2
from alcove.workspaces.base import Base

if sys.argv[2] == "walk":
    openat2.supported = lambda: False

def mount(source, target, kind, flags=0, data=None):
    libc = ctypes.CDLL(None, use_errno=True)
    encode = lambda text: text and text.encode()
    if libc.mount(encode(source), encode(target), encode(kind), flags, encode(data)):
        raise OSError(ctypes.get_errno(), "mount")

def refused(kind, act):
    try:
        act()
    except kind as error:
        assert error.remedy, error
        return str(error)
    raise AssertionError("it was not refused")

top = sys.argv[1]
BIND = 4096
"""


@pytest.fixture
def inside(tmp_path: Path, way: str) -> Run:
    """Run a program in a mount namespace of its own; it gets a folder and the way to open files."""
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets this user make no mount namespace")

    def run(program: str) -> None:
        done = subprocess.run(
            [*UNSHARE, sys.executable, "-c", PRELUDE + program, str(tmp_path), way],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        )
        assert done.returncode == 0, done.stderr

    return run


def test_a_full_disk_is_named_and_leaves_the_old_content(inside: Run):
    inside("""
mount("tmpfs", top, "tmpfs", data="size=1m,nr_inodes=64")
base = Base.open(top + "/base", "one")
base.create("ours")
tree = base.tree("ours")
tree.write("a", b"old")
assert "No space" in refused(StorageError, lambda: tree.write("a", b"x" * 2_000_000))
assert tree.read("a") == b"old"
assert os.listdir(top + "/base/.alcove/temp") == []
tree.write("b", b"there is room for this")
for number in range(60):
    try:
        tree.mkdir(f"d{number}")
    except StorageError:
        break
else:
    raise AssertionError("there are inodes left")
refused(StorageError, lambda: base.create("more"))
assert not base.exists("more")
refused(StorageError, lambda: base.trash("ours", "t1"))
tree.delete("d0")
assert base.trash("ours", "t1")
""")


def test_a_trashed_workspace_is_removed_from_a_full_disk(inside: Run):
    inside("""
mount("tmpfs", top, "tmpfs", data="size=1m")
base = Base.open(top + "/base", "one")
base.create("ours")
base.trash("ours", "t1")
with open(top + "/base/.alcove/trash/t1/ours/fill", "wb", buffering=0) as file:
    try:
        while True:
            file.write(b"x" * 4096)
    except OSError:
        pass
assert base.purge("t1").size_bytes > 900_000
base.create("next")
""")


def test_a_read_only_disk_is_named(inside: Run):
    inside("""
mount("tmpfs", top, "tmpfs")
base = Base.open(top + "/base", "one")
base.create("ours")
tree = base.tree("ours")
tree.write("a", b"old")
mount(None, top, None, 32 | 1)
assert "writable" in refused(StorageError, lambda: tree.write("a", b"x"))
refused(StorageError, lambda: tree.delete("a"))
refused(StorageError, lambda: tree.mkdir("b"))
refused(StorageError, lambda: base.create("more"))
assert tree.read("a") == b"old"
refused(Exception, lambda: Base.open(top + "/base", "one"))
""")


@pytest.mark.parametrize("kind", ["another file system", "a bind mount of the same one"])
def test_what_is_mounted_inside_is_never_entered(inside: Run, kind: str):
    inside(f"""
mount("tmpfs", top, "tmpfs")
os.mkdir(top + "/precious")
base = Base.open(top + "/base", "one")
base.create("ours")
tree = base.tree("ours")
tree.mkdir("a/mounted/deep")
if {kind!r}.startswith("another"):
    mount("tmpfs", top + "/precious", "tmpfs")
open(top + "/precious/file", "w").close()
mount(top + "/precious", top + "/base/ours/a/mounted", None, BIND)
listing = tree.list()
assert listing.files == () and listing.truncated
assert tree.usage().files == 0
assert "mounted" in refused(StorageError, lambda: tree.delete("a", recursive=True))
refused(InvalidError, lambda: tree.write("a/mounted/x", b""))
base.trash("ours", "t1")
assert "mounted" in refused(StorageError, lambda: base.purge("t1"))
assert os.listdir(top + "/precious") == ["file"]
import shutil
shutil.rmtree(top + "/base/.alcove/trash/t1", ignore_errors=True)
assert os.listdir(top + "/precious") == [], "the negative control: rmtree empties it"
""")


def test_a_base_in_two_file_systems_is_refused(inside: Run):
    inside("""
from alcove.errors import ConfigurationError
Base.open(top + "/base", "one").close()
mount("tmpfs", top + "/base/.alcove/temp", "tmpfs")
assert "file system" in refused(ConfigurationError, lambda: Base.open(top + "/base", "one"))
""")
