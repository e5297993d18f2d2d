"""Turns what the kernel says about files into our errors, each with its remedy."""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import final

from alcove.errors import AlcoveError, ConflictError, FileMissingError, InvalidError, StorageError

_MISSING = (FileMissingError, "there is no {} in the workspace", "list the files of the session")
_OUT = (
    InvalidError,
    "{} passes a link or mount that leads out of the workspace, or a link that may not be followed",
    "name the file itself",
)
_NAME = (InvalidError, "the file system takes no such name as {}", "use a shorter or plainer name")
_TAKEN = (ConflictError, "{} is a folder or exists already", "use another name")
_FORBIDDEN = (
    ConflictError,
    "the mode, the owner or an attribute of {} forbids it",
    "change it from inside the session (chmod u+rwX, chattr -i)",
)
_FAILURES: dict[int, tuple[type[AlcoveError], str, str]] = {
    errno.ENOENT: _MISSING,
    errno.ENOTDIR: _MISSING,
    errno.ELOOP: _OUT,
    errno.EXDEV: _OUT,
    errno.ENAMETOOLONG: _NAME,
    errno.EINVAL: _NAME,
    errno.ENXIO: (InvalidError, "{} is not a regular file", "name a regular file"),
    errno.EISDIR: _TAKEN,
    errno.EEXIST: _TAKEN,
    errno.ENOTEMPTY: (ConflictError, "the folder {} is not empty", "delete it with recursive=True"),
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EAGAIN: (ConflictError, "{} was moved or held by a process meanwhile", "try again"),
}
_REMEDIES = {
    errno.ENOSPC: "free some space on the disk of the workspaces",
    errno.EDQUOT: "raise the disk quota or delete files",
    errno.EROFS: "mount the disk of the workspaces writable",
    errno.EBUSY: "unmount what is mounted there",
    errno.EXDEV: "unmount what is mounted there: a workspace lies on one file system",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the limit of open files (fs.file-max)",
}


@final
class translated:  # noqa: N801 - it reads as what it does
    """Within `with translated(path)`, an OSError about `path` becomes an AlcoveError."""

    # A class, because a generator takes three times as long, and this is around every access to a file.
    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise translate(error, self._path) from error


def translate(error: OSError, path: str) -> AlcoveError:
    """Return the error to raise for what happened at `path`, which is shown shortened."""
    shown = repr(path if len(path) <= 160 else f"{path[:80]}…{path[-79:]}")
    failure = _FAILURES.get(error.errno or 0)
    if failure is None:
        return storage(error, shown)
    kind, message, remedy = failure
    return kind(message.format(shown), field="path", remedy=remedy)


def storage(error: OSError, shown: str) -> StorageError:
    """Return the error for a disk that failed at `shown`."""
    return StorageError(
        f"the disk failed at {shown}: {os.strerror(error.errno or errno.EIO)}",
        remedy=_REMEDIES.get(error.errno or 0, "look at the system's log"),
        errno=errno.errorcode.get(error.errno or 0, ""),
    )
