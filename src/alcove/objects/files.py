"""Objects on a disk: one file each, below a folder of the installation. Everything here blocks."""

from __future__ import annotations

import contextlib
import os
import shutil

from alcove import ids
from alcove.errors import StorageError

_TEMP = ".temp"


class Folder:
    """The files of objects.

    Args:
        path: The folder; made when the first object is written.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, file: str, data: bytes) -> None:
        """Write an object. When this returns, it is on the disk, whole.

        Raises:
            StorageError: The disk is full or fails.
        """
        place = self._place(file)
        temp = os.path.join(self._path, _TEMP, f"{file}.{ids.new_id()}")
        try:
            for folder in (os.path.dirname(temp), os.path.dirname(place)):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(descriptor, "wb") as target:
                    target.write(data)
                    target.flush()
                    os.fsync(target.fileno())
                os.rename(temp, place)
            except BaseException:
                if os.path.exists(temp):
                    os.unlink(temp)
                raise
            # The name, its folder's name, and the one above it.
            for folder in (os.path.dirname(place), self._path, os.path.dirname(self._path)):
                _sync(folder)
        except OSError as error:
            raise StorageError(
                f"an object of {len(data)} bytes cannot be written to {self._path}: {error.strerror}",
                remedy="free some space, and let only the user that runs Alcove write there",
            ) from error

    def read(self, file: str) -> bytes:
        """Return an object.

        Raises:
            StorageError: It is not there or cannot be read.
        """
        try:
            with open(self._place(file), "rb") as source:
                return source.read()
        except OSError as error:
            raise StorageError(
                f"the object {file} cannot be read from {self._path}: {error.strerror}",
                remedy="restore the folder from a backup; every process of the installation needs the same one",
            ) from error

    def size(self, file: str) -> int | None:
        """Return the size of an object's file in bytes, None when it is not there."""
        try:
            return os.stat(self._place(file)).st_size
        except OSError:
            return None

    def remove(self, file: str) -> None:
        """Remove an object's file, if it is there.

        Raises:
            StorageError: It is there and cannot be removed.
        """
        try:
            os.unlink(self._place(file))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"the object {file} cannot be removed: {error.strerror}") from error

    def shards(self) -> list[str]:
        """Return the names of the folders that files are in."""
        try:
            return sorted(name for name in os.listdir(self._path) if name != _TEMP)
        except FileNotFoundError:
            return []

    def names(self, shard: str) -> list[str]:
        """Return the names of the files in a folder."""
        return os.listdir(os.path.join(self._path, shard))

    def remove_temps(self, before_s: float) -> None:
        """Remove what writers that died have left; a writer that is this slow writes anew."""
        try:
            found = list(os.scandir(os.path.join(self._path, _TEMP)))
        except FileNotFoundError:
            return
        for one in found:
            with contextlib.suppress(FileNotFoundError):  # its writer is done with it
                if one.stat(follow_symlinks=False).st_mtime < before_s:
                    os.unlink(one.path)

    def remove_all(self) -> None:
        """Remove the folder: of an installation whose rows are gone with the process."""
        shutil.rmtree(self._path, ignore_errors=True)

    def _place(self, file: str) -> str:
        return os.path.join(self._path, file[:2], file)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
