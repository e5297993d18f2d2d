"""Folders named like those of sessions, whether there is such a session or not."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

from alcove import ids
from alcove.errors import InvalidError
from alcove.workspaces.failures import translated
from alcove.workspaces.model import Removed, Stray
from alcove.workspaces.remove import remove


def within(folder: int, above: Path, kind: str) -> Generator[Stray]:
    """Yield the folders in one that is open as `folder`; `above` is its path. Links and other names are left out."""
    with translated(str(above)), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and _could_be(entry.name):
                try:
                    changed = entry.stat(follow_symlinks=False).st_ctime_ns // 1000
                except FileNotFoundError:
                    continue
                yield Stray(kind, entry.name, str(above / entry.name), changed)


def vacant(folder: int, name: str) -> bool:
    """Return whether a folder in the one open as `folder` holds nothing, or is not there."""
    try:
        opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        return isinstance(error, FileNotFoundError)  # whatever else it is, it is not empty
    try:
        with os.scandir(opened) as entries:
            return next(entries, None) is None
    finally:
        os.close(opened)


def homes(folder: Path) -> list[Stray]:
    """Return the homes in a folder."""
    opened = _open(folder)
    try:
        return list(within(opened, folder, "home"))
    finally:
        os.close(opened)


def remove_home(folder: Path, name: str) -> Removed:
    """Remove a home for good. May be repeated."""
    opened = _open(folder)
    try:
        return remove(opened, os.fsencode(name))
    finally:
        os.close(opened)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _could_be(name: str) -> bool:
    try:
        ids.session_id(name)
    except InvalidError:
        return False
    return True
