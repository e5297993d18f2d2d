"""Makes a tar.gz of a folder of a workspace, piece by piece, while others may be changing it."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Generator, Iterator

from alcove import limits
from alcove.errors import ConflictError, InvalidError, TooLargeError
from alcove.workspaces.failures import translate, translated
from alcove.workspaces.openat2 import open_beneath
from alcove.workspaces.paths import check_path, decode
from alcove.workspaces.pinned import Pinned
from alcove.workspaces.tar import BLOCK
from alcove.workspaces.walk import Walk

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
_LEVEL = 1  # three times as fast as the default, for a tenth more
_GZIP = 31  # what zlib calls a gzip header
END = bytes(2 * BLOCK)


def pack(pinned: Pinned, path: str) -> Generator[bytes]:
    """Yield a tar.gz of a folder, `''` for the whole workspace.

    Files, folders and links as they are, with modes and times, by paths relative to the folder; no owner. FIFOs,
    sockets and devices are left out. It is not a snapshot: what changes meanwhile is taken as it is found, a file that
    grows up to the length that it had. Nothing else is left out: an archive that cannot be whole ends in an error.
    Holds one name list and one piece in memory.

    Raises:
        FileMissingError: There is no such folder.
        ConflictError: A file may not be read, or became shorter while it was.
        InvalidError: A path is too long or too deep to be reached; a file is somebody else's, hard-linked.
        TooLargeError: More than `limits.ARCHIVE_NAMES` names or `limits.ARCHIVE_BYTES` of content, holes included.
        StorageError: Something is mounted inside, or the disk failed.
    """
    raw = check_path(path) if path else b""
    with translated(path):
        pinned.check()
        top = pinned.folder(raw)
    try:
        yield from _Packing(pinned).pieces(top)
    finally:
        os.close(top)


def header(path: str, info: os.stat_result, *, size: int = 0, target: str = "") -> bytes:
    """Return what stands before a file, folder or link in an archive; `END` ends one.

    Args:
        path: As it is to be in the archive.
        info: Tells kind, mode and time. No owner, which is nobody's elsewhere, and no bit that gives rights to whoever
            unpacks it.
        size: Bytes of a file; that many follow, and zeros up to the end of the last block.
        target: Of a link.
    """
    import tarfile  # late: it brings every compression along, and only its way of writing a header is used

    one = tarfile.TarInfo(path)
    kinds = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFREG: tarfile.REGTYPE}
    one.type, one.size, one.linkname = kinds[stat.S_IFMT(info.st_mode)], size, target
    one.mode = stat.S_IMODE(info.st_mode) & 0o777
    one.mtime = max(0, int(info.st_mtime))
    return one.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def member(path: str, fd: int, info: os.stat_result | None = None) -> Iterator[bytes]:
    """Yield a regular file, open as `fd`, as it stands in an archive: header, content and padding. Blocks.

    Raises:
        ConflictError: It became shorter than it was when this began.
    """
    info = info or os.fstat(fd)
    yield header(path, info, size=info.st_size)
    left = info.st_size
    while left:
        chunk = os.read(fd, min(left, limits.SEND_BYTES))
        if not chunk:
            raise ConflictError(f"{path[:160]!r} became shorter while it was read", remedy="try again")
        left -= len(chunk)
        yield chunk
    yield bytes(-info.st_size % BLOCK)


class _Packing(Walk):
    def __init__(self, pinned: Pinned) -> None:
        super().__init__(limits.ARCHIVE_NAMES)
        self._pinned = pinned
        self._entries: list[tuple[bytes, os.stat_result]] = []
        self._zip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        self._ready = bytearray()
        self._left_bytes = limits.ARCHIVE_BYTES

    def pieces(self, top: int) -> Iterator[bytes]:
        for folder in self.steps(top):
            for name, info in self._entries:
                yield from self._add(folder, name, info)
        if not self.complete:
            raise TooLargeError(
                f"the folder has more than {limits.ARCHIVE_NAMES} names",
                field="path",
                limit=limits.ARCHIVE_NAMES,
                remedy="archive its folders one by one",
            )
        self._ready += self._zip.compress(END) + self._zip.flush()
        yield bytes(self._ready)

    def visit(self, fd: int) -> list[bytes]:
        self._entries.clear()
        below: list[bytes] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if not self.look():
                    return []
                name = os.fsencode(entry.name)
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                self._entries.append((name, info))
                if stat.S_ISDIR(info.st_mode):
                    below.append(name)
        self._entries.sort(key=lambda pair: pair[0])
        below.sort(reverse=True)
        path = self._path(max((name for name, _ in self._entries), key=len, default=b""))
        if len(path) > limits.PATH_BYTES or (below and len(self.trail) >= limits.TREE_DEPTH):
            raise InvalidError(
                f"{decode(path[:160])!r} is too long or too deep for an archive",
                field="path",
                remedy="make the archive from inside the session",
            )
        return below

    def refused(self, name: bytes, error: OSError) -> None:
        raise translate(error, decode(self._path(name))) from error

    def _path(self, name: bytes) -> bytes:
        return b"/".join((*self.trail, name))

    def _add(self, folder: int, name: bytes, info: os.stat_result) -> Iterator[bytes]:
        path = decode(self._path(name))
        with translated(path):
            if stat.S_ISDIR(info.st_mode):
                yield from self._head(path, info)
            elif stat.S_ISLNK(info.st_mode):
                try:
                    target = decode(os.readlink(name, dir_fd=folder))
                except FileNotFoundError:
                    return
                yield from self._head(path, info, target=target)
            elif stat.S_ISREG(info.st_mode):
                try:
                    fd = open_beneath(folder, name, _READ, links=False, mounts=False)
                except FileNotFoundError:
                    return
                try:
                    yield from self._file(fd, path)
                finally:
                    os.close(fd)

    def _file(self, fd: int, path: str) -> Iterator[bytes]:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or self._pinned.foreign(info):
            raise InvalidError(
                f"{path[:160]!r} is no regular file of the session",
                field="path",
                remedy="remove it, or archive a folder",
            )
        self._left_bytes -= info.st_size
        if self._left_bytes < 0:
            raise TooLargeError(
                f"the folder has more than {limits.ARCHIVE_BYTES} bytes in its files",
                field="path",
                limit=limits.ARCHIVE_BYTES,
                remedy="archive its folders one by one",
            )
        for piece in member(path, fd, info):
            yield from self._pressed(piece)

    def _head(self, path: str, info: os.stat_result, *, target: str = "") -> Iterator[bytes]:
        yield from self._pressed(header(path, info, target=target))

    def _pressed(self, data: bytes) -> Iterator[bytes]:
        self._ready += self._zip.compress(data)
        if len(self._ready) >= limits.SEND_BYTES:
            yield bytes(self._ready)
            self._ready.clear()
