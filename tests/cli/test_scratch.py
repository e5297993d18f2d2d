"""`alcove scratch`: the same protocol as the module, without hub and database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alcove.scratch import taking
from cli.conftest import Run, loaded


@pytest.fixture(autouse=True)
def _released(place: Path) -> None:
    taking._held.clear()


def test_dir_prints_the_folder(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACE_ID", "t1")
    assert run("scratch", "dir", "--app", "kfs").stdout == f"{place}/kfs-sessions/t1\n"
    other = run("scratch", "dir", "--app", "kfs", "--root", "below", "--trace-id", "t2").stdout.strip()
    assert Path(other).is_dir()


def test_dir_without_a_trace_id_says_who_sets_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRACE_ID", raising=False)
    result = run("scratch", "dir", "--app", "kfs", exit_code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("error: TRACE_ID is not set")
    assert "TRACE_ID=$(uuidgen)" in result.stderr


@pytest.mark.parametrize("trace_id", ["../..", "/etc", "x" * 300])
def test_dir_refuses_an_id_that_leaves_the_root(run: Run, place: Path, trace_id: str) -> None:
    result = run("scratch", "dir", "--app", "kfs", "--trace-id", trace_id, exit_code=1)
    assert "cannot be the name of a folder" in result.stderr
    assert not (place / "kfs-sessions").exists()


def test_ls_and_sweep(run: Run, place: Path) -> None:
    for name in ("new", "old"):
        run("scratch", "dir", "--app", "kfs", "--trace-id", name)
        taking.let_go(str(place / "kfs-sessions" / name))
    os.utime(place / "kfs-sessions" / "old", (1_790_000_000, 1_790_000_000))
    lines = [line.split("\t") for line in run("scratch", "ls", "--app", "kfs").stdout.splitlines()]
    assert lines[0] == ["old", "2026-09-21T14:13:20+00:00", "no", f"{place}/kfs-sessions/old"]
    assert [row["trace_id"] for row in loaded(run("scratch", "ls", "--app", "kfs", "--json"))["folders"]] == [
        "old",
        "new",
    ]
    assert "1 folder would go" in run("scratch", "sweep", "--app", "kfs", "--dry-run").stderr
    assert run("scratch", "sweep", "--app", "kfs", "--older-than", "7d").stdout == "old\n"
    assert loaded(run("scratch", "sweep", "--app", "kfs", "--json")) == {"dry_run": False, "removed": [], "failed": []}
    run("scratch", "sweep", "--app", "kfs", "--older-than", "never", exit_code=2)


def test_it_loads_no_database_and_no_server() -> None:
    code = "import sys, alcove.cli.main, alcove.cli.scratch; print(*sys.modules)"
    loaded_names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"apsw", "msgspec", "starlette", "alcove.hub", "asyncio"} & set(loaded_names.split()) == set()
