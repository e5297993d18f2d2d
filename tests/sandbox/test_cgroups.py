"""Control groups as machines have them: version 1 alone, version 2 that only ends, version 2 handed on, none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alcove.sandbox import cgroups, hierarchies
from alcove.sandbox.cgroups import Group, Groups
from alcove.sandbox.limits import Excess, Limits
from alcove.sandbox.plan import Rung
from alcove.sandbox.service import means
from alcove.sandbox.watch import Guard, Watch
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


@pytest.fixture
def groups() -> Iterator[Groups]:
    """Those of this process, as the machine has them."""
    found = Groups.find()
    assert found
    yield found
    found.close()


def inside(group: Group, program: str) -> subprocess.Popen[bytes]:
    """Start a program of Python in a group, and return when it is in it."""
    joining = f"import os\nfor one in {group.joins}: os.write(one, b'0')\nos.write(1, b'in')\n{program}"
    command = [sys.executable, "-I", "-S", "-c", joining]
    process = subprocess.Popen(command, pass_fds=group.joins, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.read(2) == b"in"
    return process


def folders(group: Group) -> list[Path]:
    return [Path(place) for place in group._places]


def test_an_empty_group_is_used_again_with_the_limits_of_the_next_run(groups: Groups) -> None:
    for memory, count in ((64 * MIB, 10), (64 * MIB, 20), (512 * MIB, 5), (32 * MIB, 10)):
        group = groups.take(Limits(memory_bytes=memory, processes=count))
        for names, most in ((("memory.limit_in_bytes", "memory.max"), memory), (("pids.max",), count)):
            kept = [file.read_text() for name in names for place in folders(group) if (file := place / name).exists()]
            assert kept in ([], [f"{most}\n"])
            assert kept or not group.holds_memory
        with inside(group, "pass"):
            pass
        groups.release(group, again=True)
        assert groups.tidy()
    assert group.number == 5, "one was made to see whether it can be, and four runs had the second"
    assert [place.name for place in folders(group)] == ["2"] * len(folders(group))


def test_what_an_earlier_run_did_counts_for_nobody_else(groups: Groups) -> None:
    group = groups.take(Limits(memory_bytes=64 * MIB))
    with inside(group, f"import time\nwhile time.process_time() < 0.3: pass\n{HOG}") as hog:
        assert hog.wait() == -signal.SIGKILL
    assert group.out_of_memory()
    assert (group.cpu_s() or 0) > 0.3
    groups.release(group, again=True)
    assert groups.tidy()
    again = groups.take(Limits(memory_bytes=64 * MIB))
    assert again is group
    assert not again.out_of_memory()
    assert (again.cpu_s() or 0) < 0.1
    groups.release(again, again=True)


def test_a_group_in_which_somebody_is_left_is_kept_for_nobody(groups: Groups) -> None:
    group = groups.take(Limits())
    with inside(group, "import time; time.sleep(60)") as left:
        groups.release(group, again=True)
        assert not groups.tidy()
        assert groups.take(Limits()) is not group
        left.kill()
    assert groups.tidy()


@pytest.mark.parametrize("begun", [False, True])
async def test_the_group_of_a_start_that_was_given_up_is_not_used_again(groups: Groups, begun: bool) -> None:
    watch = Watch(groups)
    guard = await watch.guard(Limits(), ())
    assert guard.group
    if begun:
        guard.begin(os.getpid(), lambda: None)
    watch.drop(guard)
    assert groups.tidy()
    assert all(place.exists() == begun for place in folders(guard.group))
    await watch.close()


@pytest.mark.parametrize("ended", [False, True])
async def test_a_look_that_comes_late_says_nothing_of_a_run_that_has_ended(
    monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    looks, may = threading.Event(), threading.Event()

    def look(guards: list[Guard]) -> list[tuple[Guard, Excess]]:
        looks.set()
        may.wait()
        return [(guard, Excess("memory", 1)) for guard in guards]

    monkeypatch.setattr("alcove.sandbox.watch._look", look)
    watch = Watch(every_s=0.001)
    guard = await watch.guard(Limits(), ())
    guard.begin(os.getpid(), lambda: None)
    watch.add(guard)
    await until(looks.is_set)
    if ended:
        watch.drop(guard)
    other = await watch.guard(Limits(), ())
    other.begin(os.getpid(), lambda: None)
    watch.add(other)
    may.set()
    await until(lambda: other.excess)
    assert (guard.excess is None) == ended
    await watch.close()


def test_a_group_with_much_in_memory_is_removed(groups: Groups, tmp_path: Path) -> None:
    group = groups.take(Limits())
    with inside(group, f"open({str(tmp_path / 'large')!r}, 'wb').write(bytes(32 << 20))"):
        pass
    groups.release(group, again=True)
    assert groups.tidy()
    assert not any(place.exists() for place in folders(group)) or not group.holds_memory


def test_a_group_that_somebody_has_removed_is_made_anew(groups: Groups) -> None:
    group = groups.take(Limits())
    groups.release(group, again=True)
    assert groups.tidy()
    for place in folders(group):
        place.rmdir()
    assert all(place.exists() for place in folders(groups.take(Limits())))


def test_not_more_groups_are_kept_than_are_of_use(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_IDLE", 2)
    taken = [groups.take(Limits()) for _ in range(4)]
    for one in taken:
        groups.release(one, again=True)
    assert groups.tidy()
    assert sum(place.exists() for one in taken for place in folders(one)) == 2 * len(folders(taken[0]))
    groups.close()
    assert not any(place.exists() for one in taken for place in folders(one))


@pytest.mark.parametrize("others", [[], ["1"]])
def test_a_server_that_is_alone_in_its_group_steps_aside_so_that_it_may_hand_controllers_on(
    tmp_path: Path, others: list[str]
) -> None:
    # On files that look like a group: here version 2 has no controllers to hand on.
    (tmp_path / "cgroup.subtree_control").touch()
    (tmp_path / "cgroup.procs").write_text("\n".join([str(os.getpid()), *others]))
    hierarchies.hand_on(tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"
    aside = tmp_path / "alcove-server" / "cgroup.procs"
    assert aside.exists() == (not others)
    assert others or aside.read_text() == "0"


def test_a_server_that_is_not_alone_moves_nobody(place: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        (place / "cgroup.procs").write_text(str(other.pid))
        assert "kill" in hierarchies.second(place, "alcove-x")
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
    assert hierarchies.hierarchies(mounts, own) == [
        ({"memory"}, Path("/sys/fs/cgroup/memory/x")),
        ({"cpu", "cpuacct"}, Path("/sys/fs/cgroup/cpu,cpuacct/system.slice")),
        ({"v2"}, Path("/sys/fs/cgroup/unified/system.slice/alcove")),
    ]
