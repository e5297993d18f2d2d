"""Control groups: the kernel's own way to hold a run to its limits, where this process may make some.

A run's processes join its group by descriptors opened here: in the view of a run there are no control groups. To make
and to remove one takes the kernel longer than anything else that a start needs, so one that is empty is used again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final, final

from alcove.sandbox import hierarchies
from alcove.sandbox.hierarchies import read
from alcove.sandbox.limits import Limits

_PATIENCE_S: Final = 1
_IDLE: Final = 64  # groups that are kept for runs to come
_IDLE_BYTES: Final = 4 << 20  # what one of them may still be charged with: the kernel takes it back when it needs to


@final
class Group:
    """The group of one run at a time: one folder per hierarchy. Its methods block for less than a millisecond.

    Args:
        folders: By what they can do, as `hierarchies.find` says it.

    Attributes:
        number: Tells the run's group from those of others of this process's runs; another one for each run.
        joins: Descriptors; whoever writes `0` to each of them is in the group, with all that it starts later.
        usable: Whether another run may have it after this one.
    """

    def __init__(self, folders: dict[str, str]) -> None:
        self._folders = folders
        self._places = sorted({*folders.values()})
        self._limits: tuple[int, int] | None = None
        self._before = (0, 0.0)  # what was counted when the run got it: processes that were ended, processor time
        self.number = 0
        self.joins: list[int] = []
        self.usable = True

    def make(self) -> None:
        """Make the folders; what was made stays when that fails, for `remove`."""
        for place in self._places:
            os.mkdir(place)

    def open(self, number: int) -> None:
        """Let a run join, by that number.

        Raises:
            OSError: Somebody has removed it.
        """
        self.number = number
        for place in self._places:
            self.joins.append(os.open(f"{place}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))

    def bound(self, limits: Limits, ours: int) -> None:
        """Set the limits, and count from here on; `ours` is as in `Groups.make`."""
        self._before = self._ended(), self._cpu_s() or 0.0
        wanted = limits.memory_bytes, limits.processes + ours
        if wanted == self._limits:
            return
        first = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]  # version 1: never the one above the other
        if self._limits and self._limits[0] < limits.memory_bytes:
            first.reverse()
        for name, value in (
            *(("memory.max", limits.memory_bytes), ("memory.swap.max", 0), ("memory.oom.group", 1)),
            *((name, limits.memory_bytes) for name in first),
            ("pids.max", limits.processes + ours),
        ):
            if folder := self._folders.get(name.partition(".")[0]):
                with contextlib.suppress(FileNotFoundError):  # it is one of the other version
                    _write(f"{folder}/{name}", value)
        self._limits = wanted

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
        return self._ended() > self._before[0]

    def cpu_s(self) -> float | None:
        """Return the processor time that the run took; None where nobody counts it."""
        taken = self._cpu_s()
        return None if taken is None else taken - self._before[1]

    def pids(self) -> tuple[int, ...]:
        """Return the processes of the group."""
        return tuple(int(pid) for pid in read(f"{next(iter(self._folders.values()))}/cgroup.procs").split())

    def kill(self) -> None:
        """End every process of the group: in one stroke by version 2, frozen first by version 1."""
        if folder := self._folders.get("kill"):
            with contextlib.suppress(OSError):
                _write(f"{folder}/cgroup.kill", 1)
            return
        if folder := self._folders.get("freezer"):
            with contextlib.suppress(OSError):
                Path(folder, "freezer.state").write_text("FROZEN")
            for pid in read(f"{folder}/cgroup.procs").split():
                # Nobody leaves a frozen group, so the number is still its own.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                Path(folder, "freezer.state").write_text("THAWED")

    def rests(self) -> bool:
        """Return whether another run may have it: nothing is left in it of the one before."""
        if not self.usable or self.pids():
            return False
        if folder := self._folders.get("memory"):
            charged = read(f"{folder}/memory.usage_in_bytes") or read(f"{folder}/memory.current")
            return bool(charged) and int(charged) <= _IDLE_BYTES
        return True

    def remove(self) -> bool:
        """Remove the folders; false when there are processes in one of them still."""
        self.close()
        gone = True
        for place in self._places:
            try:
                os.rmdir(place)
            except FileNotFoundError:
                pass
            except OSError:
                gone = False
        return gone

    def _ended(self) -> int:
        """Return how many processes were ended for memory since the group was made."""
        folder = self._folders.get("memory")
        if folder is None:
            return 0
        told = read(f"{folder}/memory.oom_control") or read(f"{folder}/memory.events")
        return _number(told, "oom_kill")

    def _cpu_s(self) -> float | None:
        if folder := self._folders.get("kill"):
            return _number(read(f"{folder}/cpu.stat"), "usage_usec") / 1_000_000
        if folder := self._folders.get("cpuacct"):
            return int(read(f"{folder}/cpuacct.usage") or 0) / 1_000_000_000
        return None


@final
class Groups:
    """Where groups of runs can be made, and what they can do there.

    Attributes:
        version: `v2`, `v1`, `v1 and v2` (limits by the one, ending by the other), or `v2 without limits`.
        kinds: What the groups can do: `memory`, `pids`, `kill`, `freezer`, `cpuacct`.
    """

    def __init__(self, parents: dict[str, Path]) -> None:
        self._parents = parents
        self._numbers = 0
        self._ahead: Group | None = None
        self._left: list[Group] = []
        self._idle: list[Group] = []
        self.kinds = frozenset(parents)
        first = bool(
            self.kinds & {"memory", "pids"} and parents.get("kill") != parents.get("memory", parents.get("pids"))
        )
        second = "kill" in self.kinds
        self.version = "v1 and v2" if first and second else "v1" if first else "v2"
        if not self.kinds & {"memory", "pids"}:
            self.version = "v2 without limits" if second else "v1 without limits"

    @classmethod
    def find(cls, mounts: Path = hierarchies.MOUNTS, own: Path = hierarchies.OWN) -> Groups | None:
        """Make a folder for this process's runs in each hierarchy that lets it; None when none does.

        What an earlier process left, that has ended since, is removed.
        """
        parents = hierarchies.find(mounts, own, _end)
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
        """Return the group that was made ahead, or another, with these limits; arguments and errors as of `make`."""
        group, self._ahead = self._ahead or self._free(), None
        try:
            return self._bound(group, limits, ours)
        except OSError:  # what is left in one that was used may be more than is allowed now
            return self.make(limits, ours=ours)

    def ahead(self) -> Group | None:
        """Return the group that will be taken next: so that a process that is made ahead can join it ahead.

        To join takes a process milliseconds of waiting, for the kernel to be sure that nobody is forking.
        """
        if self._ahead is None:
            with contextlib.suppress(OSError):  # which the next run will meet and report
                self._ahead = self._free()
        return self._ahead

    def _free(self) -> Group:
        while self._idle:
            group = self._idle.pop()
            try:
                group.open(self._next())
            except OSError:
                group.remove()
                continue
            return group
        return self._new()

    def _new(self) -> Group:
        number = self._next()
        group = Group({kind: f"{parent}/{number}" for kind, parent in self._parents.items()})
        try:
            group.make()
            group.open(number)
        except OSError:
            group.remove()
            raise
        return group

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers

    def _bound(self, group: Group, limits: Limits, ours: int) -> Group:
        try:
            group.bound(limits, ours)
        except OSError:
            self.release(group, again=False)
            raise
        return group

    def release(self, group: Group, *, again: bool) -> None:
        """Note that the run of a group has ended.

        Args:
            group: From `take`.
            again: Whether it may be used again: not when a process of that run may still be on its way into it.
        """
        group.close()
        group.usable = again
        self._left.append(group)

    def tidy(self) -> bool:
        """Keep or remove groups whose runs have ended; false when the kernel does not let go of one yet."""
        left, self._left = self._left, []
        for group in left:
            if len(self._idle) < _IDLE and group.rests():
                self._idle.append(group)
            elif not group.remove():
                self._left.append(group)
        return not self._left

    def close(self) -> None:
        """End and remove what is left; waits a second at most for the kernel to be done with it."""
        if self._ahead:
            self._left.append(self._ahead)
            self._ahead = None
        for group in self._left:
            group.kill()
        deadline = time.monotonic() + _PATIENCE_S
        while (left := [one for one in (*self._left, *self._idle) if not one.remove()]) and time.monotonic() < deadline:
            self._left, self._idle = left, []
            time.sleep(0.002)
        for parent in set(self._parents.values()):
            with contextlib.suppress(OSError):
                parent.rmdir()


def _end(folder: Path) -> None:
    """End and remove a group that another process left."""
    kinds = (
        {"kill"} if (folder / "cgroup.kill").exists() else {"freezer"} if (folder / "freezer.state").exists() else ()
    )
    group = Group(dict.fromkeys(kinds, str(folder)) or {"": str(folder)})
    group.kill()
    group.remove()


def _number(told: str, name: str) -> int:
    """Return the number of a line `NAME NUMBER`, 0 when there is none."""
    found = f"\n{told}".partition(f"\n{name} ")[2]
    return int(found.partition("\n")[0] or 0)


def _write(file: str, value: int) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)
