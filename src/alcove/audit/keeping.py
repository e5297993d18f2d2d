"""The files of the audit beside the database: a node's key, and the checkpoint that was last known to be written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, final

import msgspec

from alcove import ids
from alcove.errors import ConfigurationError, StorageError

_KEY_BYTES = 32


class Checkpoint(msgspec.Struct, frozen=True):
    """The end of a node's chain as it was last known to be durable, kept where the database is not.

    Attributes:
        installation: Of which installation.
        node: Whose chain.
        n: The number of its last row.
        hash: The hash of that row.
        seal: HMAC of that under the node's key.
    """

    installation: str
    node: str
    n: int
    hash: str
    seal: str


class KeyFile(NamedTuple):
    """Where the files are; None for a node that keeps them in memory."""

    folder: Path | None
    stem: str = "audit"


@final
class Kept:
    """The files of one node.

    Args:
        place: Where they are.
    """

    def __init__(self, place: KeyFile) -> None:
        self._folder, self._stem = place
        self._passing = b""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where they are or will be."""
        if self._folder is None:
            return ()
        return self._folder / f"{self._stem}.key", self._folder / f"{self._stem}.checkpoint"

    def key(self, *, make: bool) -> bytes | None:
        """Return the key; where there is none make it, or return None.

        Raises:
            ConfigurationError: The file is there and is no key.
            StorageError: It can be neither read nor made.
        """
        if self._folder is None:
            self._passing = self._passing or bytes.fromhex(ids.new_secret())
            return self._passing
        path = self.paths[0]
        try:
            try:
                text = path.read_text("ascii")
            except FileNotFoundError:
                if not make:
                    return None
                _place(path, ids.new_secret().encode() + b"\n")
                text = path.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(
                f"the key of the audit cannot be kept in {path}: {getattr(error, 'strerror', 'it is no text')}",
                remedy="make the folder writable for the user that runs Alcove; without a key nothing is granted",
            ) from error
        try:
            key = bytes.fromhex(text.strip())
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise ConfigurationError(
                f"{path} is no key of an audit", remedy="restore it from a backup, or move it away: a new chain begins"
            )
        return key

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint that was last written here, None when there is none that can be read."""
        if self._folder is None:
            return None
        try:
            return msgspec.json.decode(self.paths[1].read_bytes(), type=Checkpoint)
        except (OSError, msgspec.DecodeError):
            return None

    def keep(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; it needs no flush, as an older one is true too.

        Raises:
            OSError: It could not be written.
        """
        if self._folder is None:
            return
        path = self.paths[1]
        temp = path.with_name(f"{path.name}.{ids.new_id()}")
        try:
            _write(temp, msgspec.json.encode(checkpoint), durable=False)
            os.replace(temp, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temp)
            raise


def _place(path: Path, content: bytes) -> None:
    """Make a file that is there whole or not at all, and durable; whoever is first wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temp = path.with_name(f"{path.name}.{ids.new_id()}")
    try:
        _write(temp, content, durable=True)
        with suppress(FileExistsError):
            os.link(temp, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temp)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write(path: Path, content: bytes, *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            os.unlink(path)
        raise
