"""Holds runs to their limits: looks at what they take, and ends the one that takes more, by the name of the limit.

Where there are control groups, the kernel keeps memory and processes by itself and this only finds out; where there are
none, this is all there is, and a run may take more for as long as it takes to look. The disk is always watched.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Final, final

from alcove import limits
from alcove.errors import ClosedError
from alcove.sandbox import taken
from alcove.sandbox.cgroups import Group, Groups
from alcove.sandbox.limits import Excess, Limits
from alcove.sandbox.taken import Taken

_log = logging.getLogger("alcove.sandbox")
_TIDY_S: Final = 0.02  # to remove a group takes half a millisecond, for which the end of a run need not wait
_NOBODY: Final = Taken((), 0, 0, 0)


@final
class Guard:
    """The limits of one run, and what is known of how far it is from them.

    Args:
        bounds: The limits.
        trees: The folders that count for the disk; the first tells which disk.
        group: The run's control group, if it has one.
        before: What the folders took already (bytes, files), for a run that is over a limit when it starts.
        ahead: Makes the group that the next run will have.

    Attributes:
        pid: The tree's supervisor; 0 until it has started.
        excess: The limit that ended the run, None for none.
    """

    def __init__(
        self,
        bounds: Limits,
        trees: tuple[str, ...] = (),
        group: Group | None = None,
        before: tuple[int, int] = (0, 0),
        ahead: Callable[[], Group | None] = lambda: None,
    ) -> None:
        self.bounds = bounds
        self.trees = trees
        self.group = group
        self.ahead = ahead
        self.pid = 0
        self.excess: Excess | None = None
        self.disk = _Disk(bounds, before)
        self._cut: Callable[[], None] | None = None
        self._said = 0

    @property
    def joins(self) -> list[int]:
        """Descriptors by which the run's first process gets into its group."""
        return self.group.joins if self.group else []

    def begin(self, pid: int, cut: Callable[[], None]) -> None:
        """Note that the run has started, and how to end it."""
        self.pid, self._cut = pid, cut
        if self.group:
            self.group.close()

    def say(self, count: int) -> None:
        """Note that the run said so many bytes."""
        self._said += count
        if self._said > self.bounds.output_bytes:
            self.exceed(Excess("output", self.bounds.output_bytes))

    @property
    def said_enough(self) -> bool:
        """Whether nobody needs to hear what else it says."""
        return self._said > self.bounds.output_bytes

    def exceed(self, excess: Excess) -> None:
        """End the run for this reason, unless there is one already."""
        if self.excess is None:
            self.excess = excess
            if self._cut:
                self._cut()

    def end(self, number: int | None) -> None:
        """Note that the run has ended, by this signal or exit code, before anybody else hears of it."""
        self._cut = None
        if self.excess is None:
            self.excess = self._group_excess() or (
                Excess("file_size", self.bounds.file_bytes)
                if number in {-signal.SIGXFSZ, 128 + signal.SIGXFSZ}
                else Excess("cpu", self.bounds.cpu_s)
                if number in {-signal.SIGXCPU, 128 + signal.SIGXCPU}
                else None
            )

    def look(self, tree: Taken | None) -> Excess | None:
        """Return the limit that the run is past now, if any. Blocks.

        Args:
            tree: Its processes; None when its group tells enough.
        """
        if (found := self._group_excess()) or tree is None:
            return found
        bounds = self.bounds
        if tree.threads > bounds.processes and not (self.group and self.group.holds_processes):
            return Excess("processes", bounds.processes)
        if tree.cpu_s > bounds.cpu_s:
            return Excess("cpu", bounds.cpu_s)
        if tree.memory_bytes > bounds.memory_bytes and not (self.group and self.group.holds_memory):
            # What is shared counted for each that shares it: look closer before ending anybody.
            shared = taken.shared_bytes(tree.pids)
            if shared is None or shared > bounds.memory_bytes:
                return Excess("memory", bounds.memory_bytes)
        return None

    @property
    def alone(self) -> bool:
        """Whether the group tells all that there is to know of the processes."""
        return bool(
            self.group and self.group.holds_memory and self.group.holds_processes and self.group.cpu_s() is not None
        )

    def _group_excess(self) -> Excess | None:
        if self.group is None:
            return None
        if self.group.out_of_memory():
            return Excess("memory", self.bounds.memory_bytes)
        if (self.group.cpu_s() or 0) > self.bounds.cpu_s:
            return Excess("cpu", self.bounds.cpu_s)
        return None


@final
class _Disk:
    """What a run's folders take on the disk: counted anew when its turn has come, or when the disk fills quickly."""

    def __init__(self, bounds: Limits, before: tuple[int, int]) -> None:
        # A session over its limit may still run, or nobody could tidy it up; it may not grow.
        self._bounds = bounds
        self._allowed_bytes = bounds.disk_bytes
        self._allowed_files = bounds.disk_files
        if before[0] >= bounds.disk_bytes:
            self._allowed_bytes = before[0] + limits.RUN_DISK_SLACK_BYTES
        if before[1] >= bounds.disk_files:
            self._allowed_files = before[1] + limits.RUN_DISK_SLACK_BYTES // 4096
        self.first_bytes: int | None = None
        self.bytes = 0
        self._due = 0.0
        self._free = 0

    def count(
        self, trees: tuple[str, ...], pids: tuple[int, ...], free: int, sharing: int, *, now: bool = False
    ) -> Excess | None:
        """Return the limit that is passed, if any; counts when it is time to, or `now`.

        Args:
            trees: The folders.
            pids: Whose descriptors are looked at.
            free: Bytes that are free on the disk.
            sharing: How many runs are looked after, which share the time that counting takes.
            now: Whether to count at any rate.
        """
        began = time.monotonic()
        room = self._allowed_bytes - self.bytes
        if not now and began < self._due and self._free - free < max(room // 2, limits.MIB):
            return None
        self._free = free
        self.bytes, files = taken.files(trees, pids)
        if self.first_bytes is None:
            self.first_bytes = self.bytes
        ended = time.monotonic()
        self._due = ended + (ended - began) * sharing / limits.GUARD_SHARE
        if self.bytes > self._allowed_bytes:
            return Excess("disk", self._bounds.disk_bytes)
        return Excess("files", self._bounds.disk_files) if files > self._allowed_files else None

    @property
    def grown(self) -> int:
        """How many bytes were added since it was first counted."""
        return self.bytes - (self.bytes if self.first_bytes is None else self.first_bytes)


@final
class Watch:
    """Looks after all runs of a sandbox.

    Args:
        groups: Where their groups are made; None without any.
        every_s: How often it looks.
    """

    def __init__(self, groups: Groups | None = None, *, every_s: float = limits.GUARD_S) -> None:
        self._groups = groups
        self._every_s = every_s
        self._guards: set[Guard] = set()
        self._task: asyncio.Task[None] | None = None
        self._over: dict[str, None] = {}
        self._closed = False
        self._tidying: asyncio.TimerHandle | None = None

    async def guard(self, bounds: Limits, trees: tuple[str, ...], taken_bytes: int = 0, *, ours: int = 0) -> Guard:
        """Return the guard of a run that is going to start.

        Args:
            bounds: Its limits.
            trees: Its own folders.
            taken_bytes: What the workspace took when it was last measured.
            ours: How many processes of ours will be in its control group too.

        Raises:
            OSError: Its control group cannot be made.
            ClosedError: The watch was closed.
        """
        if self._closed:
            raise ClosedError("the sandbox is closed")
        before = (0, 0)
        if trees and (taken_bytes >= bounds.disk_bytes or trees[0] in self._over):
            self._over.pop(trees[0], None)
            before = await asyncio.to_thread(taken.files, trees, ())
        if self._groups is None:
            return Guard(bounds, trees, None, before)
        return Guard(bounds, trees, self._groups.take(bounds, ours=ours), before, self._groups.ahead)

    def add(self, guard: Guard) -> None:
        """Look after a run from now on."""
        self._guards.add(guard)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_after())

    def drop(self, guard: Guard) -> None:
        """Look after a run no more, and remove its group."""
        self._guards.discard(guard)
        if guard.excess and guard.excess.name in {"disk", "files"} and guard.trees:
            while len(self._over) >= limits.GRANTS_KNOWN:
                self._over.pop(next(iter(self._over)))
            self._over[guard.trees[0]] = None
        if self._groups and guard.group:
            self._groups.release(guard.group, again=guard.pid > 0)
            if self._tidying is None:
                self._tidy_in(_TIDY_S)

    async def close(self) -> None:
        """Stop looking, and remove every group."""
        self._closed = True
        if self._tidying:
            self._tidying.cancel()
        if self._task:
            self._task.cancel()
        if self._groups:
            await asyncio.to_thread(self._groups.close)

    def _tidy_in(self, delay_s: float) -> None:
        self._tidying = asyncio.get_running_loop().call_later(delay_s, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        if self._groups and not self._groups.tidy():
            self._tidy_in(self._every_s)

    async def _look_after(self) -> None:
        while self._guards:
            await asyncio.sleep(self._every_s)
            guards = [guard for guard in self._guards if guard.pid and guard.excess is None]
            try:
                found = await asyncio.to_thread(_look, guards)
            except OSError:
                _log.warning("what runs take cannot be looked at", exc_info=True)
                continue
            for guard, excess in found:
                if guard in self._guards:  # else it has ended meanwhile, and its group may be another run's
                    guard.exceed(excess)


def _look(guards: list[Guard]) -> list[tuple[Guard, Excess]]:
    """Return those that are past a limit."""
    found: dict[Guard, Excess] = {}
    plain = [guard.pid for guard in guards if not guard.alone]
    trees = taken.trees(plain) if plain else {}
    disks: dict[int, list[Guard]] = {}
    for guard in guards:
        tree = trees.get(guard.pid)
        excess = guard.look(tree)
        if tree is None and guard.group:
            tree = trees[guard.pid] = _NOBODY._replace(pids=guard.group.pids())
        if excess is None and guard.trees:
            free, disk = _free(guard.trees[0])
            disks.setdefault(disk, []).append(guard)
            excess = guard.disk.count(guard.trees, tree.pids if tree else (), free, len(guards))
        if excess:
            found[guard] = excess
    for those in disks.values():
        if not any(guard in found for guard in those) and (filler := _filler(those, trees)):
            found[filler] = Excess("disk", limits.RUN_DISK_FREE_BYTES, free=True)
    return list(found.items())


def _filler(guards: list[Guard], trees: dict[int, Taken]) -> Guard | None:
    """Return the run that has added most to a disk that is about to be full."""
    free, _ = _free(guards[0].trees[0])
    if free >= _floor(guards[0].trees[0]):
        return None
    for guard in guards:
        guard.disk.count(guard.trees, trees.get(guard.pid, _NOBODY).pids, free, len(guards), now=True)
    most = max(guards, key=lambda guard: guard.disk.grown)
    return most if most.disk.grown > limits.MIB else None


def _floor(folder: str) -> int:
    """Return how much of a disk runs have to leave; of a small one a part."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return min(limits.RUN_DISK_FREE_BYTES, int(found.f_blocks * found.f_frsize * limits.DISK_LOW))


def _free(folder: str) -> tuple[int, int]:
    """Return the bytes that are free on the disk of a folder, and which disk that is."""
    try:
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize, os.stat(folder).st_dev
    except OSError:
        return limits.RUN_LIMIT, -1
