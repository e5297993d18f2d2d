"""A disk that fails when it is told to, and that remembers what was written and what was only hoped to be."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import apsw

_SECTOR = 512
_numbers = itertools.count()


class Event(NamedTuple):
    """One thing that the disk was asked to do, or, with the kind `acknowledged`, that a caller was told."""

    kind: str
    path: str = ""
    offset: int = 0
    data: bytes = b""


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.full:
            raise apsw.exception_for(apsw.SQLITE_FULL)
        if self._disk.read_only:
            raise apsw.exception_for(apsw.SQLITE_READONLY)
        self._disk.events.append(Event("write", self._path, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._disk.events.append(Event("truncate", self._path, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        if self._disk.sync_fails and self._path.endswith(self._disk.sync_fails):
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        self._disk.events.append(Event("sync", self._path))
        super().xSync(flags)


class Disk(apsw.VFS):
    """SQLite's file system between `with` and its end.

    Attributes:
        full: Writes fail as on a full disk.
        read_only: Writes fail as on one that was mounted again, read-only.
        sync_fails: Flushes of files whose name ends so fail.
        events: What happened, in order.
    """

    def __init__(self) -> None:
        self.full = False
        self.read_only = False
        self.sync_fails = ""
        self.events: list[Event] = []
        super().__init__(f"disk-{next(_numbers)}", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:
        return _File(self, name, flags)

    def syncs(self) -> int:
        return sum(event.kind == "sync" and event.path.endswith("-wal") for event in self.events)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unregister()


def after_power_loss(base: dict[str, bytes], events: Iterable[Event], chance: random.Random) -> dict[str, bytes]:
    """Return what a disk may hold when the power goes now: all that was synced, and any part of what was not."""
    files = {path: bytearray(content) for path, content in base.items()}
    unsynced: dict[str, list[Event]] = {}
    for event in events:
        if event.kind == "sync":
            for one in unsynced.pop(event.path, []):
                _apply(files, one)
        elif event.kind in {"write", "truncate"}:
            unsynced.setdefault(event.path, []).append(event)
    for waiting in unsynced.values():
        for event in waiting:
            if chance.random() < 0.5:
                _apply(files, _torn(event, chance))
    return {path: bytes(content) for path, content in files.items()}


def _torn(event: Event, chance: random.Random) -> Event:
    """Return the event or, now and then, only some of its sectors' worth."""
    if event.kind == "write" and len(event.data) > _SECTOR and chance.random() < 0.3:
        return event._replace(data=event.data[: _SECTOR * chance.randrange(1, len(event.data) // _SECTOR + 1)])
    return event


def _apply(files: dict[str, bytearray], event: Event) -> None:
    content = files.setdefault(event.path, bytearray())
    if event.kind == "truncate":
        del content[event.offset :]
        return
    if len(content) < event.offset:
        content.extend(bytes(event.offset - len(content)))
    content[event.offset : event.offset + len(event.data)] = event.data


def written(folder: Path, files: dict[str, bytes]) -> Iterator[Path]:
    """Write an image's files into a folder and yield their paths."""
    for path, content in files.items():
        copy = folder / Path(path).name
        copy.write_bytes(content)
        yield copy
