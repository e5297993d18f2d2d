"""The folder of a workspace, held by descriptor: where every access to a path in it begins."""

from __future__ import annotations

import os
from contextlib import suppress

from alcove.errors import ConflictError, FileMissingError
from alcove.workspaces.failures import translated
from alcove.workspaces.openat2 import open_beneath
from alcove.workspaces.paths import decode
from alcove.workspaces.walk import identity

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY
FILE_MODE, FOLDER_MODE = 0o644, 0o755  # the workspace's own 0700 keeps others out


class Pinned:
    """A workspace's folder, what it is in, and where its unfinished files are. Raises OSError where nothing is said.

    Attributes:
        root: Descriptor of the folder.
        temp: Descriptor of a folder on the same file system that sessions cannot see.
        owner: The uid that new files and folders are given to; None leaves them to this process.
    """

    def __init__(self, above: int, name: str, temp: int, *, owner: int | None = None) -> None:
        """Pin the folder `name`, in the folder open as `above`.

        Args:
            above: Descriptor of the folder of workspaces; duplicated.
            name: Name of the workspace's folder.
            temp: Duplicated, too.
            owner: See above.

        Raises:
            FileMissingError: There is no such folder, or it is a link or a file.
            ConflictError: Its mode keeps this process out; `Base.create(adopt=True)` sets it right.
        """
        self.name = name
        self.owner = owner
        self.root = self._above = self.temp = -1
        with translated(name):
            try:
                self.root = os.open(name, _ROOT, dir_fd=above)
                self._above, self.temp = os.dup(above), os.dup(temp)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise FileMissingError(
                    f"the workspace folder {name!r} is missing, or is a link or a file",
                    remedy="it is made again at the session's next activity",
                ) from error
            except OSError:
                self.close()
                raise
            self._identity = identity(self.root)

    def close(self) -> None:
        """Let go of the folder."""
        for fd in (self.root, self._above, self.temp):
            if fd >= 0:
                os.close(fd)
        self.root = self._above = self.temp = -1

    def check(self) -> None:
        """Refuse to work on a folder that is not the workspace any more: files written there would be lost.

        Raises:
            ConflictError: It was moved away or replaced.
        """
        try:
            info = os.stat(self.name, dir_fd=self._above, follow_symlinks=False)
            if (info.st_dev, info.st_ino) == self._identity:
                return
        except FileNotFoundError:
            pass
        raise ConflictError(
            f"the workspace folder {self.name!r} was moved away or replaced", remedy="look whether it is in the trash"
        )

    def foreign(self, info: os.stat_result) -> bool:
        """Return whether a regular file is somebody else's, hard-linked into the workspace."""
        # Where fs.protected_hardlinks is off, a session could link any file of the disk and have a root server read it.
        return self.owner is not None and info.st_nlink > 1 and info.st_uid != self.owner

    def folder(self, raw: bytes) -> int:
        """Open the folder at `raw`, `b""` for the workspace itself."""
        return open_beneath(self.root, raw or b".", FOLDER)

    def parent(self, raw: bytes, *, make: bool = False) -> tuple[int, bytes]:
        """Open the folder that `raw` is in; return its descriptor and the last name."""
        above, _, name = raw.rpartition(b"/")
        try:
            return self.folder(above), name
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

    def make(self, folder: int, name: bytes) -> None:
        """Make a folder in the folder open as `folder`."""
        os.mkdir(name, 0o700, dir_fd=folder)
        fd = os.open(name, _ROOT, dir_fd=folder)
        try:
            self.settle(fd, FOLDER_MODE)
        finally:
            os.close(fd)

    def settle(self, fd: int, mode: int) -> None:
        """Give what this call has made to the session; by descriptor, because the name may be a link by now."""
        os.fchmod(fd, mode)
        if self.owner is not None:
            os.fchown(fd, self.owner, self.owner)

    def _make_all(self, raw: bytes) -> int:
        fd = self.folder(b"")
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
            return self.folder(raw)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another writer was first
                self.make(folder, name)
            return self.folder(raw)
