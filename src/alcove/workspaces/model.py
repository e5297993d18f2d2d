"""The records of files. No I/O."""

from __future__ import annotations

import stat
from os import stat_result
from typing import Literal

import msgspec

from alcove.clock import Micros
from alcove.errors import VersionMismatchError

_FORMAT = 0o170000  # S_IFMT: as a number, because listings compare it ten thousand times
Kind = Literal["file", "folder", "link", "fifo", "socket", "device"]


class File(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing in a workspace, as it was when it was looked at.

    Attributes:
        path: Relative to the workspace, '/' between the parts; bytes that are not UTF-8 are U+DC80 to U+DCFF.
        kind: What it is. Only a `file` can be read.
        size_bytes: Length; a sparse file takes less room than this.
        modified_at: When its content last changed; whoever may write the file may set this to anything.
        inode: What tells it from other files of the disk that are there at the same time.
        changed_ns: When anything of it last changed, nanoseconds since the epoch; only the kernel sets this.
    """

    path: str
    kind: Kind
    size_bytes: int
    modified_at: Micros
    inode: int = 0
    changed_ns: int = 0

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def version(self) -> str:
        """Names this state of the file: another content has another one, as far as the kernel's clock can tell.

        Linux 6.13 and later give every change that somebody looked at a time of its own; older ones count in ticks of
        1 to 10 ms, within which a program that writes in place may change a file unseen.
        """
        return f"{self.inode:x}-{self.changed_ns:x}-{self.size_bytes:x}"

    @classmethod
    def of(cls, path: str, info: stat_result) -> File:
        """Return the record of `path` from what lstat or fstat said."""
        return cls(
            path=path,
            kind="file" if info.st_mode & _FORMAT == stat.S_IFREG else kind(info.st_mode),
            size_bytes=info.st_size,
            modified_at=info.st_mtime_ns // 1000,
            inode=info.st_ino,
            changed_ns=info.st_ctime_ns,
        )


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What must be true of a file for a change to be made: looked at under the lease, just before the change.

    Attributes:
        match: It has one of these versions; `"*"` stands for any file that is there. None asks nothing.
        none_match: It has none of these; `"*"` here means that there is nothing.
    """

    match: tuple[str, ...] | None = None
    none_match: tuple[str, ...] | None = None

    def check(self, path: str, found: File | None) -> None:
        """Compare with what is at `path`.

        Raises:
            VersionMismatchError: It is not as asked.
        """
        version = found.version if found else None
        if self.match is not None and not _among(version, self.match):
            raise _mismatch(path, "is not there" if found is None else "has another version", version)
        if self.none_match is not None and _among(version, self.none_match):
            raise _mismatch(path, "is there" if "*" in self.none_match else "has that version", version)


MISSING = Condition(none_match=("*",))
"""Nothing is there: a change with this creates, and never replaces."""


def _among(version: str | None, versions: tuple[str, ...]) -> bool:
    return version is not None and ("*" in versions or version in versions)


def _mismatch(path: str, what: str, version: str | None) -> VersionMismatchError:
    return VersionMismatchError(
        f"{path[:160]!r} {what}", field="path", remedy="read it again and decide", version=version
    )


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a folder, sorted by the bytes of their paths; folders themselves are not in it.

    Attributes:
        files: Regular files, and by their kind links, FIFOs, sockets and devices, none of which was opened.
        truncated: Whether something was left out: past a limit, in a folder that cannot be read, or in a mount.
            Which files are left out at a limit is not promised.
    """

    files: tuple[File, ...]
    truncated: bool


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a workspace takes.

    Attributes:
        size_bytes: Room on the disk, folders included and hard links once, as `du` counts.
        files: Everything that is not a folder.
    """

    size_bytes: int
    files: int


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt of a removal.

    Attributes:
        files: Names removed that were not folders.
        folders: Folders removed.
        size_bytes: Room given back to the disk; a file that has another link keeps its room.
    """

    files: int
    folders: int
    size_bytes: int

    def __add__(self, other: Removed) -> Removed:
        return Removed(
            files=self.files + other.files,
            folders=self.folders + other.folders,
            size_bytes=self.size_bytes + other.size_bytes,
        )


class Stray(msgspec.Struct, frozen=True):
    """A folder that may belong to nobody.

    Attributes:
        kind: `workspace`, `home` or `trashing`.
        name: Its name: of a session or a trashing, if it belongs to one.
        path: Absolute.
        changed_us: When its inode was last changed, microseconds since the epoch.
    """

    kind: str
    name: str
    path: str
    changed_us: int


def kind(mode: int) -> Kind:
    """Return what a `st_mode` says it is."""
    match stat.S_IFMT(mode):
        case stat.S_IFREG:
            return "file"
        case stat.S_IFDIR:
            return "folder"
        case stat.S_IFLNK:
            return "link"
        case stat.S_IFIFO:
            return "fifo"
        case stat.S_IFSOCK:
            return "socket"
        case _:
            return "device"


class Extracted(msgspec.Struct, frozen=True, kw_only=True):
    """The receipt of an extraction.

    Attributes:
        files: Files and links that came out of the archive.
        folders: Folders that it names, or that its files needed.
        size_bytes: Content of the files.
        skipped: Members left out because they may not be in a workspace, each with its reason; the first
            `limits.SKIPPED_NAMES` of them. Empty unless skipping was asked for: otherwise the first one ends it all.
        skipped_count: How many were left out.
    """

    files: int
    folders: int
    size_bytes: int
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0
