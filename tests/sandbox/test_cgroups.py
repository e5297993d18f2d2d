"""Control groups as machines have them: version 1 alone, version 2 that only ends, version 2 handed on, none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alcove.sandbox import cgroups
from alcove.sandbox.cgroups import Groups
from alcove.sandbox.plan import Rung
from alcove.sandbox.service import means
from sandbox.conftest import PYTHON, ROOT, World, finish, new_token, processes_with, until

MIB = 1 << 20
HOG = "taken = bytearray(300 << 20)\nfor at in range(0, len(taken), 4096): taken[at] = 1\nimport time; time.sleep(60)"
SPIN = "while True: pass"
pytestmark = pytest.mark.skipif(not ROOT, reason="only root may make control groups here, where none are delegated")


def only(folder: Path, wanted: Callable[[str], bool]) -> Path:
    """Return a list of mounts without the hierarchies that a machine of another kind does not have."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    file = folder / "mountinfo"
    file.write_text("\n".join(line for line in lines if " - cgroup" not in line or wanted(line)))
    return file


@pytest.fixture
def place() -> Iterator[Path]:
    """A group of version 2 that the test made, and removes with all that is below."""
    [mount] = [
        line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line
    ]
    path = Path(mount) / f"test-{os.getpid()}"
    path.mkdir()
    yield path
    for below in sorted((one for one in path.rglob("*") if one.is_dir()), reverse=True):
        below.rmdir()
    path.rmdir()


@pytest.fixture(params=["v1", "v2 without limits"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """What the machine seems to have."""
    second = request.param != "v1"
    mounts = only(tmp_path, lambda line: (" - cgroup2 " in line) == second)
    find = Groups.find
    monkeypatch.setattr(Groups, "find", lambda: find(mounts))
    return request.param


@pytest.fixture
async def world(version: str, opened: Callable[..., Any], confined: Rung) -> World:
    return await opened(confined, cache=None)


async def test_limits_are_kept_by_what_there_is_and_said_so(world: World, version: str) -> None:
    first = version == "v1"
    assert world.sandbox.vector.limits == first
    assert world.sandbox.vector.quota
    assert world.sandbox.means["memory"] == ("control group (v1)" if first else "watch")
    assert world.sandbox.means["end"] == ("freezer" if first else "cgroup.kill")
    cases: list[tuple[str, str, dict[str, Any]]] = [
        (HOG, "memory", {"memory_bytes": 64 * MIB}),
        (SPIN, "cpu", {"cpu_s": 1}),
    ]
    for program, name, bounds in cases:
        process = await world.start(PYTHON, "-I", "-S", "-c", program, **bounds)
        await finish(process)
        assert process.guard
        assert process.guard.excess
        assert process.guard.excess.name == name


async def test_a_group_is_ended_as_one_even_where_processes_multiply(world: World) -> None:
    token = new_token()
    bomb = f"import os\n# {token}\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    process = await world.start(PYTHON, "-I", "-S", "-c", bomb, processes=40, cpu_s=60)
    await until(lambda: len(processes_with(token)) >= 30)
    assert process.guard
    assert process.guard.group
    process.guard.group.kill()  # without the supervisor, which ends its tree by itself too
    await process.wait()
    process.close()
    assert processes_with(token) == []


@pytest.mark.parametrize("others", [[], ["1"]])
def test_a_server_that_is_alone_in_its_group_steps_aside_so_that_it_may_hand_controllers_on(
    tmp_path: Path, others: list[str]
) -> None:
    # On files that look like a group: here version 2 has no controllers to hand on.
    (tmp_path / "cgroup.subtree_control").touch()
    (tmp_path / "cgroup.procs").write_text("\n".join([str(os.getpid()), *others]))
    cgroups._hand_on(tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"
    aside = tmp_path / "alcove-server" / "cgroup.procs"
    assert aside.exists() == (not others)
    assert others or aside.read_text() == "0"


def test_a_server_that_is_not_alone_moves_nobody(place: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        (place / "cgroup.procs").write_text(str(other.pid))
        assert "kill" in cgroups._second(place, "alcove-x")
        assert (place / "cgroup.procs").read_text().split() == [str(other.pid)]
        assert not (place / "alcove-server").exists()
        other.kill()


def test_where_no_group_can_be_made_there_is_none(tmp_path: Path) -> None:
    assert Groups.find(only(tmp_path, lambda _: False)) is None
    assert set(means(None).values()) >= {"watch", "signals"}


def test_own_folders_are_found_below_the_root_of_a_mount(tmp_path: Path) -> None:
    mounts, own = tmp_path / "mounts", tmp_path / "own"
    mounts.write_text(
        "30 1 0:1 / / rw - ext4 /dev/sda rw\n"
        "31 1 0:2 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 1 0:3 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "33 1 0:4 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n"
        "34 1 0:5 /other /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    )
    own.write_text("4:memory:/docker/abc/x\n3:cpu,cpuacct:/system.slice\n2:pids:/elsewhere\n0::/system.slice/alcove\n")
    assert cgroups._hierarchies(mounts, own) == [
        ({"memory"}, Path("/sys/fs/cgroup/memory/x")),
        ({"cpu", "cpuacct"}, Path("/sys/fs/cgroup/cpu,cpuacct/system.slice")),
        ({"v2"}, Path("/sys/fs/cgroup/unified/system.slice/alcove")),
    ]
