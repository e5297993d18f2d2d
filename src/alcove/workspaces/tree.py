"""Every access to a file of a workspace.

A tree holds the folder itself, not its path: no link, rename or race in the session's hands leads a call out of it.
Everything here blocks and is safe to call from several threads; it knows no database and no session.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Self, final

from alcove import limits
from alcove.errors import AlreadyExistsError, ConflictError, InvalidError, TooLargeError
from alcove.workspaces.failures import translate, translated
from alcove.workspaces.model import Condition, File, Listing, Usage, kind
from alcove.workspaces.openat2 import open_beneath
from alcove.workspaces.packing import pack
from alcove.workspaces.paths import check_path
from alcove.workspaces.pinned import FILE_MODE, Pinned
from alcove.workspaces.remove import remove
from alcove.workspaces.renaming import rename_new
from alcove.workspaces.survey import Counter, Lister
from alcove.workspaces.temp import unfinished
from alcove.workspaces.unpacking import Extraction, staged
from alcove.workspaces.walk import identity

# A FIFO without a writer would block the thread for ever, a terminal could become ours.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_CHUNK = limits.MIB


class Tree:
    """The files of one workspace. Paths are relative to it, one spelling each: see `paths.check_path`.

    Raises (every method):
        ConflictError: The workspace's folder was moved away or replaced since the tree was opened.
        InvalidError: The path cannot be one, or passes a link that leads out of the workspace.
        StorageError: The disk is full, read-only or broken.
    """

    def __init__(self, above: int, name: str, temp: int, *, owner: int | None = None) -> None:
        """Pin the folder `name`, in the folder open as `above`: see `Pinned`."""
        self._pinned = Pinned(above, name, temp, owner=owner)

    def close(self) -> None:
        """Let go of the folder; no other call may be under way."""
        self._pinned.close()

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
            self._pinned.check()
            top = self._pinned.folder(raw)
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
            self._pinned.check()
            folder, name = self._pinned.parent(raw)
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
            self._pinned.check()
            fd = open_beneath(self._pinned.root, raw, _READ)
            info = os.fstat(fd)
        what = kind(info.st_mode)
        if what == "file" and not self._pinned.foreign(info):
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
        try:
            if file.size_bytes <= limit_bytes:
                # One call that asks for a byte more than there should be, so that most files are read by it alone.
                content = os.read(fd, min(file.size_bytes, _CHUNK) + 1)
                if 0 < len(content) == file.size_bytes:
                    return content
                whole = bytearray(content)
                while content and len(whole) <= limit_bytes:
                    content = os.read(fd, min(_CHUNK, limit_bytes + 1 - len(whole)))
                    whole += content
                if len(whole) <= limit_bytes:
                    return bytes(whole)
        except OSError as error:
            raise translate(error, path) from error
        finally:
            os.close(fd)
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
        condition: Condition | None = None,
    ) -> File:
        """Make or replace a file as a whole: readers, and a crash, find the old content or the new.

        A link or FIFO in its place is replaced, not followed; another hard link keeps the old content. A regular
        file's mode (0777) is kept. Content and name are on the disk when this returns.

        Raises:
            TooLargeError: `data` is longer than `limit_bytes`; nothing was written.
            ConflictError: There is a folder at `path`, a file where a folder must be, or modes forbid it.
            FileMissingError: A folder on the way is missing and `parents` is false.
            VersionMismatchError: What is at `path` is not as `condition` asks.
        """
        check_path(path)
        with self.receive(limit_bytes) as incoming, translated(path):
            for chunk in (data,) if isinstance(data, bytes) else data:
                incoming.add(chunk)
            return self.put(incoming, path, parents=parents, condition=condition)

    @contextmanager
    def receive(self, limit_bytes: int = limits.UPLOAD_BYTES) -> Generator[Incoming]:
        """Open a file out of the session's sight, to be filled and `put`; what was not put is removed at the end."""
        with translated("a new file"), unfinished(self._pinned.temp) as (fd, name):
            yield Incoming(fd, name, limit_bytes)

    def put(self, incoming: Incoming, path: str, *, parents: bool = True, condition: Condition | None = None) -> File:
        """Give what was received its place, once: see `write`, whose second half this is."""
        raw = check_path(path)
        with translated(path):
            self._pinned.check()
            if condition:  # before a folder is made for it
                condition.check(path, self._present(raw, path))
            folder, name = self._pinned.parent(raw, make=parents)
            try:
                found = _find(folder, name, path)
                self._pinned.settle(incoming.fd, _mode_to_keep(found, path))
                os.fsync(incoming.fd)
                self._pinned.check()
                os.rename(incoming.name, name, src_dir_fd=self._pinned.temp, dst_dir_fd=folder)
                os.fsync(folder)
                return File.of(path, os.fstat(incoming.fd))
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
            self._pinned.check()
            folder, name = self._pinned.parent(raw, make=parents)
            try:
                self._pinned.make(folder, name)
            except FileExistsError as error:
                what = kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
                if what != "folder" or not exist_ok:
                    raise _taken(what, path) from error
            finally:
                os.close(folder)

    def delete(self, path: str, *, recursive: bool = False, condition: Condition | None = None) -> None:
        """Delete a file, a link (not what it points to) or a folder.

        Raises:
            FileMissingError: There is nothing.
            ConflictError: The folder is not empty and `recursive` is false, a mode forbids it, or a process keeps
                filling it; with `recursive` a part may be gone.
            VersionMismatchError: What is at `path` is not as `condition` asks.
        """
        raw = check_path(path)
        with translated(path):
            self._pinned.check()
            folder, name = self._pinned.parent(raw)
            try:
                info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if condition:
                    condition.check(path, File.of(path, info))
                if not stat.S_ISDIR(info.st_mode):
                    os.unlink(name, dir_fd=folder)
                elif recursive:
                    remove(folder, name)
                else:
                    os.rmdir(name, dir_fd=folder)
            finally:
                os.close(folder)

    def move(self, path: str, to: str, *, replace: bool = False, condition: Condition | None = None) -> File:
        """Give a file, link or folder another path, in one step; folders missing on the way to it are made.

        Args:
            path: What to move; a link itself, not what it points to.
            to: Its whole new path, not the folder to put it into.
            replace: Replace what is not a folder there, or an empty folder by a folder.
            condition: What must be true of `path`.

        Returns:
            What is at `to` now.

        Raises:
            FileMissingError: There is nothing at `path`.
            AlreadyExistsError: There is something at `to`, and `replace` is false or does not help.
            InvalidError: A folder was to be moved into itself.
            ConflictError: There is a file where a folder must be, or modes forbid it.
            VersionMismatchError: What is at `path` is not as `condition` asks.
        """
        raw, target = check_path(path), check_path(to, field="to")
        if target.startswith(raw + b"/"):
            raise InvalidError(f"{path[:160]!r} cannot be moved into itself", field="to", remedy="use another name")
        with translated(path):
            self._pinned.check()
            source, name = self._pinned.parent(raw)
            try:
                info = os.stat(name, dir_fd=source, follow_symlinks=False)
                if condition:
                    condition.check(path, File.of(path, info))
                with translated(to):
                    self._move(source, name, info, target, to, replace=replace)
                os.fsync(source)
            finally:
                os.close(source)
        return self.stat(to)

    def _present(self, raw: bytes, path: str) -> File | None:
        try:
            folder, name = self._pinned.parent(raw)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            found = _find(folder, name, path)
        finally:
            os.close(folder)
        return None if found is None else File.of(path, found)

    def _move(self, source: int, name: bytes, info: os.stat_result, target: bytes, to: str, *, replace: bool) -> None:
        folder, new = self._pinned.parent(target, make=True)
        try:
            found = _find(folder, new, to)
            if found is None:
                rename_new(source, name, folder, new)
            elif (found.st_dev, found.st_ino) == (info.st_dev, info.st_ino):
                # rename(2) does nothing between two links of one file, and says that it has.
                if identity(source) != identity(folder) or name != new:
                    os.unlink(name, dir_fd=source)
            elif not replace or stat.S_ISDIR(found.st_mode) != stat.S_ISDIR(info.st_mode):
                raise _taken(kind(found.st_mode), to)
            else:
                os.rename(name, new, src_dir_fd=source, dst_dir_fd=folder)
            os.fsync(folder)
        except OSError as error:
            if error.errno in {errno.EEXIST, errno.ENOTEMPTY}:
                raise _taken("folder that is not empty" if replace else "name", to) from error
            raise
        finally:
            os.close(folder)

    def archive(self, path: str = "") -> Generator[bytes]:
        """Yield a tar.gz of a folder, by default the whole workspace: see `packing.pack`."""
        return pack(self._pinned, path)

    def stage(self, path: str = "", *, skip: bool = False) -> AbstractContextManager[Extraction]:
        """Begin to take a tar archive apart out of the session's sight: see `unpacking.Extraction`."""
        return staged(self._pinned, path, skip=skip)

    def usage(self) -> Usage:
        """Return what the workspace takes on the disk, at any depth; approximate while a process writes.

        It counts no more than `limits.USAGE_NAMES` names. Folders that this process may not read count as empty,
        which does not happen to a root server.
        """
        with translated(self._pinned.name):
            self._pinned.check()
            counter = Counter()
            counter.run(self._pinned.root)
        return counter.usage()


@final
class Incoming:
    """A file that is being received.

    Attributes:
        fd: Its descriptor.
        name: Its name among the unfinished files.
        size_bytes: What it has so far.
    """

    def __init__(self, fd: int, name: str, limit_bytes: int) -> None:
        self.fd = fd
        self.name = name
        self.size_bytes = 0
        self._limit_bytes = limit_bytes

    def add(self, chunk: bytes) -> None:
        """Append to it.

        Raises:
            TooLargeError: It would be longer than its limit.
            OSError: The disk could not take it.
        """
        self.size_bytes += len(chunk)
        if self.size_bytes > self._limit_bytes:
            raise TooLargeError(
                f"the content is longer than {self._limit_bytes} bytes",
                field="data",
                limit=self._limit_bytes,
                remedy="split the file, or make it with a run",
            )
        view = memoryview(chunk)
        while view:
            view = view[os.write(self.fd, view) :]

    def sync(self) -> None:
        """Bring it to the disk, before somebody waits for that under a lease."""
        with translated("a new file"):
            os.fsync(self.fd)


def _find(folder: int, name: bytes, path: str) -> os.stat_result | None:
    with translated(path), suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


def _mode_to_keep(found: os.stat_result | None, path: str) -> int:
    if found is None:
        return FILE_MODE
    if stat.S_ISDIR(found.st_mode):
        raise ConflictError(f"{path[:160]!r} is a folder", field="path", remedy="use another name")
    return found.st_mode & 0o777 if stat.S_ISREG(found.st_mode) else FILE_MODE


def _taken(what: str, path: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"there is a {what} at {path[:160]!r}", field="path", remedy="use another name")
