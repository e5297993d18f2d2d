"""Removing folders that are old and that nobody holds, by descriptor: no path is walked, no link followed."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from alcove.scratch.ageing import folder_names, newest
from alcove.scratch.places import FOLDER
from alcove.scratch.taking import locked, same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

EVERY_S: Final = 3600  # at most one sweep of an app's folders in this time, whoever calls
NAMES: Final = 20_000  # files and folders that one call sweeps before it leaves the rest to the next: about 0.3 s
_PASSES: Final = 20  # a folder that fills again this often while it is emptied has a live writer
_MARK: Final = ".sweep"  # in an app's folder: its mtime is when it was last swept
_GONE: Final = ".gone-"  # begins the names of what is being removed


class Swept:
    """What a sweep did.

    Attributes:
        removed: The trace ids whose folders went, or would have gone.
        failed: Name and reason of each folder that could not be looked at or removed.
        more: Whether it ended early, at `NAMES`.
    """

    __slots__ = ("failed", "more", "removed")

    def __init__(self) -> None:
        self.removed: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.more = False

    def __repr__(self) -> str:
        return f"Swept(removed={self.removed!r}, failed={self.failed!r}, more={self.more!r})"


def sweep_folder(fd: int, max_age_s: float, *, dry_run: bool) -> Swept:
    """Sweep the app's folder open as `fd`, whenever it was last swept."""
    mark, _ = _mark(fd)
    try:
        if not dry_run:
            os.utime(mark)
            return _sweep(fd, os.fstat(mark).st_mtime - max_age_s, None, dry_run=False)
        swept_at = os.fstat(mark).st_mtime_ns
        os.utime(mark)
        now = os.fstat(mark).st_mtime
        os.utime(mark, ns=(swept_at, swept_at))
        return _sweep(fd, now - max_age_s, None, dry_run=True)
    finally:
        os.close(mark)


def sweep_when_due(fd: int, now: float, max_age_s: float) -> None:
    """Sweep, if nobody has for `EVERY_S` and nobody does now; a part of it when there is much to do."""
    mark, fresh = _mark(fd)
    try:
        if fresh or not _due(mark, now) or not locked(mark):
            return
        if not _due(mark, now):
            return  # another process swept between the look and the lock
        os.utime(mark)
        if _sweep(fd, now - max_age_s, NAMES, dry_run=False).more:
            os.utime(mark, (0, 0))  # the next call goes on
    finally:
        os.close(mark)


def _due(mark: int, now: float) -> bool:
    # A mark of the future is one from before the clock was set back.
    return not 0 <= now - os.fstat(mark).st_mtime < EVERY_S


def _mark(fd: int) -> tuple[int, bool]:
    """Open the mark of an app's folder; return it, and whether it was made just now."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        return os.open(_MARK, flags, dir_fd=fd), False
    return os.open(_MARK, flags | os.O_CREAT, 0o600, dir_fd=fd), True


def _sweep(fd: int, before: float, names: int | None, *, dry_run: bool) -> Swept:
    """Remove folders that were last active before an instant, until `names` files and folders went by."""
    swept = Swept()
    left = float("inf") if names is None else names
    with os.scandir(fd) as entries:
        unfinished = {entry.name for entry in entries if entry.name.startswith(_GONE)}
    for name in [*unfinished, *folder_names(fd)]:
        if left <= 0:
            swept.more = True
            return swept
        try:
            gone, looked = (name, 0) if name in unfinished else _claim(fd, name, before, dry_run=dry_run)
            left -= 1 + looked
            if gone and name not in unfinished:
                swept.removed.append(name)
            if gone and not dry_run:
                left -= _remove(fd, gone)
        except FileNotFoundError:
            continue  # another sweep was first
        except OSError as error:
            swept.failed.append((name, error.strerror or str(error)))
    return swept


def _claim(fd: int, name: str, before: float, *, dry_run: bool) -> tuple[str, int]:
    """Move an old folder that nobody holds out of the way; return its new name, or `''`, and what was looked at."""
    if os.stat(name, dir_fd=fd, follow_symlinks=False).st_mtime >= before:
        return "", 0
    try:
        folder = os.open(name, FOLDER, dir_fd=fd)
    except PermissionError:
        if dry_run:
            return name, 0
        folder = _open(fd, name)
    try:
        if not locked(folder):
            return "", 0
        latest, looked = newest(folder, before)
        if latest >= before or not same(fd, name, folder):
            return "", looked
        if dry_run:
            return name, looked
        gone = _fresh_name()
        os.rename(name, gone, src_dir_fd=fd, dst_dir_fd=fd)
        if same(fd, gone, folder):
            return gone, looked
        # Something else was put there since. It is not what was looked at, so it goes back, or beside.
        with suppress(OSError):
            os.rename(gone, name, src_dir_fd=fd, dst_dir_fd=fd)
            return "", looked
        os.rename(gone, gone[1:], src_dir_fd=fd, dst_dir_fd=fd)
        return "", looked
    finally:
        os.close(folder)


def _fresh_name() -> str:
    return _GONE + os.urandom(8).hex()


def _remove(fd: int, gone: str) -> int:
    """Remove a folder that was moved out of the way, of any depth; return how many names went.

    Each folder in it is first moved up beside it, under a name of ours: a mount cannot be moved, so it is never
    entered, and depth does not matter. What a crash leaves begins with `_GONE`, and the next sweep goes on with it.
    """
    went, pending = 0, [gone]
    while pending:
        name = pending.pop()
        try:
            folder = _open(fd, name)
        except NotADirectoryError:
            os.unlink(name, dir_fd=fd)  # somebody has put a file or a link there
            continue
        except FileNotFoundError:
            continue  # another sweep goes on with the same
        try:
            went += _empty(fd, folder, name, pending)
        finally:
            os.close(folder)
    return went


def _empty(fd: int, folder: int, name: str, pending: list[str]) -> int:
    """Remove a folder, its files, and what it held of folders to `pending`; return how many names that were."""
    if os.fstat(folder).st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(folder, stat.S_IRWXU)
    went = 0
    for _ in range(_PASSES):
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            went += 1
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    _raise(fd, folder, entry.name, new := _fresh_name())
                    pending.append(new)
                else:
                    os.unlink(entry.name, dir_fd=folder)
        try:
            os.rmdir(name, dir_fd=fd)
        except FileNotFoundError:
            return went
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            return went + 1
    raise OSError(errno.EBUSY, "a process keeps filling it")


def _raise(fd: int, folder: int, name: str, new: str) -> None:
    """Move a folder up; one that its owner may not write cannot be moved before it is unlocked."""
    try:
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=fd)
    except PermissionError:
        _unlock(folder, name)
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=fd)


def _open(fd: int, name: str) -> int:
    """Open a folder, also one that its owner may not read. A link is refused."""
    try:
        return os.open(name, FOLDER, dir_fd=fd)
    except PermissionError:
        _unlock(fd, name)
        return os.open(name, FOLDER, dir_fd=fd)


def _unlock(fd: int, name: str) -> None:
    """Give the owner all rights on a folder. By descriptor: chmod by name would follow a link put there meanwhile."""
    opened = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.chmod(f"/proc/self/fd/{opened}", stat.S_IRWXU)
    finally:
        os.close(opened)
