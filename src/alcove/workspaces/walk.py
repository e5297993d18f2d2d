"""Goes through a folder tree of any depth with one descriptor, while others may be changing it.

Up is `..`, taken only when it is the very folder that was left; otherwise the way is found again from the top.
Links and mounts are never entered.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator

from alcove.workspaces.openat2 import open_beneath

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}

Identity = tuple[int, int]


class Walk(ABC):
    """One way through a tree, parents before children.

    Attributes:
        trail: The names of the folders that lead from the top to the present one.
        complete: Whether nothing was left out.
        looks: How many more names it may look at: a program that makes names faster than a walk goes through them
            would keep it for ever.
    """

    def __init__(self, looks: int) -> None:
        self.trail: list[bytes] = []
        self.complete = True
        self.looks = looks

    @abstractmethod
    def visit(self, fd: int) -> list[bytes]:
        """See the folder open as `fd`, once per folder; return the names of the folders in it to go into."""

    def look(self) -> bool:
        """Return whether one more name may be looked at; when not, the walk ends."""
        self.looks -= 1
        self.complete = self.complete and self.looks >= 0
        return self.looks >= 0

    def left(self, fd: int, name: bytes) -> None:  # noqa: B027 - most have nothing to do then
        """See that the folder `name`, in the folder open as `fd` (`O_PATH`), has been gone through."""

    def refused(self, name: bytes, error: OSError) -> None:
        """See that the folder `name`, in the present one, cannot be entered; `EXDEV` when it is a mount."""
        self.complete = False

    def enter(self, fd: int, name: bytes) -> int:
        """Open the folder `name`, in the folder open as `fd`, for reading."""
        return open_beneath(fd, name, FOLDER, links=False, mounts=False)

    def run(self, top: int) -> None:
        """Go through everything below the descriptor `top`, which stays open and belongs to the caller."""
        for _ in self.steps(top):
            pass

    def steps(self, top: int) -> Iterator[int]:
        """Do what `run` does, and pause after each folder was visited; yields its descriptor, good until the next."""
        self.trail.clear()
        way: list[Identity] = []  # what each name of the trail was when it was entered
        fd = os.open(b".", FOLDER, dir_fd=top)
        try:
            pending = [self.visit(fd)]
            yield fd
            while pending and self.looks >= 0:
                if pending[-1]:
                    name = pending[-1].pop()
                    below = self._try(fd, name)
                    if below is None:
                        continue
                    os.close(fd)
                    fd = below
                    self.trail.append(name)
                    way.append(identity(fd))
                    pending.append(self.visit(fd))
                    yield fd
                    continue
                pending.pop()
                if not way:
                    break
                way.pop()
                name = self.trail.pop()
                above = _up(fd, way[-1] if way else identity(top))
                os.close(fd)
                fd = -1
                if above is not None:
                    fd = above
                    self.left(fd, name)
                else:
                    fd = self._again(top, way)
                    del self.trail[len(way) :], pending[len(way) + 1 :]
        finally:
            if fd >= 0:
                os.close(fd)

    def _try(self, fd: int, name: bytes) -> int | None:
        try:
            return self.enter(fd, name)
        except OSError as error:
            if error.errno not in _GONE:
                self.refused(name, error)
            return None

    def _again(self, top: int, way: list[Identity]) -> int:
        """Go down the trail from the top, as far as it still leads along `way`, and cut `way` to that."""
        fd = os.open(b".", _UP, dir_fd=top)
        for depth, expected in enumerate(way):
            try:
                below = open_beneath(fd, self.trail[depth], _UP | os.O_NOFOLLOW, links=False, mounts=False)
            except OSError:
                del way[depth:]
                break
            if identity(below) != expected:
                os.close(below)
                del way[depth:]
                break
            os.close(fd)
            fd = below
        return fd


def identity(fd: int) -> Identity:
    """Return what tells the folder open as `fd` from every other that exists: device and inode."""
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _up(fd: int, expected: Identity) -> int | None:
    try:
        above = os.open(b"..", _UP, dir_fd=fd)
    except OSError:
        return None
    if identity(above) == expected:
        return above
    os.close(above)
    return None
