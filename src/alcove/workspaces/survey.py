"""What a look through a workspace finds: the listing of its files, and the room they take."""

from __future__ import annotations

import os
from operator import attrgetter

from alcove import limits
from alcove.workspaces.model import File, Listing, Usage
from alcove.workspaces.paths import decode
from alcove.workspaces.walk import Walk


class Lister(Walk):
    """Lists the files below a folder, within `limits.LISTING_FILES`, `limits.TREE_DEPTH` and `limits.PATH_BYTES`."""

    def __init__(self, above: bytes, *, recursive: bool) -> None:
        super().__init__(limits.LISTING_FILES)
        self._found: list[File] = []
        self._above = [above] if above else []
        self._recursive = recursive
        self._plain = True  # whether all paths are ASCII: then the order of text is that of bytes

    def listing(self) -> Listing:
        """Return what was found."""
        self._found.sort(key=attrgetter("path") if self._plain else _raw)
        return Listing(files=tuple(self._found), truncated=not self.complete)

    def visit(self, fd: int) -> list[bytes]:
        """Take in the files of a folder."""
        raw_prefix = b"".join(part + b"/" for part in (*self._above, *self.trail))
        prefix, room = decode(raw_prefix), limits.PATH_BYTES - len(raw_prefix)
        plain = raw_prefix.isascii()
        below: list[bytes] = []
        add = self._found.append
        # Ten thousand times each: what can be done once per folder is done here, and the common name is not encoded.
        with os.scandir(fd) as entries:
            for entry in entries:
                if not self.look():
                    return []
                name = entry.name
                if not name.isascii():
                    plain = False
                    name = decode(os.fsencode(name))
                if len(name) > room or (not plain and len(_bytes(name)) > room):
                    self.complete = False
                elif not entry.is_dir(follow_symlinks=False):
                    try:
                        add(File.of(prefix + name, entry.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        pass
                    except OSError:
                        self.complete = False
                elif self._recursive:
                    below.append(_bytes(name))
        self._plain = self._plain and plain
        if below and len(self.trail) >= limits.TREE_DEPTH:
            self.complete = False
            return []
        return below


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _raw(file: File) -> bytes:
    return _bytes(file.path)


class Counter(Walk):
    """Adds up what a folder takes, without a limit in depth: what is out of a listing's reach takes room as well.

    It ends at `limits.USAGE_NAMES`.
    """

    def __init__(self) -> None:
        super().__init__(limits.USAGE_NAMES)
        self._files = self._size_bytes = 0
        self._linked: set[int] = set()

    def usage(self) -> Usage:
        """Return the sum."""
        return Usage(size_bytes=self._size_bytes, files=self._files)

    def visit(self, fd: int) -> list[bytes]:
        """Add a folder and the files in it."""
        self._size_bytes += os.fstat(fd).st_blocks * 512
        below: list[bytes] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if not self.look():
                    return []
                if entry.is_dir(follow_symlinks=False):
                    below.append(os.fsencode(entry.name))
                else:
                    self._count(entry)
        return below

    def _count(self, entry: os.DirEntry[str]) -> None:
        try:
            info = entry.stat(follow_symlinks=False)
        except OSError:
            return
        self._files += 1
        if info.st_nlink > 1:
            if info.st_ino in self._linked:
                return
            self._linked.add(info.st_ino)
        self._size_bytes += info.st_blocks * 512
