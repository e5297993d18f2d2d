"""What runs take, where no control group counts it: one look at all processes, and at the files of a session."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import Final, NamedTuple

from alcove import limits
from alcove.workspaces.survey import Counter

_TICKS_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Taken(NamedTuple):
    """What a tree of processes takes.

    Attributes:
        pids: Its processes, without the supervisor at its top.
        threads: Of them all together.
        cpu_s: Of those that live and those that have ended.
        memory_bytes: Resident pages; what several share counts for each.
    """

    pids: tuple[int, ...]
    threads: int
    cpu_s: float
    memory_bytes: int


class _Seen(NamedTuple):
    parent: int
    own_ticks: int
    ended_ticks: int
    threads: int
    pages: int


def trees(tops: Iterable[int]) -> dict[int, Taken]:
    """Return what is below each supervisor, in one look at all processes of the machine (30 µs for each)."""
    seen: dict[int, _Seen] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                seen[int(name)] = _look(name)
    children: dict[int, list[int]] = {}
    for pid, one in seen.items():
        children.setdefault(one.parent, []).append(pid)
    return {top: _sum(top, seen, children) for top in tops}


def shared_bytes(pids: Iterable[int]) -> int | None:
    """Return what processes hold, with what they share divided among them; None where that may not be read."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith(b"Pss:")) * 1024
        except (FileNotFoundError, ProcessLookupError):
            continue
        except (OSError, StopIteration):
            return None
    return total


def files(folders: Iterable[str], pids: Iterable[int]) -> tuple[int, int]:
    """Return bytes and files on the disk: blocks, hard links once, and files without a name that are still open.

    Args:
        folders: Gone through at any depth; what is not there, or may not be read, takes nothing.
        pids: Processes whose descriptors are looked at, as far as this one may.
    """
    counter = Counter()
    devices: set[int] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            top = os.open(folder, _FOLDER)
            try:
                devices.add(os.fstat(top).st_dev)
                counter.run(top)
            finally:
                os.close(top)
    usage = counter.usage()
    nameless = _nameless(pids, devices)
    return usage.size_bytes + sum(nameless.values()), usage.files + len(nameless)


def _nameless(pids: Iterable[int], devices: set[int]) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    left = limits.GUARD_DESCRIPTORS
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                left -= 1
                if left < 0:
                    return found
                with contextlib.suppress(OSError):
                    info = os.stat(f"/proc/{pid}/fd/{name}")
                    if not info.st_nlink and info.st_dev in devices and stat.S_ISREG(info.st_mode):
                        found[info.st_dev, info.st_ino] = info.st_blocks * 512
    return found


def _look(name: str) -> _Seen:
    with open(f"/proc/{name}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return _Seen(
        parent=int(fields[1]),
        own_ticks=int(fields[11]) + int(fields[12]),
        ended_ticks=int(fields[13]) + int(fields[14]),
        threads=int(fields[17]),
        pages=int(fields[21]),
    )


def _sum(top: int, seen: dict[int, _Seen], children: dict[int, list[int]]) -> Taken:
    pids: list[int] = []
    todo = [top]
    while todo:
        below = children.get(todo.pop(), ())
        pids += below
        todo += below
    # Whoever loses its parent is adopted by the supervisor, which therefore has, of all that ended, the time.
    ticks = seen[top].ended_ticks if top in seen else 0
    ticks += sum(seen[pid].own_ticks + seen[pid].ended_ticks for pid in pids)
    return Taken(
        pids=tuple(pids),
        threads=sum(seen[pid].threads for pid in pids),
        cpu_s=ticks / _TICKS_S,
        memory_bytes=sum(seen[pid].pages for pid in pids) * _PAGE,
    )
