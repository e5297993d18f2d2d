"""Process trees: who descends from whom, and how to end all of them.

Runs in the server, the warm spawner and the supervisors: standard library only. A process is named by pid and start
time, never by its pid alone, which the kernel gives again to others.
"""

from __future__ import annotations

import os
import time

from alcove.sandbox.bare import signal

_STAT_BYTES = 4096  # some 50 numbers and a name
_QUICK_ROUNDS = 2  # of looking at children alone
_ROUNDS = 5  # of looking and killing, before harder means


class Process:
    """What the kernel says of a process: its parent, its start (clock ticks since boot), whether it is a zombie."""

    __slots__ = ("ended", "parent", "started")

    def __init__(self, parent: int, started: int, *, ended: bool) -> None:
        self.parent = parent
        self.started = started
        self.ended = ended


def boot_id() -> str:
    """Return what names this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot, or None when there is no such process."""
    found = look(pid)
    return found.started if found else None


def descendants(pid: int, *, without: frozenset[int] = frozenset()) -> dict[int, Process]:
    """Return everything below `pid`, parents before children, leaving out the pids of `without` and what is below.

    A process that is born while this looks may be missing.
    """
    everyone: dict[int, Process] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := look(int(name))):
            everyone[int(name)] = found
    children: dict[int, list[int]] = {}
    for one, process in everyone.items():
        children.setdefault(process.parent, []).append(one)
    below: dict[int, Process] = {}
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in without and child not in below:
                below[child] = everyone[child]
                todo.append(child)
    return below


def send(pid: int, started: int, number: int) -> bool:
    """Signal exactly the process that started then; False when it is gone.

    Raises:
        PermissionError: It may not be signalled from here.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if start_time(pid) != started:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def end_descendants(*, without: frozenset[int] = frozenset(), uid: int | None = None) -> None:
    """End everything below this process, which must be a subreaper, and return when nothing of it is left.

    Args:
        without: Children of this process to leave alone, with all that is below them.
        uid: Nobody but these descendants has it, so it may be used against those that fork faster than we look.
    """
    rounds = 0
    while _children() and (
        found := _few(without) if rounds < _QUICK_ROUNDS else descendants(os.getpid(), without=without)
    ):
        rounds += 1
        if uid is not None and rounds > _ROUNDS:
            _end_all_of(uid)
        for pid, process in found.items():
            try:
                send(pid, process.started, signal.SIGKILL)
            except PermissionError:
                pass  # a setuid program on the rung `none`: it is waited for instead
        for pid, process in found.items():
            if process.parent == os.getpid():
                os.waitpid(pid, 0)


def _few(without: frozenset[int]) -> dict[int, Process]:
    """Return the children of this process; everything below it where the kernel does not list them (`PROC_CHILDREN`).

    That is a look at few processes instead of all of the machine. What is below a child comes here when that has ended.
    """
    try:
        with open("/proc/thread-self/children") as file:
            children = [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        return descendants(os.getpid(), without=without)
    return {pid: found for pid in children if pid not in without and (found := look(pid))}


def end_tree(pid: int, start_time_ticks: int, boot: str, *, timeout_s: float = 10) -> bool:
    """End the tree of a run that another server left, and tell whether nothing of it is left.

    Args:
        pid: The tree's supervisor, as recorded when the run was started.
        start_time_ticks: Its start time, in clock ticks since boot.
        boot: The boot id then; after a restart of the machine there is nothing to end.
        timeout_s: How long to wait for its end; blocks that long at most.

    Raises:
        PermissionError: The tree belongs to another user.
    """
    if boot != boot_id() or start_time(pid) != start_time_ticks:
        return True
    # A supervisor that is asked ends its tree and then itself; one that does not answer is ended from outside.
    for numbers in ((signal.SIGTERM, signal.SIGCONT), (signal.SIGKILL,)):
        tree = descendants(pid)
        for number in numbers:
            send(pid, start_time_ticks, number)
        if signal.SIGKILL in numbers:
            for one, process in tree.items():
                send(one, process.started, signal.SIGKILL)
        tree[pid] = Process(0, start_time_ticks, ended=False)
        if _gone(tree, timeout_s / 2):
            return True
    return False


def _children() -> bool:
    """Tell whether this process has children, without looking at all processes of the machine."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _end_all_of(uid: int) -> None:
    if killer := os.fork():
        os.waitpid(killer, 0)
        return
    try:
        os.setresuid(uid, uid, uid)
        os.kill(-1, signal.SIGKILL)  # all of that uid in one call; what it is not allowed to signal, it spares
    finally:
        os._exit(0)


def _gone(tree: dict[int, Process], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    for pid, process in tree.items():
        while (now := look(pid)) and now.started == process.started and not now.ended:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.002)
    return True


def look(pid: int) -> Process | None:
    """Return what the kernel says of a process, None when there is none."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(file, _STAT_BYTES).rpartition(b")")[2].split()
        finally:
            os.close(file)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(int(fields[1]), int(fields[19]), ended=fields[0] in b"ZX")
