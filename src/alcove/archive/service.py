"""Imports and exports, as callers use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from pathlib import Path

from alcove import ids
from alcove.archive.exporting import Exporting
from alcove.archive.importing import Importing
from alcove.archive.json_sessions import JsonSessions
from alcove.archive.model import Exported, Imported
from alcove.archive.session_dirs import SessionDirs
from alcove.audit.model import Act
from alcove.audit.service import Audit
from alcove.database.op import Database
from alcove.lifecycle.service import Lifecycle
from alcove.messages.service import Messages
from alcove.objects.service import Objects
from alcove.values import Json
from alcove.workspaces.service import Workspaces

Progress = Callable[[int, int], None]


def _silent(done: int, of: int) -> None:
    """Say nothing."""


class Archive:
    """Takes sessions out and brings them in: in an archive of Alcove's, or as other programs kept them.

    An import may be stopped anywhere and run again: it goes on, and adds nothing twice.

    Args:
        database: Where the rows are.
        sessions: Makes sessions, with their folders.
        messages: Their histories.
        objects: Large parts of messages.
        workspaces: Has their files; None for a hub without.
        audit: Where exports and imports are recorded, before they begin.
    """

    def __init__(
        self,
        database: Database,
        sessions: Lifecycle,
        messages: Messages,
        objects: Objects,
        workspaces: Workspaces | None,
        audit: Audit | None = None,
    ) -> None:
        self._audit = audit
        self._database = database
        self._sessions = sessions
        self._messages = messages
        self._objects = objects
        self._workspaces = workspaces

    async def export_archive(
        self,
        file: str | Path,
        session_ids: Sequence[str] | None = None,
        *,
        replace: bool = False,
        tenant: str = "default",
        progress: Progress = _silent,
        by: str = "library",
    ) -> Exported:
        """Write sessions to an archive: what was said with all its parts, metadata, tree, dialogs and files.

        Not in it are runs and their journals, homes (credentials may be there), and what is in the trash. It is no
        snapshot: a session that goes on meanwhile is in it as far as it had come when the export began, its files as
        they are found. The file is there whole, readable for its owner only, or not at all. See docs/archive.md.

        Args:
            file: Where to write; by custom `*.alcove`.
            session_ids: Those and all below them; None for all.
            replace: Replace a file that is there.
            tenant: Whose sessions. An archive does not say so: whoever imports it says into which tenant.
            progress: Is told the number of sessions done, and of all.
            by: Who asks; the audit keeps it.

        Raises:
            SessionNotFoundError: There is no session of one of the ids.
            AlreadyExistsError: There is such a file, and `replace` is false.
            StorageError: The file cannot be written.
            TooLargeError: More than `limits.ARCHIVE_SESSIONS` or `limits.ARCHIVE_MEMBERS`, files past
                `limits.ARCHIVE_BYTES`, or a message past `limits.ARCHIVE_MESSAGE_BYTES`.
        """
        many = "all" if session_ids is None else len(session_ids)
        await self._audited("archive.exported", by, tenant=tenant, file=Path(file).name, sessions=many)
        work = Exporting(self._database, self._sessions, self._messages, self._objects, self._workspaces, tenant)
        return await work.run(file, session_ids, replace, progress)

    async def import_archive(
        self,
        file: str | Path,
        *,
        dry_run: bool = False,
        tenant: str = "default",
        progress: Progress = _silent,
        by: str = "library",
    ) -> Imported:
        """Read sessions back in from an archive: all of it, or nothing.

        Ids, tree, metadata, histories with their times, parts, usage, hidden and pinned messages and summaries,
        dialogs and files are as they were. A session whose parent is neither in the archive nor here becomes a root,
        and is noted; one with a TTL begins to be idle now, and one that is past its end has a day. One that is here
        already and says the same as far as the archive goes is left as it is, with its files, so that importing twice
        is importing once. An import that was killed goes on when it is repeated; until then its sessions have the
        metadata `importing`.

        Args:
            file: What `export_archive` wrote, or a stranger: nothing in it is believed.
            dry_run: Read and check everything but the files, and write nothing.
            tenant: Whose the sessions are from now on.
            progress: Is told the bytes done, and of all; each is read twice.
            by: Who asks; the audit keeps it.

        Raises:
            InvalidError: It is no archive, or a damaged one; nothing was changed.
            ConflictError: A session, key or dialog of it is another one's here; nothing was changed.
            DatabaseError, StorageError: What was imported is taken back, as far as that is possible.
        """
        if not dry_run:
            await self._audited("archive.imported", by, tenant=tenant, file=Path(file).name)
        work = Importing(self._database, self._sessions, self._messages, self._objects, self._workspaces, tenant)
        return await work.run(file, dry_run, progress)

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
        if not dry_run:
            await self._audited("archive.imported", "library", what="json-sessions", app=app)
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
        if not dry_run:
            await self._audited("archive.imported", "library", what="session-dirs", app=app)
        return await SessionDirs(self._database, self._sessions, self._workspaces, app).run(folder, dry_run, progress)

    async def _audited(self, act: str, who: str, *, tenant: str = "default", **words: Json) -> None:
        if self._audit:
            await self._audit.done(Act(act=act, who=ids.name(who, field="by"), tenant=tenant, words=words))
