"""Importing working directories as sessions with files."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from alcove import ids, limits
from alcove.archive import queries, reading
from alcove.archive.model import Imported, Problem
from alcove.archive.rules import MARK
from alcove.clock import Micros
from alcove.database.op import Database
from alcove.errors import AlcoveError, ConflictError, FileMissingError, InvalidError, NotFoundError
from alcove.sessions.model import NewSession, Status
from alcove.sessions.rules import check_new, encode_metadata
from alcove.sessions.service import Sessions
from alcove.workspaces.model import File, Listing
from alcove.workspaces.service import Workspaces
from alcove.workspaces.tree import Tree

_REFUSED: Final = (InvalidError, ConflictError, NotFoundError)


class SessionDirs:
    """One import: `run` it once."""

    def __init__(self, database: Database, sessions: Sessions, workspaces: Workspaces | None, app: str) -> None:
        self._database = database
        self._sessions = sessions
        self._workspaces = workspaces
        self._app = app

    async def run(self, folder: str | Path, dry_run: bool, progress: Callable[[int, int], None]) -> Imported:
        """Import what is in a folder: each directory for itself."""
        workspaces = self._workspaces
        if workspaces is None and not dry_run:
            raise InvalidError("this hub has no workspaces", remedy="open it with `workspaces=`, or without arguments")
        report = Imported(dry_run=dry_run)
        with reading.opened(folder) as fd:
            if workspaces and workspaces.folder.exists() and os.path.samestat(os.fstat(fd), os.stat(workspaces.folder)):
                raise InvalidError(
                    f"{workspaces.folder} holds the workspaces of this installation",
                    field="folder",
                    remedy="move the old directories into a folder of their own first",
                )
            found = await asyncio.to_thread(reading.names, fd)
            for done, name in enumerate(found):
                progress(done, len(found))
                try:
                    await self._take(fd, name, report)
                except _REFUSED as error:
                    report.failed.append(Problem(name, _sentence(error)))
            progress(len(found), len(found))
        return report

    async def _take(self, fd: int, name: str, report: Imported) -> None:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            link = stat.S_ISLNK(info.st_mode)
            raise InvalidError("it is a link, and is not followed" if link else "it is no folder of a session")
        session_id = ids.session_id(name)
        # Programs wrote in there: it is read as a workspace is, beneath its own descriptor.
        tree = await asyncio.to_thread(Tree, fd, name, fd, owner=info.st_uid)
        try:
            listing = await asyncio.to_thread(tree.list)
            created, active = _times(info, listing)
            new_files = await self._session(session_id, listing, created, report)
            for file in listing.files:
                if file.path in new_files:
                    await self._file(tree, session_id, file, report)
            if listing.truncated:
                report.failed.append(Problem(name, "part of it cannot be listed: past a limit, or not readable"))
            if not report.dry_run and new_files:
                await self._database.write(queries.settle, session_id, active)
        finally:
            tree.close()

    async def _session(self, session_id: str, listing: Listing, created: Micros, report: Imported) -> set[str]:
        """Find or make the session; return the paths that it does not have yet."""
        paths = {file.path for file in listing.files}
        existing = await self._sessions.find(session_id)
        if existing is None:
            text, indexed = encode_metadata({MARK: session_id})
            new = NewSession(id=session_id, app=self._app, metadata_json=text, indexed=indexed)
            if not report.dry_run:
                await self._database.write(queries.create, check_new(new), created)
            report.created.append(session_id)
            return paths
        if existing.status == Status.TRASHED:
            raise ConflictError(f"session {session_id} is in the trash: restore or purge it first")
        if existing.metadata.get(MARK) != session_id:
            raise ConflictError(f"there is a session {session_id} already, and it does not come from this folder")
        there = (await self._workspaces.list_files(session_id)).files if self._workspaces else ()
        missing = paths - {file.path for file in there}
        (report.continued if missing else report.present).append(session_id)
        return missing

    async def _file(self, tree: Tree, session_id: str, file: File, report: Imported) -> None:
        try:
            if file.kind != "file":
                raise InvalidError(f"it is a {file.kind}" + (", and is not followed" if file.kind == "link" else ""))
            if file.size_bytes > limits.FILE_BYTES:
                raise InvalidError(f"it is {file.size_bytes} bytes, and {limits.FILE_BYTES} are possible")
            if self._workspaces and not report.dry_run:
                await self._workspaces.write(session_id, file.path, _chunks(tree, file.path))
        except (InvalidError, FileMissingError, ConflictError) as error:
            report.failed.append(Problem(f"{session_id}/{file.path}", _sentence(error)))
            return
        report.files += 1
        report.size_bytes += file.size_bytes


def _chunks(tree: Tree, path: str) -> Iterator[bytes]:
    fd, _ = tree.open_read(path)
    with os.fdopen(fd, "rb", buffering=0) as stream:
        while chunk := stream.read(limits.MIB):
            yield chunk


def _times(info: os.stat_result, listing: Listing) -> tuple[Micros, Micros]:
    """Return the first and the last change of a directory: when the session was created, and last active."""
    times = [info.st_mtime_ns // 1000, *(file.modified_at for file in listing.files)]
    return max(min(times), 0), max(*times, 0) if len(times) > 1 else max(times[0], 0)


def _sentence(error: AlcoveError) -> str:
    return f"{error.message} ({error.remedy})" if error.remedy else error.message
