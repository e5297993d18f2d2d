"""Probes of several processes on one base do not disturb each other, and a killed one leaves nothing for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alcove import limits
from alcove.errors import ConflictError, StorageError
from alcove.sandbox.berths import Berths
from alcove.sandbox.service import Sandbox
from alcove.workspaces import uids
from sandbox.conftest import ROOT

HOLDER = """
import sys, pathlib
from alcove.sandbox.berths import Berths
with Berths(pathlib.Path(sys.argv[1]), None).borrow() as berth:
    pathlib.Path(berth.folder, "deep").mkdir()
    print(berth.folder, flush=True)
    sys.stdin.read()
"""
PROBER = """
import asyncio, sys, pathlib
from alcove.sandbox.service import Sandbox
async def main():
    sandbox = await Sandbox.open(canary=pathlib.Path(sys.argv[1]), installation="shared", minimum=frozenset())
    await sandbox.close()
    for report in sandbox.report():
        print(report.rung, report.available, report.holes, report.failure)
asyncio.run(main())
"""


def start(program: str, base: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(base)],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_berth_is_empty_of_its_own_and_gone_afterwards(base: Path) -> None:
    own = range(limits.UIDS_SPARE) if ROOT else None
    berths = Berths(base, own)
    with berths.borrow() as one, berths.borrow() as other:
        assert one.folder != other.folder
        assert os.listdir(one.folder) == []
        info = Path(one.folder).stat()
        assert info.st_mode & 0o777 == 0o700
        if ROOT:
            assert one.uid != other.uid
            assert info.st_uid == info.st_gid == one.uid
    assert list(base.iterdir()) == []


def test_what_a_killed_process_left_is_swept_and_what_a_live_one_holds_is_not(base: Path) -> None:
    with start(HOLDER, base) as killed, start(HOLDER, base) as alive:
        assert killed.stdout is not None
        assert alive.stdout is not None
        left, held = Path(killed.stdout.readline().strip()), Path(alive.stdout.readline().strip())
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert {*base.iterdir()} == {left, held}, "the control: a killed process cleans nothing up"
        assert Berths(base, None).sweep() == 1
        assert {*base.iterdir()} == {held}
        assert (held / "deep").is_dir()
    assert list(base.iterdir()) == []


async def test_opening_sweeps_even_when_the_probe_is_not_repeated(base: Path, cache: Path) -> None:
    await (await Sandbox.open(canary=base, cache=base / "probes.json")).close()
    (base / ".probe-7" / "deep").mkdir(parents=True)
    await (await Sandbox.open(canary=base, cache=base / "probes.json")).close()
    assert [path.name for path in base.iterdir()] == ["probes.json"]


def test_a_folder_that_was_left_is_taken_over_empty(base: Path) -> None:
    for number in range(limits.UIDS_SPARE):
        (base / f".probe-{number}" / "left").mkdir(parents=True)
    with Berths(base, None).borrow() as berth:
        assert os.listdir(berth.folder) == []


def test_there_is_an_end_of_berths_and_it_says_so(base: Path) -> None:
    for number in range(limits.UIDS_SPARE):
        (base / f".probe-{number}").write_text("somebody's file")
    with pytest.raises(ConflictError, match="hold every") as refused, Berths(base, None).borrow():
        pass
    assert refused.value.remedy
    with pytest.raises(StorageError), Berths(base / "not-there", None).borrow():
        pass


async def test_probes_of_processes_on_one_base_do_not_disturb_each_other(base: Path) -> None:
    """They had the same two uids and ended each other's, so that a rung seemed not to work."""
    probers = [start(PROBER, base) for _ in range(4)]
    said = [(await asyncio.to_thread(prober.communicate))[0] for prober in probers]
    assert len(set(said)) == 1
    assert all(f"{rung} True" in said[0] for rung in ("userns", "bwrap", "landlock", "none"))
    assert list(base.iterdir()) == []


def test_installations_have_spare_uids_of_their_own_that_no_session_gets() -> None:
    seen: set[int] = set()
    for name in ("one", "two", "three"):
        first, last = uids.leasable(name)
        spare = uids.spare(name)
        assert len(spare) == limits.UIDS_SPARE
        assert last < spare[0]
        assert first > 0
        seen |= {first, spare[-1]}
    assert len(seen) == 6
