"""Control groups: the kernel's own way to hold a run to its limits, where this process may make some.

Which there are differs from machine to machine: all of version 2, delegated (Delegate=yes of systemd, a container with
a hierarchy of its own); the controllers in version 1 with a version 2 that can only end and count; version 1 alone; or
none. What can be made is found by making it. A run's processes join its group by descriptors opened here: in the view
of a run there are no control groups.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import time
from pathlib import Path
from typing import Final, final

from alcove.sandbox import processes
from alcove.sandbox.limits import Limits

_MOUNTS: Final = Path("/proc/self/mountinfo")
_OWN: Final = Path("/proc/self/cgroup")
_CONTROLLERS: Final = ("memory", "pids")
_ASIDE: Final = "alcove-server"
_MAKER: Final = re.compile(r"([0-9]+)-([0-9]+)-[0-9]+")
_PATIENCE_S: Final = 1
_NUMBERS: Final = itertools.count(1)  # a process may have several sandboxes


@final
class Group:
    """The group of one run: one folder per hierarchy. Its methods block for less than a millisecond.

    Attributes:
        number: What tells it from others of this process's runs.
        joins: Descriptors; whoever writes `0` to each of them is in the group, with all that it starts later.
    """

    def __init__(self, folders: dict[str, Path], number: int = 0) -> None:
        self._folders = folders
        self.number = number
        self.joins: list[int] = []

    def open(self) -> None:
        """Make the folders; what was made stays when that fails, for `remove`."""
        for folder in sorted(set(self._folders.values())):
            os.mkdir(folder)
            self.joins.append(os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))

    def bound(self, limits: Limits, ours: int) -> None:
        """Set the limits; `ours` is as in `Groups.make`."""
        folders = {kind: str(folder) for kind, folder in self._folders.items()}
        folders = {kind: str(folder) for kind, folder in self._folders.items()}
        for name, value in (
            *(("memory.max", limits.memory_bytes), ("memory.swap.max", 0), ("memory.oom.group", 1)),
            *(("memory.limit_in_bytes", limits.memory_bytes), ("memory.memsw.limit_in_bytes", limits.memory_bytes)),
            ("pids.max", limits.processes + ours),
        ):
            if folder := folders.get(name.partition(".")[0]):
                with contextlib.suppress(FileNotFoundError):  # it is one of the other version
                    _write(f"{folder}/{name}", value)

    def close(self) -> None:
        """Close the descriptors: nobody joins any more."""
        while self.joins:
            os.close(self.joins.pop())

    @property
    def holds_memory(self) -> bool:
        """Whether the kernel keeps the limit of memory."""
        return "memory" in self._folders

    @property
    def holds_processes(self) -> bool:
        """Whether the kernel keeps the limit of processes."""
        return "pids" in self._folders

    def out_of_memory(self) -> bool:
        """Return whether the kernel ended a process because the group took more memory than its limit."""
        folder = self._folders.get("memory")
        if folder is None:
            return False
        for name in ("memory.events", "memory.oom_control"):
            for line in _read(folder / name).splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1]) > 0
        return False

    def cpu_s(self) -> float | None:
        """Return the processor time that the group took; None where nobody counts it."""
        if folder := self._folders.get("kill"):
            for line in _read(folder / "cpu.stat").splitlines():
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1_000_000
        if folder := self._folders.get("cpuacct"):
            return int(_read(folder / "cpuacct.usage") or 0) / 1_000_000_000
        return None

    def pids(self) -> tuple[int, ...]:
        """Return the processes of the group."""
        folder = next(iter(self._folders.values()))
        return tuple(int(pid) for pid in _read(folder / "cgroup.procs").split())

    def kill(self) -> None:
        """End every process of the group: in one stroke by version 2, frozen first by version 1."""
        if folder := self._folders.get("kill"):
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
            return
        if folder := self._folders.get("freezer"):
            with contextlib.suppress(OSError):
                (folder / "freezer.state").write_text("FROZEN")
            for pid in _read(folder / "cgroup.procs").split():
                # Nobody leaves a frozen group, so the number is still its own.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                (folder / "freezer.state").write_text("THAWED")

    def remove(self) -> bool:
        """Remove the folders; false when there are processes in one of them still."""
        self.close()
        gone = True
        for folder in set(self._folders.values()):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                pass
            except OSError:
                gone = False
        return gone


@final
class Groups:
    """Where groups of runs can be made, and what they can do there.

    Attributes:
        version: `v2`, `v1`, `v1 and v2` (limits by the one, ending by the other), or `v2 without limits`.
        kinds: What the groups can do: `memory`, `pids`, `kill`, `freezer`, `cpuacct`.
    """

    def __init__(self, parents: dict[str, Path]) -> None:
        self._parents = parents
        self._made = 0
        self._ahead: Group | None = None
        self._left: list[Group] = []
        self.kinds = frozenset(parents)
        first = bool(
            self.kinds & {"memory", "pids"} and parents.get("kill") != parents.get("memory", parents.get("pids"))
        )
        second = "kill" in self.kinds
        self.version = "v1 and v2" if first and second else "v1" if first else "v2"
        if not self.kinds & {"memory", "pids"}:
            self.version = "v2 without limits" if second else "v1 without limits"

    @classmethod
    def find(cls, mounts: Path = _MOUNTS, own: Path = _OWN) -> Groups | None:
        """Make a folder for this process's runs in each hierarchy that lets it; None when none does.

        What an earlier process left, that has ended since, is removed.
        """
        mine = f"{_beginning()}{os.getpid()}-{processes.start_time(os.getpid())}-{next(_NUMBERS)}"
        parents: dict[str, Path] = {}
        for kinds, place in _hierarchies(mounts, own):
            if place.name == _ASIDE:
                place = place.parent  # noqa: PLW2901 - this process stepped aside earlier
            with contextlib.suppress(OSError):
                _sweep(place)
                if kinds == {"v2"}:
                    parents |= _second(place, mine)
                elif wanted := kinds & {*_CONTROLLERS, "freezer", "cpuacct"}:
                    (place / mine).mkdir(exist_ok=True)
                    parents |= dict.fromkeys(wanted, place / mine)
        if "kill" in parents:
            for spare in {parents.pop(kind, None) for kind in ("freezer", "cpuacct")} - {None, *parents.values()}:
                assert spare is not None
                spare.rmdir()
        if not parents:
            return None
        groups = cls(parents)
        try:
            groups.make(Limits()).remove()
        except OSError:
            groups.close()
            return None
        return groups

    def make(self, limits: Limits, *, ours: int = 0) -> Group:
        """Make a group with these limits.

        Args:
            limits: Of the run.
            ours: How many processes of ours will be in it too.

        Raises:
            OSError: The kernel did not; nothing was made.
        """
        return self._bound(self._new(), limits, ours)

    def take(self, limits: Limits, *, ours: int = 0) -> Group:
        """Return the group that was made ahead, or a new one, with these limits; arguments and errors as of `make`."""
        group, self._ahead = self._ahead or self._new(), None
        return self._bound(group, limits, ours)

    def ahead(self) -> Group | None:
        """Return the group that will be taken next, made now: so that a process that is made ahead can join it ahead.

        To join takes a process milliseconds of waiting, for the kernel to be sure that nobody is forking.
        """
        if self._ahead is None:
            with contextlib.suppress(OSError):  # which the next run will meet and report
                self._ahead = self._new()
        return self._ahead

    def _new(self) -> Group:
        self._made += 1
        group = Group({kind: parent / str(self._made) for kind, parent in self._parents.items()}, self._made)
        try:
            group.open()
        except OSError:
            group.remove()
            raise
        return group

    def _bound(self, group: Group, limits: Limits, ours: int) -> Group:
        try:
            group.bound(limits, ours)
        except OSError:
            self.release(group)
            raise
        return group

    def release(self, group: Group) -> None:
        """Note that the run of a group has ended."""
        group.close()
        self._left.append(group)

    def tidy(self) -> bool:
        """Remove groups whose runs have ended; false when the kernel does not let go of one yet."""
        self._left = [one for one in self._left if not one.remove()]
        return not self._left

    def close(self) -> None:
        """End and remove what is left; waits a second at most for the kernel to be done with it."""
        if self._ahead:
            self._left.append(self._ahead)
            self._ahead = None
        for group in self._left:
            group.kill()
        deadline = time.monotonic() + _PATIENCE_S
        while not self.tidy() and time.monotonic() < deadline:
            time.sleep(0.002)
        for parent in set(self._parents.values()):
            with contextlib.suppress(OSError):
                parent.rmdir()


def _second(place: Path, mine: str) -> dict[str, Path]:
    """Make the folder in version 2, with its controllers where they can be handed on."""
    there = set(_read(place / "cgroup.controllers").split())
    if not there.issuperset(_CONTROLLERS):
        (place / mine).mkdir(exist_ok=True)
    else:
        _hand_on(place)
        (place / mine).mkdir(exist_ok=True)
        _hand_on(place / mine)
    able = set(_read(place / mine / "cgroup.subtree_control").split())
    kinds = {"kill"} if (place / mine / "cgroup.kill").exists() else set[str]()
    if able.issuperset(_CONTROLLERS):
        kinds |= set(_CONTROLLERS)
    if not kinds:
        (place / mine).rmdir()
    return dict.fromkeys(kinds, place / mine)


def _hand_on(place: Path) -> None:
    """Hand the controllers on to the folders below; a group that has processes itself may not do so.

    When this process is the only one in it, as systemd starts a service, it steps aside into a folder of its own.
    """
    control = place / "cgroup.subtree_control"
    if set(_read(control).split()).issuperset(_CONTROLLERS):
        return
    with contextlib.suppress(OSError):
        if _read(place / "cgroup.procs").split() == [str(os.getpid())]:
            (place / _ASIDE).mkdir(exist_ok=True)
            (place / _ASIDE / "cgroup.procs").write_text("0")
        control.write_text(" ".join(f"+{name}" for name in _CONTROLLERS))


def _hierarchies(mounts: Path, own: Path) -> list[tuple[set[str], Path]]:
    """Return the hierarchies and this process's own folder in each: `{"v2"}`, or controllers of version 1."""
    paths: dict[frozenset[str], str] = {}
    for line in _read(own).splitlines():
        _, names, path = line.split(":", 2)
        paths[frozenset(names.split(",")) if names else frozenset({"v2"})] = path
    found: list[tuple[set[str], Path]] = []
    for line in _read(mounts).splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind not in {"cgroup", "cgroup2"}:
            continue
        root, point = fields.split()[3:5]
        for names, path in paths.items():
            fits = "v2" in names if kind == "cgroup2" else names <= {*options.split(",")} and "v2" not in names
            if fits and (path == root or root == "/" or path.startswith(f"{root}/")):
                place = Path(point) / path.removeprefix(root if root != "/" else "").lstrip("/")
                found.append((set(names), place))
    return found


def _beginning() -> str:
    """Return how the folders are named whose processes are numbered as in this pid namespace."""
    return f"alcove-{os.stat('/proc/self/ns/pid').st_ino}-"


def _sweep(place: Path) -> None:
    """Remove the folders of processes that have ended; of another pid namespace nobody here knows."""
    beginning = _beginning()
    for folder in list(place.iterdir()):
        found = _MAKER.fullmatch(folder.name.removeprefix(beginning))
        if not folder.name.startswith(beginning) or not found:
            continue
        if processes.start_time(int(found[1])) == int(found[2]):
            continue
        for below in [one for one in folder.iterdir() if one.is_dir()]:
            kinds = (
                {"kill"}
                if (below / "cgroup.kill").exists()
                else {"freezer"}
                if (below / "freezer.state").exists()
                else ()
            )
            group = Group(dict.fromkeys(kinds, below) or {"": below})
            group.kill()
            group.remove()
        with contextlib.suppress(OSError):
            folder.rmdir()


def _write(file: str, value: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
