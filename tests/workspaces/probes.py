"""What the tests of workspaces attack with, and how they see damage."""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def exchange(one: Path, other: Path) -> None:
    """Swap two names in one step, so that neither is ever missing."""
    if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "renameat2")


@contextmanager
def meanwhile(step: Callable[[], object]) -> Generator[Callable[[], int], None, None]:
    """Repeat `step` in a thread; gives a function that tells how often it has run."""
    stop = threading.Event()
    count = 0

    def loop() -> None:
        nonlocal count
        while not stop.is_set():
            step()
            count += 1

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield lambda: count
    finally:
        stop.set()
        thread.join(10)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for `condition` to be true, and fail when it never is."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def tries(count: int, swaps: Callable[[], int], seconds: float = 30) -> Iterator[int]:
    """Count up to `count`, and on until there were 20 swaps: a thread that never got its turn proves nothing."""
    deadline = time.monotonic() + seconds
    number = 0
    while number < count or swaps() < 20:
        assert time.monotonic() < deadline, "there were hardly any swaps"
        yield number
        number += 1


def naive_read(root: Path, path: str) -> bytes:
    """Read as file servers do that compare real paths: the negative control. What it refuses is empty."""
    try:
        real = os.path.realpath(root / path)
        return (root / path).read_bytes() if real.startswith(f"{root}/") else b""
    except OSError:  # a name was swapped between two of its steps
        return b""


def picture(folder: Path) -> str:
    """Return a hash of all names, modes, owners, links, times and contents below a folder."""
    digest = hashlib.sha256()
    for at, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted((*folders, *files)):
            path = os.path.join(at, name)
            info = os.lstat(path)
            digest.update(os.fsencode(path))
            digest.update(repr((info.st_mode, info.st_uid, info.st_size, info.st_nlink, info.st_mtime_ns)).encode())
            if os.path.islink(path):
                digest.update(os.fsencode(os.readlink(path)))
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
