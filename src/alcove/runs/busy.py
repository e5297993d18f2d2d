"""What becomes of a message whose session is busy, and the queue of those that wait.

Queued runs are rows: they outlive the process that took them in. Whoever looks after a queue takes the session for the
first of it as soon as nobody holds it, and starts that. So each is started once, in order, by one of any number of
processes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from typing import Protocol, final

from alcove import limits
from alcove.clock import SECOND
from alcove.database.op import Database
from alcove.errors import (
    AlcoveError,
    InvalidError,
    RunEndedError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleEpochError,
)
from alcove.events.service import Events
from alcove.runs import holder, queries, queue_queries
from alcove.runs.model import Ending, RunStatus
from alcove.runs.queue_queries import Claimed, Waiting
from alcove.sessions import heads
from alcove.sessions.heads import Fence

_log = logging.getLogger("alcove.runs")


class Busy(StrEnum):
    """What becomes of a message for a session in which a run goes on."""

    REJECT = "reject"  # it is refused
    QUEUE = "queue"  # it is answered next
    STEER = "steer"  # the run that goes on takes it
    INTERRUPT = "interrupt"  # the run that goes on gives way


def policy(word: str) -> Busy:
    """Return the policy of that name.

    Raises:
        InvalidError: There is none.
    """
    try:
        return Busy(word)
    except ValueError:
        known = ", ".join(Busy)
        raise InvalidError(f"there is no policy {word!r}", field="busy", remedy=f"use one of {known}") from None


class Starter(Protocol):
    """Starts runs that were queued."""

    def knows(self, agent: str) -> bool:
        """Return whether there is an agent of that name in this process."""
        ...

    def holds(self, session_id: str) -> bool:
        """Return whether a run goes on in a session, in this process."""
        ...

    async def begin(self, claimed: Claimed) -> None:
        """Start a run whose session is held for it."""
        ...

    async def give_way(self, run_id: str) -> None:
        """Have a run end, for a message that came after it."""
        ...


@final
class Queue:
    """Looks after the queues of sessions: a task each, as long as something waits there.

    Args:
        database: Where they are.
        events: Carries what runs say.
        starter: Starts what was queued.
    """

    def __init__(self, database: Database, events: Events, starter: Starter) -> None:
        self._database = database
        self._events = events
        self._starter = starter
        self._holder = holder.here()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._kicks: dict[str, asyncio.Event] = {}
        self._starting: set[asyncio.Task[None]] = set()
        self._beginning: dict[str, asyncio.Event] = {}
        self._closed = False

    def look_after(self, session_id: str) -> None:
        """Start what waits in a session, one after the other, as soon as it is free."""
        self.kick(session_id)
        if session_id in self._tasks or self._closed:
            return
        self._kicks[session_id] = asyncio.Event()
        task = asyncio.create_task(self._drain(session_id), name=f"queue of {session_id}")
        self._tasks[session_id] = task
        task.add_done_callback(lambda _: self._forget(session_id))

    def kick(self, session_id: str) -> None:
        """Tell whoever looks after a session that it may be free now."""
        if session_id in self._kicks:
            self._kicks[session_id].set()

    async def adopt(self, *, all_quiet: bool = True) -> None:
        """Look after what waits where nobody else does: its process is gone, or the session is long free and quiet.

        Args:
            all_quiet: Also the second; a process that runs on another machine cannot be known to be gone.
        """
        for session_id, fence, of in await self._database.read(queue_queries.claims):
            if holder.gone(of):
                await self._database.write(heads.release, session_id, fence)
        after = ""
        while found := await self._database.read(queue_queries.sessions, limits.LEASE_S * SECOND, after, limits.PAGE):
            after = found[-1][0]
            for session_id, of, quiet in found:
                if (quiet and all_quiet) or holder.gone(of):
                    self.look_after(session_id)

    async def close(self) -> None:
        """Start no more: what waits is left to others, or to the next start."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._starting, return_exceptions=True)

    async def cancel(self, run_id: str) -> bool:
        """End a run that is queued; return whether it was. One that was about to begin here holds nothing then."""
        dropped = await self._end(run_id, Ending(status=RunStatus.CANCELLED))
        if dropped and run_id in self._beginning:
            await self._beginning[run_id].wait()
        return dropped

    async def _drain(self, session_id: str) -> None:
        while True:
            self._kicks[session_id].clear()
            try:
                waiting = await self._database.read(queue_queries.first, session_id)
                if waiting is None:
                    return
                if waiting.free and self._is_ours(waiting):
                    # To its end, also when nobody looks after the queue any more.
                    task = asyncio.create_task(self._start(session_id))
                    self._starting.add(task)
                    task.add_done_callback(self._starting.discard)
                    await asyncio.shield(task)
                    continue
            except (SessionBusyError, StaleEpochError, RunEndedError):
                pass  # somebody else was first, or it was cancelled meanwhile
            except (SessionExpiredError, SessionNotFoundError) as error:
                await self._fail(session_id, error)
                continue
            except AlcoveError:
                _log.warning("queue not looked after", exc_info=True, extra={"session_id": session_id})
            await self._pause(session_id)

    def _is_ours(self, waiting: Waiting) -> bool:
        """Return whether to start a run here: one of an unknown agent is left to processes that may know it."""
        return self._starter.knows(waiting.agent) or waiting.waited_us > limits.QUEUE_ADOPTED_S * SECOND

    async def _start(self, session_id: str) -> None:
        claimed = await self._database.write(queue_queries.claim, session_id, self._holder)
        if claimed is None:
            return
        over = self._beginning[claimed.run_id] = asyncio.Event()
        try:
            async with self._held(session_id, claimed.fence):
                await self._starter.begin(claimed)
        except BaseException:
            with suppress(AlcoveError):
                await self._database.write(heads.release, session_id, claimed.fence)
            raise
        finally:
            del self._beginning[claimed.run_id]
            over.set()
        following = await self._database.read(queue_queries.first, session_id)
        if following and following.urgent:
            # It came to interrupt while this one was about to begin.
            await self._starter.give_way(claimed.run_id)

    async def _fail(self, session_id: str, error: AlcoveError) -> None:
        """End everything that waits in a session in which nothing can start any more."""
        for queued in await self._database.read(queue_queries.waiting, session_id):
            await self._end(queued.run_id, Ending(status=RunStatus.FAILED, error=str(error)))

    async def _end(self, run_id: str, ending: Ending) -> bool:
        dropped = await self._database.write(queue_queries.drop, run_id, ending)
        if dropped:
            self._events.wake(run_id)
            _log.info("queued run ended", extra={"run_id": run_id, "status": ending.status})
        return dropped

    async def _pause(self, session_id: str) -> None:
        """Wait until the session may be free: that is said by a run of this process, and looked for otherwise."""
        wait_s = limits.LEASE_RENEW_S if self._starter.holds(session_id) else limits.EVENT_POLL_S
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._kicks[session_id].wait()

    @asynccontextmanager
    async def _held(self, session_id: str, fence: Fence) -> AsyncGenerator[None]:
        """Keep a claim while a run is prepared, which may take longer than a lease."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(limits.LEASE_RENEW_S)
                with suppress(AlcoveError):
                    await self._database.write(heads.renew, session_id, fence, queries.LEASE)

        keeping = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeping.cancel()

    def _forget(self, session_id: str) -> None:
        task, kick = self._tasks.pop(session_id), self._kicks.pop(session_id)
        if not task.cancelled() and (error := task.exception()):
            _log.error("queue not looked after any more", exc_info=error, extra={"session_id": session_id})
        elif kick.is_set() and not task.cancelled():
            # Something came in after it was found empty.
            self.look_after(session_id)
