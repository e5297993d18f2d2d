"""Events, as listeners see them: from the database always, woken by whoever writes in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import contextmanager

from alcove import limits
from alcove.database.op import Database
from alcove.events import queries
from alcove.events.model import Event


class Events:
    """Reads the events of runs, and waits for more.

    A listener always reads rows, never a buffer, so a stream that resumes a week later, or on another node, is the
    same stream. A writer in this process wakes it; writers elsewhere are noticed within `limits.EVENT_POLL_S`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: dict[str, set[asyncio.Event]] = {}

    async def read(self, run_id: str, after: int = 0, limit: int = limits.EVENT_PAGE) -> list[Event]:
        """Return the events after number `after`, at most `limit` (and the gaps between them)."""
        events, _ = await self._database.read(queries.read, run_id, after, limit)
        return events

    async def subscribe(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events after number `after` as they come, to the run's last one, or until the run is purged."""
        with self._listening(run_id) as wake:
            more = True
            while more:
                wake.clear()
                events, more = await self._database.read(queries.read, run_id, after, limits.EVENT_PAGE)
                for event in events:
                    yield event
                    after = event.n
                if more and not events:
                    await _wait(wake, limits.EVENT_POLL_S)

    async def looks(self, run_id: str, wait_s: float | None = None) -> AsyncGenerator[None]:
        """Yield now, and again whenever something of a run may have changed: look anew each time.

        Args:
            run_id: The run.
            wait_s: Seconds after which the last one comes; None for no last one.
        """
        loop = asyncio.get_running_loop()
        until = None if wait_s is None else loop.time() + wait_s
        with self._listening(run_id) as wake:
            while True:
                wake.clear()
                yield
                left_s = limits.EVENT_POLL_S if until is None else min(limits.EVENT_POLL_S, until - loop.time())
                if left_s <= 0:
                    return
                await _wait(wake, left_s)

    @contextmanager
    def _listening(self, run_id: str) -> Generator[asyncio.Event]:
        wake = asyncio.Event()
        self._listeners.setdefault(run_id, set()).add(wake)
        try:
            yield wake
        finally:
            listeners = self._listeners.get(run_id, set())
            listeners.discard(wake)
            if not listeners:
                self._listeners.pop(run_id, None)

    def wake(self, run_id: str) -> None:
        """Tell this process's listeners that a run has new events."""
        for listener in self._listeners.get(run_id, ()):
            listener.set()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
