"""The hierarchies of control groups of this machine, and the folders in them where this process may make groups.

Which there are differs from machine to machine: all of version 2, delegated (Delegate=yes of systemd, a container with
a hierarchy of its own); the controllers in version 1 with a version 2 that can only end and count; version 1 alone; or
none. What can be made is found by making it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from alcove.sandbox import processes

MOUNTS: Final = Path("/proc/self/mountinfo")
OWN: Final = Path("/proc/self/cgroup")
_CONTROLLERS: Final = ("memory", "pids")
_ASIDE: Final = "alcove-server"
_MAKER: Final = re.compile(r"([0-9]+)-([0-9]+)-[0-9]+")
_NUMBERS: Final = itertools.count(1)  # a process may have several sandboxes


def find(mounts: Path, own: Path, end: Callable[[Path], None]) -> dict[str, Path]:
    """Make a folder for this process's runs in each hierarchy that lets it.

    Args:
        mounts: Says which hierarchies there are.
        own: Says where this process is in them.
        end: Ends and removes a group that a process left which has ended since.

    Returns:
        By what the groups in it can do (`memory`, `pids`, `kill`, `freezer`, `cpuacct`), the folder.
    """
    mine = f"{_beginning()}{os.getpid()}-{processes.start_time(os.getpid())}-{next(_NUMBERS)}"
    parents: dict[str, Path] = {}
    for kinds, place in hierarchies(mounts, own):
        if place.name == _ASIDE:
            place = place.parent  # noqa: PLW2901 - this process stepped aside earlier
        with contextlib.suppress(OSError):
            _sweep(place, end)
            if kinds == {"v2"}:
                parents |= second(place, mine)
            elif wanted := kinds & {*_CONTROLLERS, "freezer", "cpuacct"}:
                (place / mine).mkdir(exist_ok=True)
                parents |= dict.fromkeys(wanted, place / mine)
    if "kill" in parents:
        for spare in {parents.pop(kind, None) for kind in ("freezer", "cpuacct")} - {None, *parents.values()}:
            assert spare is not None
            spare.rmdir()
    return parents


def second(place: Path, mine: str) -> dict[str, Path]:
    """Make the folder in version 2, with its controllers where they can be handed on."""
    there = set(read(place / "cgroup.controllers").split())
    if not there.issuperset(_CONTROLLERS):
        (place / mine).mkdir(exist_ok=True)
    else:
        hand_on(place)
        (place / mine).mkdir(exist_ok=True)
        hand_on(place / mine)
    able = set(read(place / mine / "cgroup.subtree_control").split())
    kinds = {"kill"} if (place / mine / "cgroup.kill").exists() else set[str]()
    if able.issuperset(_CONTROLLERS):
        kinds |= set(_CONTROLLERS)
    if not kinds:
        (place / mine).rmdir()
    return dict.fromkeys(kinds, place / mine)


def hand_on(place: Path) -> None:
    """Hand the controllers on to the folders below; a group that has processes itself may not do so.

    When this process is the only one in it, as systemd starts a service, it steps aside into a folder of its own.
    """
    control = place / "cgroup.subtree_control"
    if set(read(control).split()).issuperset(_CONTROLLERS):
        return
    with contextlib.suppress(OSError):
        if read(place / "cgroup.procs").split() == [str(os.getpid())]:
            (place / _ASIDE).mkdir(exist_ok=True)
            (place / _ASIDE / "cgroup.procs").write_text("0")
        control.write_text(" ".join(f"+{name}" for name in _CONTROLLERS))


def hierarchies(mounts: Path, own: Path) -> list[tuple[set[str], Path]]:
    """Return the hierarchies and this process's own folder in each: `{"v2"}`, or controllers of version 1."""
    paths: dict[frozenset[str], str] = {}
    for line in read(own).splitlines():
        _, names, path = line.split(":", 2)
        paths[frozenset(names.split(",")) if names else frozenset({"v2"})] = path
    found: list[tuple[set[str], Path]] = []
    for line in read(mounts).splitlines():
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


def _sweep(place: Path, end: Callable[[Path], None]) -> None:
    """Remove the folders of processes that have ended; of another pid namespace nobody here knows."""
    beginning = _beginning()
    for folder in list(place.iterdir()):
        found = _MAKER.fullmatch(folder.name.removeprefix(beginning))
        if not folder.name.startswith(beginning) or not found:
            continue
        if processes.start_time(int(found[1])) == int(found[2]):
            continue
        for below in [one for one in folder.iterdir() if one.is_dir()]:
            end(below)
        with contextlib.suppress(OSError):
            folder.rmdir()


def read(file: Path | str) -> str:
    """Return what the kernel says in a file, `""` when it is not there. By the shortest way: each run asks often."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return b"".join(iter(lambda: os.read(descriptor, 65536), b"")).decode()
        finally:
            os.close(descriptor)
    except OSError:
        return ""
