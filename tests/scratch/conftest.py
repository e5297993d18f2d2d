"""A root of its own for each test, and processes that use it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alcove.scratch import taking

DAY_S = 86_400
Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is the current one; no trace id; afterwards nothing is held."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRACE_ID", raising=False)
    yield tmp_path
    for path in list(taking._held):
        taking.let_go(path)


@pytest.fixture
def program(root: Path) -> Program:
    """Runs Python in a process of its own, with TRACE_ID as given."""

    def run(code: str, *, trace_id: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **({"TRACE_ID": trace_id} if trace_id else {})}
        return subprocess.run(
            [sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True, timeout=60
        )

    return run


def age(path: Path, days: float = 2) -> None:
    """Make a folder and all that is in it look old."""
    for one in [*path.rglob("*"), path]:
        stamp = os.stat(one, follow_symlinks=False).st_mtime - days * DAY_S
        os.utime(one, (stamp, stamp), follow_symlinks=False)
