"""Names for processes in the database: boot, pid and start time, never a bare pid, which the kernel gives again."""

from __future__ import annotations

import os

from alcove.sandbox.processes import boot_id, end_tree, start_time


def named(pid: int, started: int) -> str:
    """Return the name of a process of this machine."""
    return f"{boot_id()}:{pid}:{started}"


def here() -> str:
    """Return the name of this process."""
    return named(os.getpid(), start_time(os.getpid()) or 0)


def gone(name: str) -> bool:
    """Return whether a process of this boot of this machine is known to be gone; False for any other machine's."""
    boot, pid, started = name.split(":")
    return boot == boot_id() and start_time(int(pid)) != int(started)


def end(name: str) -> None:
    """End a tree of processes by its name, when it is of this boot and still there."""
    if name:
        boot, pid, started = name.split(":")
        end_tree(int(pid), int(started), boot)
