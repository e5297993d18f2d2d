"""Takes a tar archive apart out of the session's sight, and only when all of it is right gives it its place.

Nothing of an archive is believed: every name is checked as a path from outside is, every folder on the way is opened
by openat2 without following links, owners and rights beyond rwx are dropped, and counts and sizes are bounded while
they come. Bytes go in as they arrive (`feed`), so that a slow sender holds no thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from typing import final

from alcove import limits
from alcove.errors import ConflictError, InvalidError, TooLargeError
from alcove.workspaces.failures import translated
from alcove.workspaces.inflating import Plain
from alcove.workspaces.model import Extracted, Usage, kind
from alcove.workspaces.openat2 import open_beneath
from alcove.workspaces.paths import check_path, decode
from alcove.workspaces.pinned import FOLDER, FOLDER_MODE, Pinned
from alcove.workspaces.placing import Placing
from alcove.workspaces.renaming import rename_new
from alcove.workspaces.tar import Headers, Need, Packed, Source
from alcove.workspaces.temp import unfinished_folder

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def staged(pinned: Pinned, path: str, *, skip: bool) -> Generator[Extraction]:
    """Give an extraction into the folder `path`; what was not placed by the end is removed."""
    raw = check_path(path) if path else b""
    with translated("an archive"), unfinished_folder(pinned.temp) as (fd, name):
        extraction = Extraction(pinned, fd, name, raw, skip=skip)
        try:
            yield extraction
        finally:
            extraction.close()


class _OffenceError(Exception):
    """A member that may not be in a workspace; the reason is its text."""


@final
class Extraction:
    """One archive on its way in: `feed` what comes, `finish`, then `place`. Blocks; one thread at a time."""

    def __init__(self, pinned: Pinned, stage: int, name: str, raw: bytes, *, skip: bool) -> None:
        """Begin.

        Args:
            pinned: The workspace.
            stage: Descriptor of an empty folder on the same file system.
            name: Its name among the unfinished files.
            raw: Where it is to go, `b""` for the workspace itself.
            skip: Leave out what may not be in a workspace, instead of refusing the archive for it.
        """
        self._pinned, self._stage, self._name, self._raw, self._skip = pinned, stage, name, raw, skip
        self._source = Source()
        self._plain = Plain()
        self._work = self._members()
        self._at = (b"", os.dup(stage))  # the folder of the last member, and its descriptor
        self._names = self._files = self._folders = self._size_bytes = self._skipped_count = 0
        self._skipped: list[str] = []
        next(self._work)

    @property
    def taken(self) -> Usage:
        """What has come out of it so far."""
        return Usage(size_bytes=self._size_bytes, files=self._files)

    def close(self) -> None:
        """Let go of the descriptors."""
        self._work.close()
        os.close(self._at[1])
        self._at = (b"", -1)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the archive, gzipped or not.

        Raises:
            InvalidError: It is no archive, or a damaged one; or something in it may not be in a workspace.
            TooLargeError: It is, or becomes, too large or too much: see `limits.ARCHIVE_BYTES` and those below.
            StorageError: The disk could not take it.
        """
        for piece in self._plain.pieces(data):
            self._source.add(piece)
            with translated("an archive"):
                next(self._work, None)

    def finish(self) -> Extracted:
        """Say that no more comes; everything is on the disk then. Raises what `feed` does."""
        self._plain.finish()
        self._source.ended = True
        with translated("an archive"):
            next(self._work, None)
            _flush(self._stage)
        return Extracted(
            files=self._files,
            folders=self._folders,
            size_bytes=self._size_bytes,
            skipped=tuple(self._skipped),
            skipped_count=self._skipped_count,
        )

    def place(self, *, replace: bool = False) -> None:
        """Give everything its place. Into a folder that is not there yet it comes as a whole, in one step.

        Otherwise it is first compared with what is there, and then moved in name by name: when a process of the
        session changes the folder meanwhile, or the disk fails, a part may be in place.

        Args:
            replace: Replace files (and links) of the same path; folders are always shared.

        Raises:
            AlreadyExistsError: There is something of the same path; nothing was changed.
            ConflictError: A folder is in the way of a file, or the other way round; nothing was changed.
        """
        with translated(decode(self._raw) or self._pinned.name):
            self._pinned.check()
            top = self._settle()
            if top is None:
                return
            try:
                for apply in (False, True):
                    Placing(top, self._raw, replace=replace, apply=apply).run(self._stage)
                _flush(top)
            finally:
                os.close(top)

    def _settle(self) -> int | None:
        """Put the whole into its place, when that is free; else open the folder there."""
        if self._raw:
            folder, name = self._pinned.parent(self._raw, make=True)
            try:
                self._pinned.settle(self._stage, FOLDER_MODE)
                rename_new(self._pinned.temp, os.fsencode(self._name), folder, name)
                os.fsync(folder)
            except FileExistsError:
                pass
            else:
                return None
            finally:
                os.close(folder)
        try:
            return open_beneath(self._pinned.root, self._raw or b".", FOLDER, links=False)
        except NotADirectoryError as error:
            raise ConflictError(
                f"{decode(self._raw)[:160]!r} is not a folder", field="path", remedy="use another name"
            ) from error

    def _members(self) -> Generator[None]:
        yield  # until there is something to read
        headers = Headers(self._source)
        while (member := (yield from headers.next())) is not None:
            try:
                raw = _relative(member)
                file = self._make(raw, member) if raw else None
            except _OffenceError as offence:
                file = None
                self._refuse(member, str(offence))
            yield from self._content(file, member)
            yield from headers.padding(member.size_bytes)

    def _refuse(self, member: Packed, why: str) -> None:
        shown = member.path[:160].decode("utf-8", "replace")
        if not self._skip:
            raise InvalidError(
                f"the archive has {shown!r}, which {why}; nothing of it was taken",
                field="archive",
                remedy="make it without that, or take the rest of it with skip=True",
            )
        self._skipped_count += 1
        if len(self._skipped) < limits.SKIPPED_NAMES:
            self._skipped.append(f"{shown}: {why}")

    def _make(self, raw: bytes, member: Packed) -> int | None:
        """Make what a member stands for; return the descriptor of a file that waits for its content."""
        above, _, name = raw.rpartition(b"/")
        if member.kind == "folder":
            fd = self._folder(raw)
            os.fchmod(fd, 0o700 | (member.mode & 0o777))
            return None
        if member.kind not in {"file", "link", "hard link"}:
            raise _OffenceError(f"is a {member.kind}")
        if member.kind == "link":
            _check_target(member.target, above)
        folder = self._folder(above)
        self._count()
        try:
            if member.kind == "file":
                fd = os.open(name, _NEW, 0o600, dir_fd=folder)
                self._pinned.settle(fd, 0o600 | (member.mode & 0o777))
                self._files += 1
                return fd
            if member.kind == "link":
                self._symlink(member, folder, name)
            else:
                self._link(member, folder, name)
        except FileExistsError:
            raise _OffenceError("is in it twice") from None
        self._files += 1
        return None

    def _symlink(self, member: Packed, folder: int, name: bytes) -> None:
        os.symlink(member.target, name, dir_fd=folder)
        if self._pinned.owner is not None:
            os.chown(name, self._pinned.owner, self._pinned.owner, dir_fd=folder, follow_symlinks=False)
        if member.modified_ns is not None:
            times = (member.modified_ns, member.modified_ns)
            os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)

    def _link(self, member: Packed, folder: int, name: bytes) -> None:
        """Give a file of the same archive a second name: the only hard links that cannot reach anything else."""
        target = _relative(member._replace(path=member.target, kind="file"))
        above, _, old = target.rpartition(b"/")
        try:
            source = open_beneath(self._stage, above or b".", FOLDER, links=False)
            try:
                info = os.stat(old, dir_fd=source, follow_symlinks=False)
                if not stat.S_ISREG(info.st_mode):
                    raise _OffenceError(f"is a hard link to a {kind(info.st_mode)}")
                os.link(old, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(source)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK, errno.EISDIR}:
                raise
            raise _OffenceError("is a hard link to what is not in the archive before it") from None

    def _folder(self, raw: bytes) -> int:
        """Return the descriptor of a folder of the stage, made where it is missing; good until the next call."""
        at, fd = self._at
        if at == raw:
            return fd
        try:
            fd = open_beneath(self._stage, raw or b".", FOLDER, links=False)
        except FileNotFoundError:
            above, _, name = raw.rpartition(b"/")
            self._count()
            self._folders += 1
            self._pinned.make(self._folder(above), name)
            fd = open_beneath(self._stage, raw, FOLDER, links=False)
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise _OffenceError("lies below a file or link of the archive") from None
            raise
        os.close(self._at[1])
        self._at = (raw, fd)
        return fd

    def _count(self) -> None:
        self._names += 1
        if self._names > limits.ARCHIVE_NAMES:
            raise TooLargeError(
                f"the archive has more than {limits.ARCHIVE_NAMES} names, with the folders that they need",
                field="archive",
                limit=limits.ARCHIVE_NAMES,
                remedy="send it in parts",
            )

    def _content(self, file: int | None, member: Packed) -> Need[None]:
        left = member.size_bytes
        try:
            while left:
                piece = yield from self._source.some(left)
                left -= len(piece)
                self._size_bytes += len(piece) if file is not None else 0
                view = memoryview(piece)
                while file is not None and view:
                    view = view[os.write(file, view) :]
            if file is not None and member.modified_ns is not None:
                os.utime(file, ns=(member.modified_ns, member.modified_ns))
        finally:
            if file is not None:
                os.close(file)


def _relative(member: Packed) -> bytes:
    """Return the path of a member as `check_path` wants it, `b""` for the top itself."""
    raw = member.path
    while raw.startswith(b"./"):
        raw = raw[2:].lstrip(b"/")
    if member.kind == "folder":
        raw = raw.rstrip(b"/")
    if raw in {b"", b"."} and member.kind == "folder" and not member.path.startswith(b"/"):
        return b""
    if raw.count(b"/") >= limits.TREE_DEPTH:
        raise _OffenceError(f"is more than {limits.TREE_DEPTH} folders deep")
    try:
        return check_path(decode(raw))
    except InvalidError as error:
        raise _OffenceError(f"is no path in a folder: {error.remedy}") from None


def _check_target(target: bytes, above: bytes) -> None:
    """Refuse a link that leads out of the archive, however many other links it passes on its way.

    `..` may stand at the beginning only, and no more often than the link has folders above it. Each such link leads
    from a real folder up to the top at most, and from there down; so does every link that it passes.
    """
    parts = target.split(b"/")
    up = next((count for count, part in enumerate(parts) if part != b".."), len(parts))
    depth = above.count(b"/") + 1 if above else 0
    if not target or b"\0" in target or target.startswith(b"/") or up > depth or b".." in parts[up:]:
        raise _OffenceError("is a link that leads, or could lead, out of the folder")


def _flush(fd: int) -> None:
    """Bring the file system that `fd` is on to its disk: one call instead of one for each of many files."""
    if ctypes.CDLL(None, use_errno=True).syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
