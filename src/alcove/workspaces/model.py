"""The records of files. No I/O."""

from __future__ import annotations

import stat
from os import stat_result
from typing import Literal

import msgspec

from alcove.clock import Micros

Kind = Literal["file", "folder", "link", "fifo", "socket", "device"]


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One thing in a workspace, as it was when it was looked at.

    Attributes:
        path: Relative to the workspace, '/' between the parts; bytes that are not UTF-8 are U+DC80 to U+DCFF.
        kind: What it is. Only a `file` can be read.
        size_bytes: Length; a sparse file takes less room than this.
        modified_at: When its content last changed; whoever may write the file may set this to anything.
    """

    path: str
    kind: Kind
    size_bytes: int
    modified_at: Micros

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @classmethod
    def of(cls, path: str, info: stat_result) -> File:
        """Return the record of `path` from what lstat or fstat said."""
        return cls(path=path, kind=kind(info.st_mode), size_bytes=info.st_size, modified_at=info.st_mtime_ns // 1000)


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
