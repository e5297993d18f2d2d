"""What a look through a workspace finds: the listing of its files, and the room they take."""

from __future__ import annotations

import os
from operator import itemgetter

from alcove import limits
from alcove.workspaces.model import File, Listing, Usage
from alcove.workspaces.paths import decode
from alcove.workspaces.walk import Walk


class Lister(Walk):
    """Lists the files below a folder, within `limits.LISTING_FILES`, `limits.TREE_DEPTH` and `limits.PATH_BYTES`."""

    def __init__(self, above: bytes, *, recursive: bool) -> None:
        super().__init__(limits.LISTING_FILES)
        self._found: list[tuple[bytes, File]] = []
        self._above = [above] if above else []
        self._recursive = recursive

    def listing(self) -> Listing:
        """Return what was found."""
        self._found.sort(key=itemgetter(0))
        return Listing(files=tuple(file for _, file in self._found), truncated=not self.complete)

    def visit(self, fd: int) -> list[bytes]:
        """Take in the files of a folder."""
        prefix = b"".join(part + b"/" for part in (*self._above, *self.trail))
        below: list[bytes] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if not self.look():
                    return []
                raw = prefix + (name := os.fsencode(entry.name))
                if len(raw) > limits.PATH_BYTES:
                    self.complete = False
                elif not entry.is_dir(follow_symlinks=False):
                    self._add(raw, entry)
                elif self._recursive:
                    below.append(name)
        if below and len(self.trail) >= limits.TREE_DEPTH:
            self.complete = False
            return []
        return below

    def _add(self, raw: bytes, entry: os.DirEntry[str]) -> None:
        try:
            self._found.append((raw, File.of(decode(raw), entry.stat(follow_symlinks=False))))
        except FileNotFoundError:
            pass
        except OSError:
            self.complete = False


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
