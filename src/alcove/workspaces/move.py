"""Moves a folder as a whole, whatever its programs have done to its mode."""

from __future__ import annotations

import os

from alcove.errors import ConflictError
from alcove.workspaces.remove import unlock


def move(source: int, target: int, name: str) -> bool:
    """Rename a folder; return whether it is in `target` now."""
    there, here = _lexists(target, name), _lexists(source, name)
    if there and here:
        raise ConflictError(f"there are two folders {name!r}, one of them in the trash", remedy="move one away")
    if not here:
        return there
    try:
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    except PermissionError:
        # A folder that moves gets a new `..`, so it must be writable; its mode is in the session's hands.
        unlock(source, os.fsencode(name))
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    return True


def _lexists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
