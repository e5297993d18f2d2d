"""Folders that are held by a process: the kernel takes the lock from one that was killed, so anybody can tell."""

from __future__ import annotations

import fcntl
import os

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def hold(folder: int, name: str, *, wait: bool = False) -> int | None:
    """Lock the folder `name`, in the folder open as `folder`, for as long as the returned descriptor is open.

    Args:
        folder: The folder above.
        name: The folder.
        wait: Whether to block while somebody else holds it.

    Returns:
        None when somebody else holds it, when it is not there, or when this file system has no locks.
    """
    try:
        opened = os.open(name, _FOLDER, dir_fd=folder)
    except OSError:
        return None
    try:
        fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its last holder may have removed it between the two, and another one made it anew.
        if os.path.samestat(os.fstat(opened), os.stat(name, dir_fd=folder, follow_symlinks=False)):
            return opened
    except OSError:
        pass
    os.close(opened)
    return None
