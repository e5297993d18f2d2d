"""Files of a session, as callers use them from outside its runs. Reads take nothing; changes take the lease."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, closing
from functools import partial
from typing import TypeVar

from alcove import limits
from alcove.audit.model import Act
from alcove.audit.service import Audit
from alcove.database.op import Database
from alcove.events.model import Event
from alcove.sessions import queries as session_queries
from alcove.sessions.heads import Fence
from alcove.workspaces import queries
from alcove.workspaces.base import Base
from alcove.workspaces.changing import Changes, Quota, Room
from alcove.workspaces.failures import translated
from alcove.workspaces.model import Condition, Extracted, File, Listing, Usage
from alcove.workspaces.paths import check_path
from alcove.workspaces.streams import Content, ended, entered, finished, part, pieces, stepped
from alcove.workspaces.tree import Tree
from alcove.workspaces.watching import Watches

T = TypeVar("T")


class Files(ABC):
    """What can be done with files: half of `Workspaces`, whose other half is the folders that they lie in.

    Args:
        database: Where leases, uids and sizes are.
        base: The folder of the workspaces.
        folder: Its path.

    Attributes:
        audit: Is told what is deleted; None tells nobody.
    """

    def __init__(self, database: Database, base: Base, folder: str) -> None:
        self.audit: Audit | None = None
        self._database = database
        self._base = base
        self._changes = Changes(database, folder)
        self._watches = Watches(self._look)

    @property
    def quota(self) -> Quota | None:
        """What is asked how much a workspace may take, before each change from outside; None for no limit."""
        return self._changes.quota

    @quota.setter
    def quota(self, quota: Quota | None) -> None:
        self._changes.quota = quota

    @abstractmethod
    async def ensure(self, session_id: str) -> int | None:
        """Make the workspace and the home of a session where they are missing; return its leased uid, if any."""

    async def list_files(self, session_id: str, path: str = "") -> Listing:
        """Return every file of a workspace or of one folder of it, recursively, sorted by path.

        Without a workspace there are none.

        Raises:
            FileMissingError: There is no such folder.
        """
        if not path and not self._base.exists(session_id):
            return Listing(files=(), truncated=False)
        return await self._in_tree(session_id, lambda tree: tree.list(path))

    async def stat(self, session_id: str, path: str) -> File:
        """Return what is at a path: a link itself, not what it points to."""
        return await self._in_tree(session_id, lambda tree: tree.stat(path))

    async def open_read(self, session_id: str, path: str) -> tuple[int, File]:
        """Open a regular file; the caller closes the descriptor."""
        opening = asyncio.ensure_future(self._in_tree(session_id, lambda tree: tree.open_read(path)))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            await ended(opening)
            if not opening.cancelled() and opening.exception() is None:
                os.close(opening.result()[0])
            raise

    async def read(self, session_id: str, path: str) -> bytes:
        """Return the content of a file of at most `limits.FILE_BYTES`."""
        return await self._in_tree(session_id, lambda tree: tree.read(path))

    async def iter_read(self, session_id: str, path: str, *, start: int = 0) -> AsyncGenerator[bytes]:
        """Yield a file of any length from byte `start` on, in pieces of at most `limits.SEND_BYTES`.

        It is read as it is found: up to the end that it has then, when it grows or shrinks meanwhile.
        """
        fd, _ = await self.open_read(session_id, path)
        try:
            async with aclosing(stepped(part(fd, start))) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            os.close(fd)

    async def write(
        self,
        session_id: str,
        path: str,
        data: bytes | Iterable[bytes],
        *,
        condition: Condition | None = None,
        fence: Fence | None = None,
    ) -> File:
        """Make or replace a file, atomically and durably; missing folders are made.

        Args:
            session_id: Whose file.
            path: Relative to the workspace.
            data: Its content; an iterable is read under the lease, so that a slow one belongs in `stream_write`.
            condition: What must be true of the file that is there, such as `MISSING`.
            fence: Of the run that holds the session, when this is done for its agent.

        Raises:
            SessionBusyError: A run holds the session; it is the one writer.
            TooLargeError: More than `limits.FILE_BYTES`; nothing was written.
            ConflictError: There is a folder at `path`, a file where a folder must be, or modes forbid it.
            VersionMismatchError: What is at `path` is not as `condition` asks.
            StorageError: The quota or the disk has no room for it.
        """
        more = Usage(size_bytes=len(data) if isinstance(data, bytes) else 1, files=1)
        return await self._changing(
            session_id, lambda tree: tree.write(path, data, condition=condition), more=more, fence=fence
        )

    async def stream_write(
        self,
        session_id: str,
        path: str,
        data: Content,
        *,
        condition: Condition | None = None,
        fence: Fence | None = None,
        limit_bytes: int | None = None,
    ) -> File:
        """Make or replace a file as `write` does, of any length and from a source of any speed, in bounded memory.

        The content comes in out of the session's sight, and needs the lease only to take its place. When the source
        breaks, nothing has changed.

        Raises:
            TooLargeError: More than `limit_bytes`, which is `limits.UPLOAD_BYTES` by default; nothing was written.
            ConflictError: `limits.SESSION_UPLOADS` are coming in already, or `limits.UPLOADS` of all sessions.
            AlcoveError: What `write` raises.
        """
        check_path(path)
        limit_bytes = limits.UPLOAD_BYTES if limit_bytes is None else limit_bytes
        async with self._outside(session_id, fence) as (tree, room):

            def add(chunk: bytes) -> None:
                room.check(Usage(size_bytes=incoming.size_bytes + len(chunk), files=1))
                with translated(path):
                    incoming.add(chunk)

            async with entered(lambda: tree.receive(limit_bytes)) as incoming:
                async for chunk in pieces(data):
                    await finished(partial(add, chunk))
                await finished(incoming.sync)
                # What has come is on the disk already: the rest adds a name.
                return await self._changing(
                    session_id,
                    lambda _: tree.put(incoming, path, condition=condition),
                    more=Usage(size_bytes=incoming.size_bytes, files=1),
                    staged=True,
                    fence=fence,
                )

    async def mkdir(self, session_id: str, path: str, *, fence: Fence | None = None) -> None:
        """Make a folder, and those above it. Raises what `write` does."""
        await self._changing(session_id, lambda tree: tree.mkdir(path), fence=fence)

    async def delete(
        self,
        session_id: str,
        path: str,
        *,
        recursive: bool = False,
        condition: Condition | None = None,
        fence: Fence | None = None,
        by: str = "library",
    ) -> None:
        """Delete a file, a link, an empty folder, or any folder with `recursive`.

        It is audited before it is done, but for what a run does in its own workspace.

        Raises:
            FileMissingError: There is nothing.
            AlcoveError: What `write` raises.
        """

        async def told() -> None:
            if self.audit and fence is None:
                await self.stat(session_id, path)
                tenant, user_id = await self._database.read(session_queries.owner, session_id) or ("", "")
                subject, words = f"session:{session_id}", {"path": os.fsencode(path).decode(errors="replace")}
                act = Act(
                    act="file.deleted",
                    subject=subject,
                    tenant=tenant,
                    user_id=user_id,
                    session_id=session_id,
                    who=by,
                    words=words,
                )
                await self.audit.done(act)

        await self._changing(
            session_id,
            lambda tree: tree.delete(path, recursive=recursive, condition=condition),
            before=told,
            fence=fence,
        )

    async def move(
        self,
        session_id: str,
        path: str,
        to: str,
        *,
        replace: bool = False,
        condition: Condition | None = None,
        fence: Fence | None = None,
    ) -> File:
        """Give a file, link or folder another path in the same workspace, in one step; return what is there now.

        Args:
            session_id: Whose.
            path: What to move.
            to: Its whole new path; folders missing on the way are made.
            replace: Replace what is not a folder there, or an empty folder by a folder.
            condition: What must be true of `path`.
            fence: As for `write`.

        Raises:
            AlreadyExistsError: There is something at `to`, and `replace` is false or does not help.
            FileMissingError: There is nothing at `path`.
            AlcoveError: What `write` raises.
        """
        return await self._changing(
            session_id, lambda tree: tree.move(path, to, replace=replace, condition=condition), fence=fence
        )

    async def archive(self, session_id: str, path: str = "") -> AsyncGenerator[bytes]:
        """Yield a tar.gz of a workspace, or of one folder of it: see `packing.pack` for what is in it."""
        async with self._opened(session_id) as tree, aclosing(stepped(tree.archive(path))) as made:
            async for piece in made:
                yield piece

    async def extract(
        self,
        session_id: str,
        data: Content,
        path: str = "",
        *,
        replace: bool = False,
        skip: bool = False,
        fence: Fence | None = None,
    ) -> Extracted:
        """Put what is in a tar or tar.gz archive into a workspace, or one folder of it: all of it or nothing.

        It is taken apart out of the session's sight, and needs the lease only to take its place. Refused are absolute
        paths and `..`, links and hard links that lead out, devices, FIFOs, members that come twice, sparse files, and
        what is past `limits.ARCHIVE_BYTES`, `ARCHIVE_NAMES`, `ARCHIVE_RATIO` and `TREE_DEPTH`. Owners, setuid bits and
        attributes are dropped; modes (0777) are kept, and the times of files and links.

        Args:
            session_id: Whose workspace.
            data: The archive, of any length and from a source of any speed.
            path: The folder to put it into; made when it is missing, and then it appears in one step.
            replace: Replace files of the same path; without, one of them refuses the archive.
            skip: Leave out single members that are refused, and say so in what is returned.
            fence: As for `write`.

        Raises:
            InvalidError: It is no archive, is damaged, or holds what is refused.
            TooLargeError: It is past a limit.
            AlreadyExistsError, ConflictError: Something is in the way.
            AlcoveError: What `stream_write` raises.
        """
        async with self._outside(session_id, fence) as (tree, room):

            def feed(chunk: bytes) -> None:
                room.check(extraction.taken)
                extraction.feed(chunk)

            async with entered(lambda: tree.stage(path, skip=skip)) as extraction:
                async for chunk in pieces(data, limits.SEND_BYTES):
                    await finished(partial(feed, chunk))
                extracted = await finished(extraction.finish)
                await asyncio.to_thread(room.check, extraction.taken)
                await self._changing(
                    session_id,
                    lambda _: extraction.place(replace=replace),
                    more=extraction.taken,
                    staged=True,
                    fence=fence,
                )
                return extracted

    def watch(self, session_id: str, after: int | None = None) -> AsyncGenerator[Event]:
        """Yield what changes in the files of a session: see `Watches.watch`."""
        return self._watches.watch(session_id, after)

    async def measure(self, session_id: str) -> Usage:
        """Measure a workspace now; about 24 ms for 10,000 files."""
        return await self._in_tree(session_id, lambda tree: tree.usage())

    @asynccontextmanager
    async def _opened(self, session_id: str) -> AsyncGenerator[Tree]:
        uid = await self._database.read(queries.find, session_id)
        async with entered(lambda: closing(self._base.tree(session_id, owner=uid or None))) as tree:
            yield tree

    @asynccontextmanager
    async def _outside(self, session_id: str, fence: Fence | None) -> AsyncGenerator[tuple[Tree, Room]]:
        """Give a workspace to prepare a change for, while its lease is somebody else's or nobody's."""
        room = await self._changes.room(session_id, fence)
        if not self._base.exists(session_id):
            # Under the lease: a run that begins meanwhile has its own way to keep others out of the folder.
            await self._changing(session_id, lambda _: None, fence=fence)
        with self._changes.incoming(session_id):
            async with self._opened(session_id) as tree:
                yield tree, room

    async def _in_tree(self, session_id: str, work: Callable[[Tree], T]) -> T:
        uid = await self._database.read(queries.find, session_id)

        def run() -> T:
            with self._base.tree(session_id, owner=uid or None) as tree:
                return work(tree)

        return await asyncio.to_thread(run)

    async def _changing(
        self,
        session_id: str,
        work: Callable[[Tree], T],
        *,
        more: Usage | None = None,
        staged: bool = False,
        before: Callable[[], Awaitable[None]] | None = None,
        fence: Fence | None = None,
    ) -> T:
        async def change() -> T:
            if fence is None:  # a run has made the folder, and keeps others out of it in its own way
                await self.ensure(session_id)
            if before:
                await before()
            return await self._in_tree(session_id, work)

        try:
            return await self._changes.run(
                session_id, change, lambda: self.measure(session_id), more=more, staged=staged, fence=fence
            )
        finally:
            self._watches.wake(session_id)

    async def _look(self, session_id: str) -> Listing | None:
        """Return the files for a watch, None when there is no such session any more."""
        if not await self._database.read(queries.there, session_id):
            return None
        return await self.list_files(session_id)
