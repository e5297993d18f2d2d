"""Copies files between two places, each of which is here or in a session."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final, NamedTuple, final

import click

from alcove import limits
from alcove.cli import output
from alcove.errors import ConflictError, FileMissingError, InvalidError
from alcove.workspaces.inflating import Plain
from alcove.workspaces.packing import END, member
from alcove.workspaces.paths import check_path, decode
from alcove.workspaces.service import Workspaces
from alcove.workspaces.tar import members

if TYPE_CHECKING:
    from alcove.cli.remote import RemoteWorkspaces

Steps = Callable[[int], None]
_BATCH_FILES: Final = 5000
_BATCH_BYTES: Final = 1024 * limits.MIB  # and one file, however long


class Found(NamedTuple):
    """What is to be copied.

    Attributes:
        folder: Whether it is a folder.
        files: Paths below it and their sizes; of a file the one path `''`.
        left_out: Paths of what is neither file nor folder.
    """

    folder: bool
    files: list[tuple[str, int]]
    left_out: list[str]


class Copied(NamedTuple):
    """What was copied."""

    files: int
    size_bytes: int
    left_out: list[str]


class Place(ABC):
    """One side of a copy.

    Attributes:
        name: What a copy is called in a folder; `''` for what is in a folder rather than itself.
        into: Whether it was written as a folder, with a `/` at its end.
    """

    name: str
    into: bool

    @abstractmethod
    async def find(self) -> Found:
        """Return what is there. Raises FileMissingError when nothing is."""

    @abstractmethod
    async def is_folder(self) -> bool:
        """Return whether there is a folder now."""

    @abstractmethod
    async def open(self, path: str) -> int:
        """Open a file at or below it for reading."""

    @abstractmethod
    async def write(self, path: str, pieces: Iterator[bytes]) -> None:
        """Make or replace a file at or below it."""


async def copy(source: Place, target: Place) -> Copied:
    """Copy a file, or a folder with all that is in it."""
    found = await source.find()
    prefix = source.name if target.into or await target.is_folder() else ""
    total = sum(size for _, size in found.files)
    with output.progress(source.name or "copying", total) as step:
        if found.folder and isinstance(source, Here) and isinstance(target, There):
            for batch in _batches(found.files):
                await target.extract(prefix, source.packed(batch, step))
            return Copied(len(found.files), total, found.left_out)
        if found.folder and isinstance(source, There) and isinstance(target, Here) and total <= limits.ARCHIVE_BYTES:
            with tempfile.TemporaryFile() as archive:
                if await source.fetch(archive, step):
                    return await _unpack(archive, target, prefix, found)
        return await _one_by_one(source, target, prefix, found, step)


async def _one_by_one(source: Place, target: Place, prefix: str, found: Found, step: Steps) -> Copied:
    copied = 0

    def count(size_bytes: int) -> None:
        nonlocal copied
        copied += size_bytes
        step(size_bytes)

    for path, _ in found.files:
        if path:
            # A listing may come from a server that means harm.
            check_path(path)
        fd = await source.open(path)
        with os.fdopen(fd, "rb", buffering=0):
            await target.write("/".join(filter(None, (prefix, path))), _pieces(fd, count))
    return Copied(len(found.files), copied, found.left_out)


async def _unpack(archive: IO[bytes], target: Place, prefix: str, found: Found) -> Copied:
    files = copied = 0
    archive.seek(0)
    for one, pieces in members(archive.read):
        if one.kind == "file":
            # So may an archive.
            path = decode(check_path(decode(one.path)))
            await target.write("/".join(filter(None, (prefix, path))), pieces)
            files, copied = files + 1, copied + one.size_bytes
    return Copied(files, copied, found.left_out)


def _batches(files: list[tuple[str, int]]) -> Iterator[list[str]]:
    """Divide files into archives: what has come stays when a later one cannot be taken."""
    batch: list[str] = []
    size_bytes = 0
    for path, size in files:
        if batch and (len(batch) == _BATCH_FILES or size_bytes + size > _BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(path)
        size_bytes += size
    if batch:
        yield batch


def is_session(argument: str) -> bool:
    """Return whether an argument names something in a session: a colon comes before any slash."""
    head, colon, _ = argument.partition(":")
    return bool(colon) and bool(head) and "/" not in head and head != "."


def _pieces(fd: int, step: Steps) -> Iterator[bytes]:
    while piece := os.read(fd, limits.SEND_BYTES):
        step(len(piece))
        yield piece


@final
class There(Place):
    """A path in a session's workspace; `''` for the workspace itself."""

    def __init__(self, workspaces: Workspaces | RemoteWorkspaces, session_id: str, path: str) -> None:
        self._workspaces = workspaces
        self._session_id = session_id
        self.into = path == "" or path.endswith(("/", "/.")) or path == "."
        contents = path in {"", "."} or path.endswith("/.")
        self._path = path.removesuffix("/.").strip("/") if path != "." else ""
        if self._path:
            check_path(self._path)
        self.name = "" if contents else self._path.rpartition("/")[2]

    async def find(self) -> Found:
        """Return what is there, of a folder as much as a listing has."""
        listing = await self._workspaces.list_files(self._session_id)
        if listing.truncated:
            output.warn("the session has more files than can be listed: not all are copied")
        above = f"{self._path}/" if self._path else ""
        files: list[tuple[str, int]] = []
        left_out: list[str] = []
        for file in listing.files:
            if file.path == self._path and file.kind == "file":
                return Found(False, [("", file.size_bytes)], [])
            if file.path.startswith(above):
                below = file.path.removeprefix(above)
                if file.kind == "file":
                    files.append((below, file.size_bytes))
                else:
                    left_out.append(file.path)
        if self._path and not files and not left_out:
            raise FileMissingError(
                f"there is no {self._path!r} in the workspace, or nothing in it",
                field="path",
                remedy=f"`alcove files {self._session_id}` lists what there is",
            )
        return Found(True, files, left_out)

    async def is_folder(self) -> bool:
        """Return whether there is a folder with something in it."""
        if not self._path:
            return True
        listing = await self._workspaces.list_files(self._session_id)
        return any(file.path.startswith(f"{self._path}/") for file in listing.files)

    async def fetch(self, archive: IO[bytes], step: Steps) -> bool:
        """Fill a file with a tar of the folder, when that comes over a network; return whether it did.

        An archive breaks off where a file cannot be read. Files that are fetched one by one say what is the matter.
        """
        if isinstance(self._workspaces, Workspaces):
            return False
        from alcove.cli.wire import UnreachableError  # late: a copy within this machine needs no network

        plain = Plain(ratio=None)
        try:
            async for piece in self._workspaces.archive(self._session_id, self._path):
                for part in plain.pieces(piece):
                    archive.write(part)
                    step(len(part))
            plain.finish()
        except (InvalidError, UnreachableError):
            return False
        return True

    async def extract(self, path: str, tar: Iterator[bytes]) -> None:
        """Put what is in an archive into a folder at or below it: all of it or nothing."""
        whole = "/".join(filter(None, (self._path, path)))
        await self._workspaces.extract(self._session_id, tar, whole, replace=True)

    async def open(self, path: str) -> int:
        """Open a file."""
        fd, _ = await self._workspaces.open_read(self._session_id, self._at(path))
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    async def write(self, path: str, pieces: Iterator[bytes]) -> None:
        """Make or replace a file, as a whole."""
        await self._workspaces.write(self._session_id, self._at(path), pieces)

    def _at(self, path: str) -> str:
        whole = "/".join(filter(None, (self._path, path)))
        if not whole:
            raise InvalidError("the file has no name there", field="path", remedy="write ID:NAME")
        return whole


@final
class Here(Place):
    """A path on this machine; `-` for standard input and output."""

    def __init__(self, path: str) -> None:
        self._stream = path == "-"
        self._path = path
        self.into = path.endswith(("/", "/.")) or path in {".", ".."}
        contents = path == "." or path.endswith("/.")
        self.name = "" if contents or self._stream else os.path.basename(os.path.abspath(path))

    async def find(self) -> Found:
        """Return what is there; links are not followed below the path itself."""
        if self._stream:
            return Found(False, [("", 0)], [])
        return _found(self._path)

    async def is_folder(self) -> bool:
        """Return whether there is a folder."""
        return not self._stream and _is_folder(self._path)

    def packed(self, paths: list[str], step: Steps) -> Iterator[bytes]:
        """Yield a tar of files below it; blocks."""
        for path in paths:
            with os.fdopen(self._open(path), "rb", buffering=0) as file:
                for piece in member(path, file.fileno()):
                    yield piece
                    step(len(piece))
        yield END

    async def open(self, path: str) -> int:
        """Open a file; one that is a pipe is read to its end."""
        if self._stream:
            with tempfile.TemporaryFile() as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
                file.seek(0)
                return os.dup(file.fileno())
        return self._open(path)

    def _open(self, path: str) -> int:
        try:
            return os.open(os.path.join(self._path, path) if path else self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _failed(self._path, error) from error

    async def write(self, path: str, pieces: Iterator[bytes]) -> None:
        """Make or replace a file, as a whole: what is there stays until the new one is complete."""
        if self._stream:
            for piece in pieces:
                click.echo(piece, nl=False)
            return
        try:
            _write(self._path, path, pieces, make=self.into or path != "")
        except OSError as error:
            raise _failed(self._path, error) from error


def _is_folder(path: str) -> bool:
    return os.path.isdir(path)


def _found(path: str) -> Found:
    try:
        info = os.stat(path)
    except OSError as error:
        raise _failed(path, error) from error
    if not stat.S_ISDIR(info.st_mode):
        return Found(False, [("", info.st_size)], [])
    found = Found(True, [], [])
    for folder, folders, names in os.walk(path):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted(names + links):
            place = os.path.join(folder, name)
            info = os.lstat(place)
            if stat.S_ISREG(info.st_mode):
                found.files.append((decode(os.fsencode(os.path.relpath(place, path))), info.st_size))
            else:
                found.left_out.append(place)
    return found


def _write(top: str, path: str, pieces: Iterator[bytes], *, make: bool) -> None:
    target = os.path.join(top, path) if path else top
    folder = os.path.dirname(os.path.abspath(target))
    if make:
        _make_below(os.path.realpath(top), folder)
    if os.path.isdir(target):
        raise ConflictError(f"{target} is a folder", field="path", remedy="name a file, or end it with '/'")
    _replace(target, folder, pieces)


def _make_below(top: str, folder: str) -> None:
    """Make a folder in the target; a link in the target must not lead a session's file out of it."""
    missing: list[str] = []
    while not os.path.isdir(folder):
        folder, _, name = folder.rpartition("/")
        missing.append(name)
    real = os.path.realpath(folder)
    if os.path.isdir(top) and os.path.commonpath((real, top)) != top:
        raise ConflictError(f"{folder} is a link that leads out of {top}", field="path", remedy="remove the link")
    os.makedirs(os.path.join(folder, *reversed(missing)), exist_ok=True)


def _replace(target: str, folder: str, pieces: Iterator[bytes]) -> None:
    fd, temporary = tempfile.mkstemp(prefix=".alcove-", dir=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.writelines(pieces)
            os.fchmod(file.fileno(), 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _failed(path: str, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FileMissingError(f"there is no {path!r} here", field="path", remedy="look at the path")
    return click.FileError(path, error.strerror)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
