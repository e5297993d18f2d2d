"""As root, everything here once more as an ordinary user: other rungs hold, and other things stay open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.conftest import ROOT

NOBODY = 65534
ENOUGH = "import sys; assert sys.version_info[:2] == ({}, {}); import msgspec, pytest_asyncio, hypothesis"


def as_nobody(*command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], "HOME": "/tmp", "PYTHONPATH": os.pathsep.join(sys.path)},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def interpreter() -> str | None:
    """A Python that this user may execute, and that finds what the tests need."""
    program = ENOUGH.format(*sys.version_info[:2])
    for path in (sys.executable, os.path.realpath(sys.executable), "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            if as_nobody(path, "-c", program, timeout_s=20).returncode == 0:
                return path
        except (PermissionError, FileNotFoundError):
            continue
    return None


@pytest.mark.skipif(not ROOT, reason="this is an ordinary user already")
@pytest.mark.timeout(300)
def test_everything_holds_for_an_ordinary_user() -> None:
    python = interpreter()
    if python is None:
        pytest.skip("no Python of this version that another user may execute")
    here = Path(__file__)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", f"--ignore={here}", "--durations=0"]
    done = as_nobody(python, "-B", "-m", "pytest", str(here.parent), *options, timeout_s=280)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
