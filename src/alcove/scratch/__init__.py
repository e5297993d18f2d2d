"""Folders per trace id, for scripts that an agent calls: standard library only, and nothing of ours beside this folder.

A framework gives every agent session a `TRACE_ID`; `session_dir(app="kfs-answer")` makes
`<root>/kfs-answer-sessions/<TRACE_ID>/` and returns it. A folder that nobody has used for a day is swept by a later
call. Whoever was given a folder holds a shared lock (`flock`) on it until it exits: a folder in use is never swept.
"""

from __future__ import annotations

import os
from contextlib import suppress

from alcove.scratch.ageing import folder_names, look
from alcove.scratch.places import ScratchError as ScratchError, app_folder, refusing, trace_id as _trace_id
from alcove.scratch.sweeping import Swept as Swept, sweep_folder, sweep_when_due
from alcove.scratch.taking import let_go, take

TYPE_CHECKING = False  # as type checkers take it: `typing` and `pathlib` take longer to load than all of this
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Final

MAX_AGE_S: Final = 24 * 3600  # how long a folder lies untouched before it is swept

__all__ = ["MAX_AGE_S", "Folder", "ScratchError", "Swept", "folders", "release", "session_dir", "sweep"]


class Folder:
    """One session's folder.

    Attributes:
        trace_id: Its name.
        path: Where it is, absolute.
        active_at: When it or something in it was last changed or refreshed, epoch seconds.
        in_use: Whether a process holds it.
    """

    __slots__ = ("active_at", "in_use", "path", "trace_id")

    def __init__(self, trace_id: str, path: Path, active_at: float, in_use: bool) -> None:
        self.trace_id = trace_id
        self.path = path
        self.active_at = active_at
        self.in_use = in_use

    def __repr__(self) -> str:
        return f"Folder({self.trace_id!r}, {self.path!r}, {self.active_at!r}, in_use={self.in_use!r})"


def session_dir(
    app: str,
    root: str | os.PathLike[str] | None = None,
    *,
    trace_id: str | None = None,
    max_age_s: float | None = MAX_AGE_S,
) -> Path:
    """Return the folder of this agent session, made if need be, refreshed, and held until this process ends.

    Args:
        app: Whose folders; they lie in `<root>/<app>-sessions/`.
        root: Where; by default `ALCOVE_SCRATCH_ROOT`, else the session's HOME inside a run of Alcove's, else the
            current folder. It is made when missing.
        trace_id: Which session; `TRACE_ID` of the environment by default.
        max_age_s: Folders of the app that are older and not in use are swept, at most every `sweeping.EVERY_S`
            whoever calls; None for never. What cannot be swept is no error here; `sweep` says it.

    Raises:
        ScratchError: There is no trace id, it or the app cannot name a folder, a link or somebody else's folder is
            in the place, or the disk refused. Uncaught it ends the program with its message and exit status 1.
    """
    name = _trace_id(trace_id)
    with app_folder(app, root, make=True) as (fd, path):
        mine = f"{path}/{name}"
        with refusing(mine):
            now = take(fd, name, mine)
        if max_age_s is not None:
            # The folder is there and held; what becomes of others' does not concern this caller.
            with suppress(OSError):
                sweep_when_due(fd, now, max_age_s)
        return _path(mine)


def release(path: str | os.PathLike[str]) -> None:
    """Let go of a folder that `session_dir` gave to this process: it may be swept when it gets old.

    For programs that live long and serve many sessions; each folder that is held keeps a descriptor open.
    """
    let_go(os.fspath(path))


def folders(app: str, root: str | os.PathLike[str] | None = None) -> list[Folder]:
    """Return an app's folders, the longest unused first; none when nothing was ever made.

    Raises:
        ScratchError: The app's folder cannot be looked at.
    """
    found: list[Folder] = []
    with suppress(FileNotFoundError), app_folder(app, root, make=False) as (fd, path), refusing(path):
        for name in folder_names(fd):
            with suppress(FileNotFoundError):  # it was swept meanwhile
                found.append(Folder(name, _path(f"{path}/{name}"), *look(fd, name)))
    return sorted(found, key=lambda folder: (folder.active_at, folder.trace_id))


def sweep(
    app: str, root: str | os.PathLike[str] | None = None, *, max_age_s: float = MAX_AGE_S, dry_run: bool = False
) -> Swept:
    """Remove every folder of an app in which nothing was refreshed for `max_age_s` and that no process holds.

    Links are removed, never followed, and what is mounted is left alone. Several processes may sweep at once.

    Raises:
        ScratchError: The app's folder cannot be looked at.
    """
    with suppress(FileNotFoundError), app_folder(app, root, make=False) as (fd, path), refusing(path):
        return sweep_folder(fd, max_age_s, dry_run=dry_run)
    return Swept()


def _path(path: str) -> Path:
    from pathlib import Path

    return Path(path)
