"""How long a folder has been idle: the latest change of it or of anything in it, links not followed."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from alcove.scratch.places import FOLDER, is_name
from alcove.scratch.taking import locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LEVELS: Final = 128  # folders below a session's folder in which a fresh file is looked for: one descriptor each


def folder_names(fd: int) -> list[str]:
    """Return the names of session folders; links and files among them are not ours."""
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries if is_name(entry.name) and entry.is_dir(follow_symlinks=False)]


def look(fd: int, name: str) -> tuple[float, bool]:
    """Return when a folder was last active, and whether it is in use."""
    active_at = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mtime
    try:
        folder = os.open(name, FOLDER, dir_fd=fd)
    except PermissionError:
        return active_at, False
    try:
        return newest(folder, float("inf"))[0], not locked(folder)
    finally:
        os.close(folder)


def newest(folder: int, enough: float) -> tuple[float, int]:
    """Return the latest mtime in a folder and how many names were looked at, ending at an mtime of `enough` or later.

    A folder in it that cannot be read, or lies deeper than `LEVELS`, counts by its own mtime.
    """
    latest, looked = os.fstat(folder).st_mtime, 0
    pending = [(os.dup(folder), ["."])]  # a folder, and those in it that are still to be looked at
    try:
        while pending and latest < enough:
            fd, below = pending[-1]
            if not below or len(pending) > LEVELS:
                os.close(pending.pop()[0])
                continue
            try:
                inner = os.open(below.pop(), FOLDER, dir_fd=fd)
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE}:
                    raise  # what is not looked at might be fresh
                continue
            inside: list[str] = []
            pending.append((inner, inside))
            with os.scandir(inner) as entries:
                for entry in entries:
                    looked += 1
                    with suppress(FileNotFoundError, PermissionError):
                        latest = max(latest, entry.stat(follow_symlinks=False).st_mtime)
                        if entry.is_dir(follow_symlinks=False):
                            inside.append(entry.name)
    finally:
        for fd, _ in pending:
            os.close(fd)
    return latest, looked
