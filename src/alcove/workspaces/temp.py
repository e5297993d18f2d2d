"""Files that are being written, in a folder that no session can see, until they are renamed to their place.

Each is locked by its writer for as long as that lives, so that what a crash left behind can be told apart from
what another process on the same base is writing now.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager

from alcove.ids import new_id
from alcove.workspaces.remove import remove

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def unfinished(temp: int) -> Generator[tuple[int, str], None, None]:
    """Make a file of mode 0600 in the folder open as `temp`; give its descriptor and name.

    What has not been renamed away by the end is removed.
    """
    fd, name = _create(temp)
    try:
        yield fd, name
    finally:
        try:
            os.unlink(name, dir_fd=temp)
        except FileNotFoundError:
            pass
        finally:
            os.close(fd)


@contextmanager
def unfinished_folder(temp: int) -> Generator[tuple[int, str], None, None]:
    """Make a folder of mode 0700 in the folder open as `temp`; give its descriptor and name.

    What has not been renamed away by the end is removed, with all that is in it.
    """
    fd, name = _create_folder(temp)
    try:
        yield fd, name
    finally:
        try:
            remove(temp, os.fsencode(name))
        finally:
            os.close(fd)


def sweep(temp: int) -> int:
    """Remove what writers that no longer live have left in the folder open as `temp`; return how many things."""
    swept = 0
    for name in os.listdir(temp):
        try:
            fd = os.open(name, _OLD, dir_fd=temp)
        except OSError:
            continue  # renamed to its place meanwhile, or nothing of ours
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISREG(mode):
                    os.unlink(name, dir_fd=temp)
                else:
                    remove(temp, os.fsencode(name))
                swept += 1
        except (BlockingIOError, FileNotFoundError):
            pass
        finally:
            os.close(fd)
    return swept


def _create(temp: int) -> tuple[int, str]:
    while True:
        name = new_id()
        fd = os.open(name, _NEW, 0o600, dir_fd=temp)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, name
        os.close(fd)  # a sweep of another process came between the creation and the lock


def _create_folder(temp: int) -> tuple[int, str]:
    while True:
        name = new_id()
        os.mkdir(name, 0o700, dir_fd=temp)
        try:
            fd = os.open(name, _OLD | os.O_DIRECTORY, dir_fd=temp)
        except FileNotFoundError:
            continue  # a sweep of another process came between
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd, name
        os.close(fd)
