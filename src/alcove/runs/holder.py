"""Names for processes in the database: never a bare pid, which the kernel gives again.

A name is boot and pid namespace, pid and start time: two containers may share a database, but not their pids.
"""

from __future__ import annotations

import os

from alcove.sandbox.processes import boot_id, end_tree, start_time


def _here() -> str:
    return f"{boot_id()}.{os.stat('/proc/self/ns/pid').st_ino}"


def named(pid: int, started: int) -> str:
    """Return the name of a process of this machine."""
    return f"{_here()}:{pid}:{started}"


def here() -> str:
    """Return the name of this process."""
    return named(os.getpid(), start_time(os.getpid()) or 0)


def gone(name: str) -> bool:
    """Return whether a process is known to be gone; False for those of other machines and containers."""
    place, pid, started = name.split(":")
    return place == _here() and start_time(int(pid)) != int(started)


def end(name: str) -> bool:
    """End a tree of processes by its name; return whether nothing of it is left here. Blocks some seconds at most."""
    if not name:
        return True
    place, pid, started = name.split(":")
    if place != _here():
        return True
    try:
        return end_tree(int(pid), int(started), boot_id())
    except PermissionError:
        return False
