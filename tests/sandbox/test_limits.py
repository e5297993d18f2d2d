"""A run that takes more than it was given is ended, and told by which limit; the others go on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alcove import limits
from alcove.sandbox import probe
from alcove.sandbox.berths import Berths
from alcove.sandbox.cgroups import Groups
from alcove.sandbox.plan import Rung
from alcove.sandbox.running import Process
from alcove.sandbox.spawner import Spawner
from alcove.sandbox.watch import Guard
from sandbox.conftest import PYTHON, ROOT, UIDS, World, finish, groups_of, new_token, processes_with, runs_groups, until

MIB = limits.MIB
# What harms a machine without bounds is bounded by itself in these tests, or by the control group of its own run.
HOG = "taken = bytearray(300 << 20)\nfor at in range(0, len(taken), 4096): taken[at] = 1\nimport time; time.sleep({})"
MANY = (
    "import os, time\nfor _ in range(60):\n    if not os.fork(): time.sleep({0}); os._exit(0)\n"
    "print('all'); time.sleep({0})"
)
SPIN = "import time\nend = time.monotonic() + {}\nwhile time.monotonic() < end: pass"
FILL = "with open('filling', 'wb') as file: file.write(bytes(16 << 20)); file.flush(); import time; time.sleep({})"
UNLINKED = FILL.replace("file.write", "__import__('os').unlink('filling'); file.write")
LONG, SHORT = 60, 0


@pytest.fixture(params=["kernel", "watch"] if ROOT else ["watch"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By whom limits are kept: by control groups, where the server may make some, or by the watch alone."""
    if request.param == "watch":
        monkeypatch.setattr(Groups, "find", lambda: None)
    return request.param


@pytest.fixture
async def world(kept: str, opened: Callable[..., Any], rung: Rung) -> World:
    return await opened(rung)


@pytest.fixture
async def plain(opened: Callable[..., Any]) -> World:
    """Where the rung makes no difference."""
    return await opened("userns")


async def ended_by(process: Process) -> str:
    """Return the limit that ended a run, `''` for none."""
    outcome = await finish(process)
    assert process.guard
    if process.guard.excess is None:
        assert outcome.exit.code == 0, outcome.stderr
        return ""
    return process.guard.excess.name


async def test_a_memory_hog_is_ended_by_the_limit_of_memory(world: World) -> None:
    hog = await world.start(PYTHON, "-I", "-S", "-c", HOG.format(LONG), memory_bytes=64 * MIB)
    assert await ended_by(hog) == "memory"
    assert await ended_by(await world.start(PYTHON, "-I", "-S", "-c", HOG.format(SHORT))) == "", "the control"


async def test_processes_that_share_their_memory_count_it_once(world: World) -> None:
    forked = "for _ in range(4):\n    if not os.fork(): time.sleep(1); os._exit(0)\n"
    waits = f"import os, time\nheld = b'x' * (48 << 20)\n{forked}for _ in range(4): os.wait()"
    assert await ended_by(await world.start(PYTHON, "-I", "-S", "-c", waits, memory_bytes=128 * MIB)) == ""


async def test_too_many_processes_are_refused_or_end_the_run(world: World, kept: str) -> None:
    # The kernel refuses what is too much; where it does not count for this run alone, the watch ends it.
    many = await world.start(PYTHON, "-I", "-S", "-c", MANY.format(LONG), processes=30)
    refused = kept == "kernel" or world.sandbox.rung == "userns" or ROOT
    if refused:
        outcome = await finish(many)
        assert b"BlockingIOError" in outcome.stderr
        assert outcome.stdout == b""
    else:
        assert await ended_by(many) == "processes"
    control = await world.start(PYTHON, "-I", "-S", "-c", MANY.format(SHORT))
    assert (await finish(control)).stdout.startswith(b"all")


async def test_a_run_that_spins_is_ended_by_the_limit_of_processor_time(world: World) -> None:
    spin = await world.start(PYTHON, "-I", "-S", "-c", SPIN.format(LONG), cpu_s=1)
    assert await ended_by(spin) == "cpu"
    assert await ended_by(await world.start("/bin/sleep", "1.2", cpu_s=1)) == "", "sleep takes none"


async def test_a_run_that_fills_the_disk_is_ended_and_others_go_on(world: World) -> None:
    other = await world.start("/bin/sh", "-c", "until [ -e done ]; do sleep 0.05; done")
    token = new_token()
    folder = world.session("filler", UIDS[1])
    there: dict[str, Any] = {"cwd": folder, "write": (folder,), "uid": UIDS[1] if ROOT else None, "disk_bytes": 8 * MIB}
    filler = await world.start(PYTHON, "-I", "-S", "-c", FILL.format(LONG), token, **there)
    assert await ended_by(filler) == "disk"
    assert processes_with(token) == []
    assert (await world.shell("echo new > new; cat new")).stdout == b"new\n"
    Path(world.session(), "done").touch()
    assert await ended_by(other) == ""


async def test_a_file_without_a_name_counts_while_it_is_open(world: World) -> None:
    hidden = await world.start(PYTHON, "-I", "-S", "-c", UNLINKED.format(LONG), disk_bytes=8 * MIB)
    assert await ended_by(hidden) == "disk"


async def test_many_small_files_are_ended_by_the_limit_of_files(plain: World) -> None:
    script = "i=0; while [ $i -lt 500 ]; do : > f$i; i=$((i+1)); done; sleep {}"
    assert await ended_by(await plain.start("/bin/sh", "-c", script.format(LONG), disk_files=100)) == "files"
    assert await ended_by(await plain.start("/bin/sh", "-c", script.format(SHORT))) == ""


async def test_holes_take_no_room_and_hard_links_take_it_once(plain: World) -> None:
    script = "truncate -s 10G hole; head -c 3000000 /dev/zero > a; ln a b; ln a c; ln a d; sleep 0.7"
    assert await ended_by(await plain.start("/bin/sh", "-c", script, disk_bytes=4 * MIB)) == ""


async def test_a_session_over_its_limit_may_tidy_up_and_not_grow(plain: World) -> None:
    bounds: dict[str, Any] = {"disk_bytes": 8 * MIB}
    grow = "head -c 16000000 /dev/zero > {}; sleep {}"
    assert await ended_by(await plain.start("/bin/sh", "-c", grow.format("one", LONG), **bounds)) == "disk"
    assert await ended_by(await plain.start("/bin/sh", "-c", "sleep 0.7; echo kept > small", **bounds)) == ""
    over: dict[str, Any] = {**bounds, "taken_bytes": 16_000_000}
    assert await ended_by(await plain.start("/bin/sh", "-c", grow.format("two", LONG), **over)) == "disk"
    assert await ended_by(await plain.start("/bin/sh", "-c", "rm one two; sleep 0.7", **over)) == ""
    assert await ended_by(await plain.start("/bin/sh", "-c", "echo more > more; sleep 0.7", **bounds)) == ""


async def test_when_the_disk_is_about_to_be_full_the_run_that_fills_it_is_ended(
    plain: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = await plain.start("/bin/sh", "-c", "until [ -e done ]; do sleep 0.05; done")
    folder = plain.session("filler", UIDS[1])
    there: dict[str, Any] = {"cwd": folder, "write": (folder,), "uid": UIDS[1] if ROOT else None}
    script = "sleep 0.7; head -c 16000000 /dev/zero > big; sleep 60"
    monkeypatch.setattr("alcove.sandbox.watch._floor", enormous)
    filler = await plain.start("/bin/sh", "-c", script, **there)
    assert await ended_by(filler) == "disk"
    assert filler.guard
    assert filler.guard.excess
    assert "the disk of the workspaces has less than" in str(filler.guard.excess.error("shell"))
    Path(plain.session(), "done").touch()
    assert await ended_by(idle) == ""


async def test_a_flood_of_output_is_ended_and_never_held_whole(world: World) -> None:
    flood = await world.start("/bin/sh", "-c", "yes flood", output_bytes=MIB)
    said = 0
    async for _, chunk in flood.output():
        said += len(chunk)
    await flood.wait()
    assert flood.guard
    assert flood.guard.excess
    assert flood.guard.excess.name == "output"
    assert said < MIB + 4 * limits.EVENT_BYTES
    assert len((await world.shell("yes flood | head -c 1000000")).stdout) == 1_000_000, "the control"


async def test_a_file_that_is_too_large_is_named(world: World) -> None:
    script = "open('big', 'wb').write(bytes(4 << 20)); open('big', 'ab').write(b'x')"
    # Python ignores the signal and gets an error; a program that does not, is ended by it.
    ended = await world.start("/usr/bin/head", "-c", "4M", "/dev/zero")
    assert await ended_by(ended) == "", "the control"
    big = await world.start("/bin/sh", "-c", "head -c 4000000 /dev/zero > big", file_bytes=MIB)
    assert await ended_by(big) == "file_size"
    assert b"File too large" in (await world.python(script, file_bytes=MIB)).stderr


async def test_a_flood_of_descriptors_meets_its_limit_and_nobody_else_does(world: World) -> None:
    program = (
        "import os, time\nheld = []\ntry:\n    while len(held) < 5000: held.append(os.dup(0))\n"
        "except OSError: print(len(held), flush=True)"
    )
    flood = await world.start(PYTHON, "-I", "-S", "-c", f"{program}; time.sleep(60)", open_files=64)
    output = flood.output()
    assert int((await anext(output))[1]) < 64
    free = await world.python(program.replace("5000", "100") + "\nelse: print('free')")
    assert free.stdout == b"free\n"
    await flood.kill()
    await output.aclose()


@pytest.mark.skipif(not ROOT, reason="a fork bomb is thrown only where the kernel holds it: in a group of its own")
async def test_a_fork_bomb_is_held_by_its_group_while_others_start(opened: Callable[..., Any], rung: Rung) -> None:
    world: World = await opened(rung)
    token = new_token()
    bomb = f"import os\n# {token}\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    process = await world.start(PYTHON, "-I", "-S", "-c", bomb, processes=40, cpu_s=60)
    await until(lambda: len(processes_with(token)) >= 30)
    folder = world.session("other", UIDS[1])
    other = await world.run("/bin/echo", "on", cwd=folder, write=(folder,), uid=UIDS[1])
    assert other.stdout == b"on\n"
    assert len(processes_with(token)) <= 40 + 4, "the launcher and bubblewrap stand above"
    await process.kill()
    process.close()
    assert processes_with(token) == []


@pytest.mark.skipif(not ROOT, reason="only root may make control groups here, where none are delegated")
async def test_what_is_written_to_memory_file_systems_counts_as_memory(opened: Callable[..., Any]) -> None:
    world: World = await opened("userns")
    for place in ("/dev/shm", "/tmp"):
        script = f"head -c 200000000 /dev/zero > {place}/hog; sleep 60"
        assert await ended_by(await world.start("/bin/sh", "-c", script, memory_bytes=64 * MIB)) == "memory"
    assert await ended_by(await world.start("/bin/sh", "-c", "head -c 200000000 /dev/zero > /tmp/hog")) == ""


@pytest.mark.skipif(not ROOT, reason="only root may make control groups here, where none are delegated")
async def test_no_group_outlives_its_sandbox(world: World, kept: str) -> None:
    if kept == "watch":
        return
    await world.shell("true")
    await (await world.start("/bin/sleep", "60")).kill()
    await until(lambda: len(runs_groups()) <= 3)  # the one that the next run will have, and those that had one
    await world.sandbox.close()
    assert not groups_of(os.getpid())


@pytest.mark.skipif(not ROOT, reason="only root may make control groups here, where none are delegated")
def test_groups_of_a_server_that_was_killed_are_removed_by_the_next() -> None:
    program = (
        "import os, signal; from alcove.sandbox.cgroups import Groups; from alcove.sandbox.limits import Limits\n"
        "group = Groups.find().make(Limits()); print(os.getpid(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert groups_of(int(killed.stdout)), "the control: it left some"
    found = Groups.find()
    assert found
    found.close()
    assert not groups_of(int(killed.stdout))


async def test_without_control_groups_limits_are_not_claimed(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Groups, "find", lambda: None)
    sandbox = (await opened("userns")).sandbox
    assert not sandbox.vector.limits
    assert sandbox.vector.quota, "the watch ends whoever fills the disk"
    assert sandbox.means["memory"] == "watch"
    assert "Delegate=yes" in sandbox.report()[0].remedy


@pytest.mark.skipif(not ROOT, reason="only root may make control groups here, where none are delegated")
async def test_with_control_groups_limits_are_proven(opened: Callable[..., Any], confined: Rung) -> None:
    sandbox = (await opened(confined)).sandbox
    assert sandbox.vector.limits
    assert sandbox.means["memory"].startswith("control group")


async def test_a_watch_that_does_not_look_is_found_out(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawner = Spawner()
    probing = probe.Probing(spawner, Berths(base, None), None)
    monkeypatch.setattr(probe, "_LOOK_S", 60)
    assert await probe._fill(probing, "userns") == ("write more",)
    await spawner.close()


async def test_a_group_that_cannot_be_joined_lets_nothing_run(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    world: World = await opened("userns")
    closed = os.open("/dev/null", os.O_RDONLY)
    monkeypatch.setattr(Guard, "joins", [closed])
    with pytest.raises(Exception, match="step 'group'"):
        await world.shell("touch ran")
    os.close(closed)
    await asyncio.sleep(0)
    assert not Path(world.session(), "ran").exists()


def enormous(folder: str) -> int:
    """More than any disk has."""
    del folder
    return 2**60
