"""Workspaces, as callers use them: files of a session, from outside its runs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from alcove import ids, limits
from alcove.clock import SECOND, Micros
from alcove.database.op import Database
from alcove.errors import AlcoveError, SessionNotFoundError
from alcove.sessions import heads
from alcove.sessions.heads import Fence
from alcove.workspaces import queries, uids
from alcove.workspaces.base import Base, settle
from alcove.workspaces.failures import translated
from alcove.workspaces.model import File, Listing, Removed, Usage
from alcove.workspaces.remove import remove
from alcove.workspaces.tree import Tree

T = TypeVar("T")

_log = logging.getLogger("alcove.workspaces")


class Workspaces:
    """The folders of sessions. Reads go straight to the files; a write holds the session's lease meanwhile.

    Args:
        database: Where uids and sizes are recorded.
        folder: The base, `<base>/<session_id>/` is a workspace.
        home: `ALCOVE_HOME`; `<home>/homes/<session_id>/` is the HOME of a session's programs.
        installation: The id of this installation.
        leased_uids: Whether programs of each session run under a uid of their own (a root server).
    """

    def __init__(
        self, database: Database, *, folder: Path, home: Path, installation: str, leased_uids: bool = False
    ) -> None:
        self._database = database
        self.folder = folder
        self._uids = uids.leasable(installation) if leased_uids else None
        self._base = Base.open(str(folder), installation, shared=leased_uids)
        self._homes = home / "homes"
        self._changes: set[asyncio.Task[object]] = set()
        mode = 0o711 if leased_uids else 0o700
        for place in (home, self._homes):
            with translated(str(place)):
                place.mkdir(mode=mode, parents=True, exist_ok=True)
                if place.stat().st_uid == os.geteuid():
                    place.chmod(mode)

    async def close(self) -> None:
        """Finish the writes that are under way, then let go of the base folder."""
        await asyncio.gather(*self._changes, return_exceptions=True)
        self._base.close()

    def path(self, session_id: str) -> Path:
        """Return the absolute path of a session's workspace, whether it is there or not."""
        return self.folder / ids.session_id(session_id)

    def home(self, session_id: str) -> Path:
        """Return the absolute path of the HOME of a session's programs."""
        return self._homes / ids.session_id(session_id)

    async def ensure(self, session_id: str, *, guarded: bool = False) -> int | None:
        """Make the workspace and the home of a session where they are missing; return its leased uid, if any.

        Args:
            session_id: Whose they are.
            guarded: Whether both are owned so that no `chmod` of its programs can open them (`base.settle`).

        Raises:
            SessionNotFoundError: There is no such session, or it is in the trash; nothing was made.
            StorageError: The disk could not do it, or every uid is leased.
        """
        uid = await self._database.read(queries.find, session_id)
        if uid is None or (self._uids and not uid):
            uid = await self._database.write(queries.settle, session_id, self._uids)
        await asyncio.to_thread(self._make, session_id, uid or None, guarded)
        if await self._database.read(queries.find, session_id) is None:
            # It was deleted meanwhile, and what was made now came too late to go with it.
            await asyncio.to_thread(self._unmake, session_id)
            raise SessionNotFoundError(f"there is no session {session_id}", field="session_id", session_id=session_id)
        return uid or None

    async def settle(self, session_id: str, *, guarded: bool = False) -> None:
        """Put owners and modes of a session's folders right, which its programs may have changed; makes none."""
        uid = await self._database.read(queries.find, session_id)
        if uid is not None and self._base.exists(session_id) and self.home(session_id).exists():
            await asyncio.to_thread(self._make, session_id, uid or None, guarded)

    async def list_files(self, session_id: str) -> Listing:
        """Return every file of a workspace, recursively, sorted by path; without a folder there are none."""
        if not self._base.exists(session_id):
            return Listing(files=(), truncated=False)
        return await self._in_tree(session_id, lambda tree: tree.list())

    async def stat(self, session_id: str, path: str) -> File:
        """Return what is at a path."""
        return await self._in_tree(session_id, lambda tree: tree.stat(path))

    async def open_read(self, session_id: str, path: str) -> tuple[int, File]:
        """Open a regular file; the caller closes the descriptor."""
        return await self._in_tree(session_id, lambda tree: tree.open_read(path))

    async def read(self, session_id: str, path: str) -> bytes:
        """Return the content of a file of at most `limits.FILE_BYTES`."""
        return await self._in_tree(session_id, lambda tree: tree.read(path))

    async def write(self, session_id: str, path: str, data: bytes | Iterable[bytes]) -> File:
        """Make or replace a file, atomically and durably; missing folders are made.

        Raises:
            SessionBusyError: A run holds the session; it is the one writer.
            TooLargeError: More than `limits.FILE_BYTES`; nothing was written.
        """
        return await self._changing(session_id, lambda tree: tree.write(path, data))

    async def mkdir(self, session_id: str, path: str) -> None:
        """Make a folder, and those above it. Raises what `write` does."""
        await self._changing(session_id, lambda tree: tree.mkdir(path))

    async def delete(self, session_id: str, path: str, *, recursive: bool = False) -> None:
        """Delete a file, or a folder with `recursive`. Raises what `write` does."""
        await self._changing(session_id, lambda tree: tree.delete(path, recursive=recursive))

    async def usage(self, session_id: str) -> Usage:
        """Return bytes and files of a workspace as last measured: after each run and each write from outside."""
        return await self._database.read(queries.usage, session_id)

    async def measure(self, session_id: str) -> Usage:
        """Measure a workspace now; about 24 ms for 10,000 files."""
        return await self._in_tree(session_id, lambda tree: tree.usage())

    async def totals(self) -> queries.Totals:
        """Return what all workspaces take, as last measured."""
        return await self._database.read(queries.totals)

    async def trash(self, session_id: str, trash_id: str) -> bool:
        """Move a workspace into a trashing; False when there was no folder."""
        return await asyncio.to_thread(self._base.trash, session_id, trash_id)

    async def unmake(self, session_id: str) -> None:
        """Take back what `ensure` made for a session that came to nothing; a folder that holds something stays."""
        await asyncio.to_thread(self._unmake, session_id)
        if not self._base.exists(session_id):
            await self._database.write(queries.forget, session_id)

    async def purge(self, session_id: str, trash_id: str) -> Removed:
        """Remove a session's workspace and home for good, then give its uid back. May be repeated."""
        removed = await asyncio.to_thread(self._purge, session_id, trash_id)
        await self._database.write(queries.forget, session_id)
        return removed

    def _make(self, session_id: str, uid: int | None, guarded: bool) -> None:
        # Also when it is there: its programs may have changed its mode, and locked us out or others in.
        self._base.create(session_id, owner=uid, guarded=guarded, adopt=True)
        home = self.home(session_id)
        with translated(str(home)):
            home.mkdir(mode=0o700, exist_ok=True)
            if uid is not None:
                folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    settle(folder, uid, guarded=guarded)
                finally:
                    os.close(folder)

    def _unmake(self, session_id: str) -> None:
        for place in (self.path(session_id), self.home(session_id)):
            with suppress(OSError):  # it is not empty, so it is not what was made just now
                place.rmdir()

    def _purge(self, session_id: str, trash_id: str) -> Removed:
        folder = self._base.purge_session(session_id, trash_id)
        homes = os.open(self._homes, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return folder + remove(homes, os.fsencode(ids.session_id(session_id)))
        finally:
            os.close(homes)

    async def _in_tree(self, session_id: str, work: Callable[[Tree], T]) -> T:
        uid = await self._database.read(queries.find, session_id)

        def run() -> T:
            with self._base.tree(session_id, owner=uid or None) as tree:
                return work(tree)

        return await asyncio.to_thread(run)

    async def _changing(self, session_id: str, work: Callable[[Tree], T]) -> T:
        """Change files under the session's lease, as a small run of its own; then measure.

        A caller that goes away does not stop the change half-way, nor the lease before its end.
        """
        task = asyncio.create_task(self._change(session_id, work))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    async def _change(self, session_id: str, work: Callable[[Tree], T]) -> T:
        lease: Micros = limits.LEASE_S * SECOND
        fence = await self._database.write(heads.hold, session_id, f"files-{ids.new_id()}", lease)
        keeping = asyncio.create_task(self._keep(session_id, fence, lease))
        try:
            await self.ensure(session_id)
            result = await self._in_tree(session_id, work)
            await self._database.write(queries.measure, session_id, await self.measure(session_id))
            return result
        finally:
            keeping.cancel()
            await self._database.write(heads.release, session_id, fence)

    async def _keep(self, session_id: str, fence: Fence, lease: Micros) -> None:
        while True:
            await asyncio.sleep(limits.LEASE_RENEW_S)
            try:
                await self._database.write(heads.renew, session_id, fence, lease)
            except AlcoveError:
                _log.warning("lease not renewed", exc_info=True, extra={"session_id": session_id})
