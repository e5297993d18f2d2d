"""Imports, as callers use them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path

from alcove.archive.json_sessions import JsonSessions
from alcove.archive.model import Imported
from alcove.archive.session_dirs import SessionDirs
from alcove.database.op import Database
from alcove.lifecycle.service import Lifecycle
from alcove.workspaces.service import Workspaces

Progress = Callable[[int, int], None]


def _silent(done: int, of: int) -> None:
    """Say nothing."""


class Archive:
    """Brings in what other programs kept.

    An import may be stopped anywhere and run again: it goes on, and adds nothing twice.

    Args:
        database: Where the rows are.
        sessions: Makes sessions, with their folders.
        workspaces: Takes files; None for a hub without.
    """

    def __init__(self, database: Database, *, sessions: Lifecycle, workspaces: Workspaces | None) -> None:
        self._database = database
        self._sessions = sessions
        self._workspaces = workspaces

    async def import_json_sessions(
        self,
        folder: str | Path,
        *,
        app: str = "",
        zone: tzinfo | None = None,
        dry_run: bool = False,
        progress: Progress = _silent,
    ) -> Imported:
        """Import sessions that were kept as one JSON file each: `*.json`, directly in `folder`.

        Ids, users, parents, metadata, times and history stay what they were; a session whose parent is nowhere
        becomes a root, and is noted. Imported sessions do not expire.

        Args:
            folder: Where the files are. They are only read; links are not followed.
            app: The app that the sessions belong to from now on.
            zone: Where times without a zone are local; None for this machine's zone.
            dry_run: Read and check everything and write nothing.
            progress: Is told the number of files done, and of all.

        Raises:
            InvalidError: There is no such folder.
            DatabaseError: The database failed; what was imported until then stays.
        """
        return await JsonSessions(self._database, self._sessions, app, zone).run(folder, dry_run, progress)

    async def import_session_dirs(
        self, folder: str | Path, *, app: str = "", dry_run: bool = False, progress: Progress = _silent
    ) -> Imported:
        """Import working directories: each folder in `folder` becomes a session of its name with these files.

        Files that the session has already are left as they are. Links, and what is neither file nor folder, are
        reported and not imported. Imported sessions do not expire.

        Args:
            folder: What held the directories (`SESSIONS_BASE_DIR` of then). It is only read.
            app: The app that the sessions belong to from now on.
            dry_run: Read and check everything and write nothing.
            progress: Is told the number of folders done, and of all.

        Raises:
            InvalidError: There is no such folder, it holds this installation's workspaces, or the hub has none.
            DatabaseError, StorageError: What was imported until then stays.
        """
        return await SessionDirs(self._database, self._sessions, self._workspaces, app).run(folder, dry_run, progress)
