"""Moves what was prepared out of the session's sight into a folder where something is already."""

from __future__ import annotations

import os
import stat

from alcove import limits
from alcove.errors import AlreadyExistsError, ConflictError
from alcove.workspaces.model import kind
from alcove.workspaces.openat2 import open_beneath
from alcove.workspaces.paths import decode
from alcove.workspaces.pinned import FOLDER
from alcove.workspaces.renaming import rename_new
from alcove.workspaces.walk import Walk


class Placing(Walk):
    """Goes through a prepared folder beside the one that it is to go into.

    Args:
        top: Descriptor of the folder that it is to go into.
        raw: Its path in the workspace, for messages.
        replace: Replace files and links of the same path.
        apply: Move; otherwise only look whether all of it could be.
    """

    def __init__(self, top: int, raw: bytes, *, replace: bool, apply: bool) -> None:
        super().__init__(2 * limits.ARCHIVE_NAMES)
        self._top, self._raw, self._replace, self._apply = top, raw, replace, apply

    def visit(self, fd: int) -> list[bytes]:
        """Compare one folder with its place, and move what is free; go into those that are on both sides."""
        below: list[bytes] = []
        folder = open_beneath(self._top, b"/".join(self.trail) or b".", FOLDER, links=False)
        try:
            for name in map(os.fsencode, sorted(os.listdir(fd))):
                mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                try:
                    found = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                except FileNotFoundError:
                    if self._apply:
                        rename_new(fd, name, folder, name)
                    continue
                if stat.S_ISDIR(found) and stat.S_ISDIR(mode):
                    below.append(name)
                    continue
                self._check(name, mode, found)
                if self._apply:
                    os.rename(name, name, src_dir_fd=fd, dst_dir_fd=folder)
        finally:
            os.close(folder)
        return below

    def refused(self, name: bytes, error: OSError) -> None:
        """Raise: what cannot be entered here is no session's doing."""
        raise error

    def _check(self, name: bytes, mode: int, found: int) -> None:
        path = decode(b"/".join(filter(None, (self._raw, *self.trail, name))))
        if stat.S_ISDIR(mode) or stat.S_ISDIR(found):
            raise ConflictError(
                f"there is a {kind(found)} at {path[:160]!r}, where the archive has a {kind(mode)}",
                field="path",
                remedy="extract into another folder",
            )
        if not self._replace:
            raise AlreadyExistsError(
                f"there is a {kind(found)} at {path[:160]!r}", field="path", remedy="extract with replace=True"
            )
