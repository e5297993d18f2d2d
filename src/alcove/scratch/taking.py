"""How a process takes a folder and keeps it: a shared lock on the folder itself, which the kernel drops at its end."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

from alcove.scratch.places import FOLDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_TRIES: Final = 20  # a folder that was swept between its making and its locking this often is being fought over

# The path of each folder that this process was given, and the descriptor whose lock keeps it.
_held: dict[str, int] = {}


def take(fd: int, name: str, path: str) -> float:
    """Make, hold and refresh the folder `name`; return the present, as its file system tells it.

    Ages are told by the clock that stamped them: a stamp is made anew and read.
    """
    for _ in range(_TRIES):
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=fd)
        try:
            mine = os.open(name, FOLDER, dir_fd=fd)
        except FileNotFoundError:
            continue  # swept between the two
        try:
            with suppress(OSError):  # a file system without locks: then nothing is swept there either
                fcntl.flock(mine, fcntl.LOCK_SH)
            os.utime(mine)
            if same(fd, name, mine):
                now = os.fstat(mine).st_mtime
                mine = _keep(path, mine)
                return now
        finally:
            if mine >= 0:
                os.close(mine)
    raise OSError(errno.EBUSY, "another process keeps removing it")


def _keep(path: str, mine: int) -> int:
    """Keep a descriptor as the one that holds `path`; return the one that is not needed, or -1.

    Every step on the dictionary is one that other threads cannot part.
    """
    old = _held.pop(path, -1)
    keep, spare = (old, mine) if old >= 0 and os.path.samestat(os.fstat(old), os.fstat(mine)) else (mine, old)
    if _held.setdefault(path, keep) != keep:
        os.close(keep)
    return spare


def let_go(path: str) -> None:
    """Let go of a folder; one that is not held is no error."""
    held = _held.pop(path, -1)
    if held >= 0:
        os.close(held)


def same(fd: int, name: str, opened: int) -> bool:
    """Return whether `name` is the folder open as `opened`."""
    try:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(info, os.fstat(opened))


def locked(folder: int) -> bool:
    """Take what is open as `folder` for a sweep until it is closed, unless another process holds it."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
