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
from alcove.errors import (
    AlcoveError,
    ConflictError,
    InvalidError,
    NotFoundError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
)
from alcove.sessions.model import NewSession, Status
from alcove.sessions.rules import check_new, encode_metadata
from alcove.sessions.service import Sessions
from alcove.workspaces.model import File, Listing
from alcove.workspaces.packing import END, member
from alcove.workspaces.service import Workspaces
from alcove.workspaces.tree import Tree

_REFUSED: Final = (InvalidError, ConflictError, NotFoundError)
_UNFIT: Final = (SessionBusyError, SessionExpiredError, SessionNotFoundError)  # then no file of it can be imported
_BATCH_FILES: Final = 2000
_BATCH_BYTES: Final = 256 * limits.MIB  # and one file, however long


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
            for batch in _batches([file for file in listing.files if file.path in new_files]):
                await self._files(tree, session_id, batch, report)
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

    async def _files(self, tree: Tree, session_id: str, files: list[File], report: Imported) -> None:
        """Bring in some files; each that cannot be is told."""
        taken: list[File] = []
        for file in files:
            if file.kind != "file":
                why = f"it is a {file.kind}" + (", and is not followed" if file.kind == "link" else "")
            elif file.size_bytes > limits.UPLOAD_BYTES:
                why = f"it is {file.size_bytes} bytes, and {limits.UPLOAD_BYTES} are possible"
            else:
                taken.append(file)
                continue
            report.failed.append(Problem(f"{session_id}/{file.path}", why))
        await self._extract(tree, session_id, taken, report)

    async def _extract(self, tree: Tree, session_id: str, files: list[File], report: Imported) -> None:
        """Bring in files as one archive: one change instead of many, and with their times and modes."""
        refused: dict[str, AlcoveError] = {}
        try:
            if self._workspaces and files and not report.dry_run:
                await self._workspaces.extract(session_id, _packed(tree, files, refused))
        except _UNFIT:
            raise
        except _REFUSED as error:
            if len(files) > 1:  # for the sake of one: find out which
                half = len(files) // 2
                await self._extract(tree, session_id, files[:half], report)
                await self._extract(tree, session_id, files[half:], report)
                return
            refused = {files[0].path: error}
        report.failed += [Problem(f"{session_id}/{path}", _sentence(error)) for path, error in refused.items()]
        taken = [file.size_bytes for file in files if file.path not in refused]
        report.files += len(taken)
        report.size_bytes += sum(taken)


def _batches(files: list[File]) -> Iterator[list[File]]:
    """Divide files so that each part can be staged: one that was brought in stays when a later one cannot be."""
    batch: list[File] = []
    size_bytes = 0
    for file in files:
        if batch and (len(batch) == _BATCH_FILES or size_bytes + file.size_bytes > _BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(file)
        size_bytes += file.size_bytes
    if batch:
        yield batch


def _packed(tree: Tree, files: list[File], refused: dict[str, AlcoveError]) -> Iterator[bytes]:
    """Yield a tar of files, but for those that cannot be read, which are told in `refused`."""
    for file in files:
        try:
            fd, _ = tree.open_read(file.path)
        except _REFUSED as error:
            refused[file.path] = error
            continue
        with os.fdopen(fd, "rb", buffering=0):
            yield from member(file.path, fd)
    yield END


def _times(info: os.stat_result, listing: Listing) -> tuple[Micros, Micros]:
    """Return the first and the last change of a directory: when the session was created, and last active."""
    times = [info.st_mtime_ns // 1000, *(file.modified_at for file in listing.files)]
    return max(min(times), 0), max(*times, 0) if len(times) > 1 else max(times[0], 0)


def _sentence(error: AlcoveError) -> str:
    return f"{error.message} ({error.remedy})" if error.remedy else error.message
