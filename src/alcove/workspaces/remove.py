"""Removes a folder tree, whatever its programs have left in it: depth, modes, names, links, and writers still alive.

`shutil.rmtree` recurses (5,000 levels end it), gives up at a folder of mode 000 and loses against a live writer.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from alcove import limits
from alcove.errors import ConflictError
from alcove.workspaces.failures import storage, translate
from alcove.workspaces.model import Removed
from alcove.workspaces.paths import decode
from alcove.workspaces.walk import Walk


def remove(folder: int, name: bytes) -> Removed:
    """Remove `name`, in the folder open as `folder`, with all that is below it. What is gone already is no error.

    Links are removed, never followed; mounts are never entered. Not atomic: after an error a part is gone, and the
    same call goes on with the rest.

    Raises:
        ConflictError: A process still writes there: more than `limits.REMOVE_NAMES` names, more than
            `limits.REMOVE_AGAIN_NAMES` after the first pass, or something after `limits.REMOVE_PASSES`. Or a mode,
            an owner or an attribute forbids it.
        StorageError: Something is mounted inside, or the disk failed.
    """
    removal = _Removal(name)
    for _ in range(limits.REMOVE_PASSES):
        if removal.gone(folder):
            return Removed(files=removal.files, folders=removal.folders, size_bytes=removal.size_bytes)
        removal.run(folder)
        if removal.looks < 0:
            break
        # Names are made faster than they are removed, so that every pass against a writer is longer than the last.
        removal.looks = min(removal.looks, limits.REMOVE_AGAIN_NAMES)
    raise ConflictError(
        f"{decode(name)!r} cannot be removed: a process still writes there",
        remedy="end the process and remove it again",
    )


class _Removal(Walk):
    def __init__(self, name: bytes) -> None:
        super().__init__(limits.REMOVE_NAMES)
        self.name = name
        self.files = self.folders = self.size_bytes = 0

    def gone(self, folder: int) -> bool:
        """Return whether nothing is left."""
        try:
            os.stat(self.name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return True
        return False

    def enter(self, fd: int, name: bytes) -> int:
        try:
            below = super().enter(fd, name)
        except PermissionError:
            unlock(fd, name)
            below = super().enter(fd, name)
        if os.fstat(below).st_mode & 0o700 != 0o700:
            with suppress(PermissionError):
                os.fchmod(below, 0o700)
        return below

    def visit(self, fd: int) -> list[bytes]:
        if not self.trail:
            return self._first(fd)
        below: list[bytes] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if not self.look():
                    return []
                name = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    below.append(name)
                else:
                    self._unlink(fd, name)
        return below

    def _first(self, fd: int) -> list[bytes]:
        try:
            info = os.stat(self.name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return []
        if stat.S_ISDIR(info.st_mode):
            return [self.name]
        self._unlink(fd, self.name)
        return []

    def left(self, fd: int, name: bytes) -> None:
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            os.rmdir(name, dir_fd=fd)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR}:
                self.refused(name, error)
            return
        self.folders += 1
        self.size_bytes += info.st_blocks * 512

    def refused(self, name: bytes, error: OSError) -> None:
        path = decode(b"/".join((*self.trail, name)))
        failure = storage(error, repr(path)) if error.errno in {errno.EXDEV, errno.EBUSY} else translate(error, path)
        raise failure from error

    def _unlink(self, fd: int, name: bytes) -> None:
        try:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            os.unlink(name, dir_fd=fd)
        except (FileNotFoundError, IsADirectoryError):
            return
        except OSError as error:
            self.refused(name, error)
            return
        self.files += 1
        if info.st_nlink == 1:
            self.size_bytes += info.st_blocks * 512


def unlock(fd: int, name: bytes) -> None:
    """Give the owner of the folder `name`, in the folder open as `fd`, all rights on it; a link is not followed."""
    # chmod by name would follow a link put there meanwhile; a folder that cannot be read can be opened by O_PATH,
    # and such a descriptor can be changed through /proc only.
    locked = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.chmod(f"/proc/self/fd/{locked}", 0o700)
    finally:
        os.close(locked)
