"""Reading what another program left: by descriptor, no link followed, nothing that blocks, nothing without a bound."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alcove import limits
from alcove.errors import InvalidError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def opened(folder: str | Path) -> Generator[int]:
    """Open the folder to import; whoever names it may name a link.

    Raises:
        InvalidError: There is no such folder, or this user may not read it.
    """
    try:
        fd = os.open(folder, _FOLDER)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or "not a path"
        raise InvalidError(
            f"the folder {str(folder)[:160]!r} cannot be read: {reason}", field="folder", remedy="name another"
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


def names(fd: int) -> list[str]:
    """Return the names in a folder, sorted."""
    with os.scandir(fd) as entries:
        return sorted(entry.name for entry in entries)


def read(fd: int, name: str) -> bytes:
    """Return what is in a file.

    Raises:
        InvalidError: It is no regular file, is larger than `limits.IMPORT_FILE_BYTES`, or cannot be read.
    """
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except OSError as error:
        is_link = stat.S_ISLNK(_mode(fd, name))
        raise InvalidError("it is a link, and is not followed" if is_link else f"{error.strerror}") from error
    info = os.fstat(file)
    if not stat.S_ISREG(info.st_mode):
        os.close(file)
        raise InvalidError("it is no regular file")
    with os.fdopen(file, "rb") as stream:
        raw = stream.read(limits.IMPORT_FILE_BYTES + 1) if info.st_size <= limits.IMPORT_FILE_BYTES else b""
        if len(raw) > limits.IMPORT_FILE_BYTES or info.st_size > limits.IMPORT_FILE_BYTES:
            raise InvalidError(
                f"it is {info.st_size} bytes, and at most {limits.IMPORT_FILE_BYTES} are read at once",
                limit=limits.IMPORT_FILE_BYTES,
            )
        return raw


def _mode(fd: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
    except OSError:
        return 0
