"""Processes that got away from their tree: found by what they carry, and ended.

A run's processes end with their supervisor, that with the spawner, and that with the server. Something is left when
several of these are killed at once, or when a server dies before it has written down what it started. Such processes
are known by the uid that was leased to their session, and by `ALCOVE_RUN_ID` in the environment that they began with.
A program can do without the variable, but not without the uid: only a root server is sure to find everything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from alcove.sandbox import processes

_NAME: Final = b"ALCOVE_RUN_ID="
_PATIENCE_S: Final = 0.5  # with processes that were sent SIGKILL, before it is looked again


class Leftover(NamedTuple):
    """A process that may be one: it carries the name of a run, or has a uid that was asked for.

    Attributes:
        started: When it did, in clock ticks since boot.
        run_id: What it began with as `ALCOVE_RUN_ID`, `''` for nothing.
        uid: The uid that was asked for and is one of its own, 0 for none.
    """

    pid: int
    started: int
    run_id: str
    uid: int


def look(uids: frozenset[int] = frozenset(), *, named: bool = True) -> list[Leftover]:
    """Return the living processes of this machine that carry the name of a run, or have one of `uids`; never this one.

    Args:
        uids: Uids, real, effective or saved.
        named: Whether to look at environments, of which an ordinary user reads its own processes'.
    """
    found: list[Leftover] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        pid = int(name)
        if pid == os.getpid():
            continue
        with suppress(OSError):  # it ended, or is somebody else's
            run_id = _run_id(pid) if named else ""
            uid = next(iter(_uids(pid) & uids), 0) if uids else 0
            if (run_id or uid) and (started := _started(pid)) is not None:
                found.append(Leftover(pid, started, run_id, uid))
    return found


def end(found: Iterable[Leftover]) -> None:
    """Kill exactly these processes, and give them a moment to be gone. What is gone already is no error."""
    going = list(found)
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, they make no more of themselves meanwhile
        for one in going:
            with suppress(PermissionError):
                processes.send(one.pid, one.started, number)
    deadline = time.monotonic() + _PATIENCE_S
    while any(_started(one.pid) == one.started for one in going) and time.monotonic() < deadline:
        time.sleep(0.002)


def end_all_of(uid: int) -> None:
    """Kill whatever runs under a leased uid, in one stroke, which no fork escapes. Does not wait for the end of it."""
    assert uid > 0
    # A process of that uid can signal no other, so this needs no look at who they are.
    subprocess.run(
        ["/bin/sh", "-c", "kill -9 -1"],
        cwd="/",
        env={},
        user=uid,
        group=uid,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _run_id(pid: int) -> str:
    with suppress(PermissionError), open(f"/proc/{pid}/environ", "rb") as file:
        for one in file.read().split(b"\0"):
            if one.startswith(_NAME):
                return one[len(_NAME) :].decode(errors="replace")
    return ""


def _uids(pid: int) -> frozenset[int]:
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"Uid:"):
                return frozenset(map(int, line.split()[1:]))
    return frozenset()


def _started(pid: int) -> int | None:
    """Return when a process started; None when it has ended, though nobody may have reaped it yet."""
    found = processes.look(pid)
    return None if found is None or found.ended else found.started
