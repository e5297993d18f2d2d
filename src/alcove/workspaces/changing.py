"""A change of files from outside: a small run, under the session's lease, with limits before and a count afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias, TypeVar
from weakref import WeakValueDictionary

from alcove import ids, limits
from alcove.clock import SECOND, Micros
from alcove.database.op import Database
from alcove.errors import AlcoveError, ConflictError, StorageError
from alcove.sessions import heads
from alcove.sessions.heads import Fence
from alcove.workspaces import queries
from alcove.workspaces.failures import translated
from alcove.workspaces.model import Usage
from alcove.workspaces.streams import ended

T = TypeVar("T")
Quota: TypeAlias = Callable[[str], Awaitable[Usage | None]]
"""Tells what the workspace of a session may take at most; None for no limit."""

_log = logging.getLogger("alcove.workspaces")


class Changes:
    """Lets one change after the other happen in a session.

    Args:
        database: Where leases and sizes are.
        folder: A path on the disk of the workspaces.

    Attributes:
        quota: Asked before each change and while uploads come in. None asks nobody.
    """

    def __init__(self, database: Database, folder: str) -> None:
        self.quota: Quota | None = None
        self._database = database
        self._folder = folder
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way: set[asyncio.Task[object]] = set()
        self._incoming: Counter[str] = Counter()

    async def close(self) -> None:
        """Wait for the changes that are under way."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    @contextmanager
    def incoming(self, session_id: str) -> Generator[None]:
        """Count one more upload of a session, for as long as it comes in.

        Raises:
            ConflictError: There are `limits.SESSION_UPLOADS` of it already, or `limits.UPLOADS` of all.
        """
        for count, limit, whose in (
            (self._incoming[session_id], limits.SESSION_UPLOADS, "of this session"),
            (self._incoming.total(), limits.UPLOADS, "of all sessions"),
        ):
            if count >= limit:
                raise ConflictError(
                    f"{count} uploads {whose} are coming in already", limit=limit, remedy="wait for one of them to end"
                )
        self._incoming[session_id] += 1
        try:
            yield
        finally:
            self._incoming[session_id] -= 1
            if not self._incoming[session_id]:
                del self._incoming[session_id]

    async def room(self, session_id: str, fence: Fence | None = None) -> Room:
        """Return how much a session may add now.

        Raises:
            SessionNotFoundError: There is no such session, or it is in the trash.
            SessionExpiredError: It takes no more activity.
            SessionBusyError: Somebody else holds it; the caller may as well hear that before it has sent everything.
        """
        if fence is None:
            await self._database.read(heads.check_free, session_id)
        return await self._room(session_id)

    async def run(
        self,
        session_id: str,
        work: Callable[[], Awaitable[T]],
        measure: Callable[[], Awaitable[Usage]],
        *,
        more: Usage | None = None,
        staged: bool = False,
        fence: Fence | None = None,
    ) -> T:
        """Do `work` under the lease of a session, which is taken for it, or held by `fence`; then count.

        Changes of one session take turns in this process. A caller that goes away does not stop one half-way; it is
        let go at once, unless what it has staged, or the lease of its run, is needed until the end.

        Args:
            session_id: Whose files change.
            work: What to do.
            measure: Counts what the workspace takes; called after `work`, also when that failed.
            more: What is going to be added.
            staged: Whether that is on the disk already, out of the session's sight.
            fence: Of the run that holds the session, for its own agent.

        Raises:
            SessionBusyError: A run holds the session; it is the one writer.
            SessionNotFoundError, SessionExpiredError: It takes no activity.
            StaleEpochError: The run of `fence` holds it no more.
            StorageError: The quota or the disk has no room for `more`.
        """
        task = asyncio.create_task(
            self._run(session_id, work, measure, lambda room: room.check(more, staged=staged), fence)
        )
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if staged or fence is not None:
                await ended(task)
            raise

    async def _run(
        self,
        session_id: str,
        work: Callable[[], Awaitable[T]],
        measure: Callable[[], Awaitable[Usage]],
        check: Callable[[Room], None],
        fence: Fence | None,
    ) -> T:
        turn = self._turns.setdefault(session_id, asyncio.Lock())
        async with turn, self._held(session_id, fence):
            check(await self._room(session_id))
            try:
                return await work()
            finally:
                await self._database.write(queries.measure, session_id, await measure())

    @asynccontextmanager
    async def _held(self, session_id: str, fence: Fence | None) -> AsyncGenerator[None]:
        if fence is not None:
            await self._database.write(heads.renew, session_id, fence, _lease())
            yield
            return
        own = await self._database.write(heads.hold, session_id, f"files-{ids.new_id()}", _lease())
        keeping = asyncio.create_task(self._keep(session_id, own))
        try:
            yield
        finally:
            keeping.cancel()
            await self._database.write(heads.release, session_id, own)

    async def _keep(self, session_id: str, fence: Fence) -> None:
        while True:
            await asyncio.sleep(limits.LEASE_RENEW_S)
            try:
                await self._database.write(heads.renew, session_id, fence, _lease())
            except AlcoveError:
                _log.warning("lease not renewed", exc_info=True, extra={"session_id": session_id})

    async def _room(self, session_id: str) -> Room:
        allowed = await self.quota(session_id) if self.quota else None
        taken = await self._database.read(queries.usage, session_id)
        return Room(self._folder, allowed, taken)


class Room:
    """What a workspace may still add: by its quota, and because the disk must not become full for everybody."""

    def __init__(self, folder: str, allowed: Usage | None, taken: Usage) -> None:
        self._folder, self._allowed, self._taken = folder, allowed, taken

    def check(self, more: Usage | None, *, staged: bool = False) -> None:
        """Refuse what does not fit. What a change replaces counts until it is gone: both are there for a moment.

        Args:
            more: What is to be added; None for nothing.
            staged: Whether it is on the disk already.

        Raises:
            StorageError: It names the limit.
        """
        if more is None:
            return
        for what, allowed, taken, added in (
            ("bytes", self._allowed and self._allowed.size_bytes, self._taken.size_bytes, more.size_bytes),
            ("files", self._allowed and self._allowed.files, self._taken.files, more.files),
        ):
            if allowed is not None and taken + added > allowed and added:
                raise StorageError(
                    f"the workspace may have {allowed} {what} and has {taken} already",
                    field="quota",
                    limit=allowed,
                    remedy="delete files of the session, or raise its quota",
                )
        if staged:
            return
        with translated(self._folder):
            disk = os.statvfs(self._folder)
        if more.size_bytes and disk.f_bavail * disk.f_frsize - more.size_bytes < limits.DISK_FREE_BYTES:
            raise StorageError(
                "the disk of the workspaces is nearly full",
                limit=limits.DISK_FREE_BYTES,
                remedy="free some space on the disk of the workspaces",
            )


def _lease() -> Micros:
    return limits.LEASE_S * SECOND
