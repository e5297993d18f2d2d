"""Every access to a file of a workspace.

A tree holds the folder itself, not its path: no link, rename or race in the session's hands leads a call out of it.
Everything here blocks and is safe to call from several threads; it knows no database and no session.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

from alcove import limits
from alcove.errors import AlreadyExistsError, ConflictError, FileMissingError, InvalidError, TooLargeError
from alcove.workspaces.failures import translated
from alcove.workspaces.model import File, Listing, Usage, kind
from alcove.workspaces.openat2 import open_beneath
from alcove.workspaces.paths import check_path, decode
from alcove.workspaces.remove import remove
from alcove.workspaces.survey import Counter, Lister
from alcove.workspaces.temp import unfinished
from alcove.workspaces.walk import identity

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
# A FIFO without a writer would block the thread for ever, a terminal could become ours.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_CHUNK = limits.MIB
_FILE_MODE, _FOLDER_MODE = 0o644, 0o755  # the workspace's own 0700 keeps others out


class Tree:
    """The files of one workspace. Paths are relative to it, one spelling each: see `paths.check_path`.

    Raises (every method):
        ConflictError: The workspace's folder was moved away or replaced since the tree was opened.
        InvalidError: The path cannot be one, or passes a link that leads out of the workspace.
        StorageError: The disk is full, read-only or broken.
    """

    def __init__(self, above: int, name: str, temp: int, *, owner: int | None = None) -> None:
        """Pin the folder `name`, in the folder open as `above`.

        Args:
            above: Descriptor of the folder of workspaces; duplicated.
            name: Name of the workspace's folder.
            temp: Descriptor of a folder on the same file system that sessions cannot see; duplicated.
            owner: The uid that new files and folders are given to; None leaves them to this process.

        Raises:
            FileMissingError: There is no such folder, or it is a link or a file.
            ConflictError: Its mode keeps this process out; `Base.create(adopt=True)` sets it right.
        """
        self._name = name
        self._owner = owner
        self._root = self._above = self._temp = -1
        with translated(name):
            try:
                self._root = os.open(name, _ROOT, dir_fd=above)
                self._above, self._temp = os.dup(above), os.dup(temp)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise FileMissingError(
                    f"the workspace folder {name!r} is missing, or is a link or a file",
                    remedy="it is made again at the session's next activity",
                ) from error
            except OSError:
                self.close()
                raise
            self._identity = identity(self._root)

    def close(self) -> None:
        """Let go of the folder; no other call may be under way."""
        for fd in (self._root, self._above, self._temp):
            if fd >= 0:
                os.close(fd)
        self._root = self._above = self._temp = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def list(self, path: str = "", *, recursive: bool = True) -> Listing:
        """Return the files of a folder, by default of the whole workspace and all folders below.

        What vanishes meanwhile, dangles or cannot be read never breaks a listing. Costs memory for, and looks at,
        no more than `limits.LISTING_FILES` entries and `limits.TREE_DEPTH` levels.

        Raises:
            FileMissingError: There is no such folder.
        """
        raw = check_path(path) if path else b""
        with translated(path):
            self._check()
            top = open_beneath(self._root, raw or b".", _FOLDER)
            try:
                lister = Lister(raw, recursive=recursive)
                lister.run(top)
            finally:
                os.close(top)
        return lister.listing()

    def stat(self, path: str) -> File:
        """Return what is at `path`, a folder as well; a link itself, not what it points to.

        Raises:
            FileMissingError: There is nothing.
        """
        raw = check_path(path)
        with translated(path):
            self._check()
            folder, name = self._parent(raw)
            try:
                return File.of(path, os.stat(name, dir_fd=folder, follow_symlinks=False))
            finally:
                os.close(folder)

    def open_read(self, path: str) -> tuple[int, File]:
        """Open a regular file for reading; links are followed as long as they stay in the workspace.

        Returns:
            A descriptor that the caller closes, and what it is. The file may change while it is read.

        Raises:
            FileMissingError: There is no such file.
            InvalidError: It is a folder, FIFO, socket or device (none blocks), or a hard link to the file of
                somebody who is not the owner.
            ConflictError: A process of the session holds a lease on it, or its mode forbids reading.
        """
        raw = check_path(path)
        with translated(path):
            self._check()
            fd = open_beneath(self._root, raw, _READ)
            info = os.fstat(fd)
        what = kind(info.st_mode)
        if what == "file" and not self._foreign(info):
            return fd, File.of(path, info)
        os.close(fd)
        reason = f"is a {what}, not a regular file" if what != "file" else "is another user's file, hard-linked"
        raise InvalidError(f"{path[:160]!r} {reason}", field="path", remedy="name a regular file of the session")

    def read(self, path: str, limit_bytes: int = limits.FILE_BYTES) -> bytes:
        """Return the whole of a regular file, as `open_read` opens it. Not a snapshot: a writer may be at work.

        Raises:
            TooLargeError: It is longer than `limit_bytes` (0 bytes on the disk or not), or grew past it meanwhile.
        """
        fd, file = self.open_read(path)
        with os.fdopen(fd, "rb", buffering=0) as stream, translated(path):
            content = bytearray()
            while file.size_bytes <= limit_bytes >= len(content):
                chunk = stream.read(min(_CHUNK, limit_bytes + 1 - len(content)))
                if not chunk:
                    return bytes(content)
                content += chunk
        raise TooLargeError(
            f"{path[:160]!r} is longer than {limit_bytes} bytes",
            field="path",
            limit=limit_bytes,
            remedy="read it in ranges",
        )

    def write(
        self,
        path: str,
        data: bytes | Iterable[bytes],
        *,
        limit_bytes: int = limits.FILE_BYTES,
        parents: bool = True,
    ) -> File:
        """Make or replace a file as a whole: readers, and a crash, find the old content or the new.

        A link or FIFO in its place is replaced, not followed; another hard link keeps the old content. A regular
        file's mode (0777) is kept. Content and name are on the disk when this returns.

        Raises:
            TooLargeError: `data` is longer than `limit_bytes`; nothing was written.
            ConflictError: There is a folder at `path`, a file where a folder must be, or modes forbid it.
            FileMissingError: A folder on the way is missing and `parents` is false.
        """
        raw = check_path(path)
        with translated(path):
            self._check()
            folder, name = self._parent(raw, make=parents)
            try:
                mode = _mode_to_keep(folder, name, path)
                with unfinished(self._temp) as (fd, temporary):
                    _fill(fd, data, limit_bytes)
                    self._settle(fd, mode)
                    os.fsync(fd)
                    self._check()
                    os.rename(temporary, name, src_dir_fd=self._temp, dst_dir_fd=folder)
                    os.fsync(folder)
                    return File.of(path, os.fstat(fd))
            finally:
                os.close(folder)

    def mkdir(self, path: str, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Make a folder.

        Raises:
            AlreadyExistsError: It is there and `exist_ok` is false, or is no folder.
            ConflictError: There is a file where a folder must be, or modes forbid it.
            FileMissingError: A folder on the way is missing and `parents` is false.
        """
        raw = check_path(path)
        with translated(path):
            self._check()
            folder, name = self._parent(raw, make=parents)
            try:
                self._make(folder, name)
            except FileExistsError as error:
                what = kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
                if what != "folder" or not exist_ok:
                    raise AlreadyExistsError(
                        f"there is a {what} at {path[:160]!r}", field="path", remedy="use another name"
                    ) from error
            finally:
                os.close(folder)

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file, a link (not what it points to) or a folder.

        Raises:
            FileMissingError: There is nothing.
            ConflictError: The folder is not empty and `recursive` is false, a mode forbids it, or a process keeps
                filling it; with `recursive` a part may be gone.
        """
        raw = check_path(path)
        with translated(path):
            self._check()
            folder, name = self._parent(raw)
            try:
                if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=folder)
                elif recursive:
                    remove(folder, name)
                else:
                    os.rmdir(name, dir_fd=folder)
            finally:
                os.close(folder)

    def usage(self) -> Usage:
        """Return what the workspace takes on the disk, at any depth; approximate while a process writes.

        It counts no more than `limits.USAGE_NAMES` names. Folders that this process may not read count as empty,
        which does not happen to a root server.
        """
        with translated(self._name):
            self._check()
            counter = Counter()
            counter.run(self._root)
        return counter.usage()

    def _check(self) -> None:
        """Refuse to work on a folder that is not the workspace any more: files written there would be lost."""
        try:
            info = os.stat(self._name, dir_fd=self._above, follow_symlinks=False)
            if (info.st_dev, info.st_ino) == self._identity:
                return
        except FileNotFoundError:
            pass
        raise ConflictError(
            f"the workspace folder {self._name!r} was moved away or replaced", remedy="look whether it is in the trash"
        )

    def _foreign(self, info: os.stat_result) -> bool:
        # Where fs.protected_hardlinks is off, a session could link any file of the disk and have a root server read it.
        return self._owner is not None and info.st_nlink > 1 and info.st_uid != self._owner

    def _parent(self, raw: bytes, *, make: bool = False) -> tuple[int, bytes]:
        """Open the folder that `raw` is in; return its descriptor and the last name."""
        above, _, name = raw.rpartition(b"/")
        try:
            return open_beneath(self._root, above or b".", _FOLDER), name
        except FileNotFoundError:
            if not make:
                raise
        except NotADirectoryError as error:
            if make:
                raise ConflictError(
                    f"{decode(above)[:160]!r} is not a folder", field="path", remedy="use another name"
                ) from error
            raise
        return self._make_all(above), name

    def _make_all(self, raw: bytes) -> int:
        fd = open_beneath(self._root, b".", _FOLDER)
        parts = raw.split(b"/")
        for count, name in enumerate(parts, 1):
            try:
                # From the root, not from the folder before: a link on the way may point upwards, within the workspace.
                below = self._open_or_make(fd, name, b"/".join(parts[:count]))
            finally:
                os.close(fd)
            fd = below
        return fd

    def _open_or_make(self, folder: int, name: bytes, raw: bytes) -> int:
        try:
            return open_beneath(self._root, raw, _FOLDER)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another writer was first
                self._make(folder, name)
            return open_beneath(self._root, raw, _FOLDER)

    def _make(self, folder: int, name: bytes) -> None:
        os.mkdir(name, 0o700, dir_fd=folder)
        fd = os.open(name, _ROOT, dir_fd=folder)
        try:
            self._settle(fd, _FOLDER_MODE)
        finally:
            os.close(fd)

    def _settle(self, fd: int, mode: int) -> None:
        """Give what this call has made to the session; by descriptor, because the name may be a link by now."""
        os.fchmod(fd, mode)
        if self._owner is not None:
            os.fchown(fd, self._owner, self._owner)


def _mode_to_keep(folder: int, name: bytes, path: str) -> int:
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return _FILE_MODE
    if stat.S_ISDIR(mode):
        raise ConflictError(f"{path[:160]!r} is a folder", field="path", remedy="use another name")
    return mode & 0o777 if stat.S_ISREG(mode) else _FILE_MODE


def _fill(fd: int, data: bytes | Iterable[bytes], limit_bytes: int) -> None:
    size = 0
    for chunk in (data,) if isinstance(data, bytes) else data:
        size += len(chunk)
        if size > limit_bytes:
            raise TooLargeError(
                f"the content is longer than {limit_bytes} bytes",
                field="data",
                limit=limit_bytes,
                remedy="split the file, or make it with a run",
            )
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]
