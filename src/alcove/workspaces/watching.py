"""Tells listeners what changes in the files of a session, by comparing one listing with the next.

Why not inotify, and what this costs: docs/adr/0011-watching-compares-listings.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable

from alcove import limits
from alcove.clock import SystemClock
from alcove.errors import ConflictError, SessionNotFoundError, TooLargeError
from alcove.events.model import GAP, Event
from alcove.values import Json
from alcove.workspaces.model import Listing

_Marks = dict[str, str]
_Look = Callable[[str], Awaitable[Listing | None]]
_clock = SystemClock()


class Watches:
    """The sessions that somebody watches; each is looked at once for all its listeners.

    Args:
        look: Returns the files of a session, None when there is no such session.
    """

    def __init__(self, look: _Look) -> None:
        self._look = look
        self._watches: dict[str, _Watch] = {}

    async def watch(self, session_id: str, after: int | None = None) -> AsyncGenerator[Event]:
        """Yield `files` events, as long as the session is there and the caller listens.

        The first one is empty, and says that the watch has begun: what is listed after it is not older than what
        follows. Each other has the paths that are new or changed in `changed`, those that are gone in `removed`, and
        in `more` how many of both were left out past `limits.CHANGED_FILES`. A change that is undone before anybody
        looked is not seen; how often is looked: see `limits.WATCH_S`.

        Args:
            session_id: Whose files.
            after: Go on after the event of this number: what happened since follows, or, when that is not known any
                more, a `gap` event, upon which the caller lists anew.

        Raises:
            SessionNotFoundError: There is no such session.
            ConflictError: `limits.WATCHES` sessions are watched already.
            TooLargeError: It has more than `limits.LISTING_FILES` files; also later, when it comes to that.
        """
        watch = self._watches.get(session_id)
        if watch is None:
            if len(self._watches) >= limits.WATCHES:
                raise ConflictError(
                    f"{limits.WATCHES} sessions are watched already", limit=limits.WATCHES, remedy="end another watch"
                )
            watch = self._watches[session_id] = _Watch(session_id, self._look, self._watches)
        async for event in watch.listen(after):
            yield event

    def wake(self, session_id: str) -> None:
        """Have a session looked at now, because its files were changed."""
        if watch := self._watches.get(session_id):
            watch.wake.set()

    async def close(self) -> None:
        """End every watch."""
        for watch in list(self._watches.values()):
            await watch.end()


class _Watch:
    """One watched session. Keeps its last events for a while, for listeners that lost their connection."""

    def __init__(self, session_id: str, look: _Look, watches: dict[str, _Watch]) -> None:
        self.wake = asyncio.Event()
        self._session_id, self._look, self._watches = session_id, look, watches
        # Numbers grow over restarts, so that one of an earlier watch is known for what it is. Nothing is known of what
        # happened up to `_forgotten`; later events are kept.
        self._forgotten = self._last = _clock.now()
        self._kept: deque[Event] = deque()
        self._listeners: set[asyncio.Event] = set()
        self._ready = False
        self._looking = asyncio.create_task(self._run())
        self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def listen(self, after: int | None) -> AsyncGenerator[Event]:
        told = asyncio.Event()
        self._listeners.add(told)
        self.wake.set()
        try:
            while not self._ready and not self._looking.done():
                await told.wait()
                told.clear()
            if not self._ready:
                self._end()
                return
            if after is None or after > self._last:
                after = self._last
                yield self._event({"changed": [], "removed": [], "more": 0}, after)
            while True:
                told.clear()
                if after < self._forgotten:
                    yield Event(self._forgotten, GAP, {"from": after + 1, "to": self._forgotten}, _clock.now())
                    after = self._forgotten
                for event in [one for one in self._kept if one.n > after]:
                    yield event
                    after = event.n
                if self._looking.done():
                    self._end()
                    return
                if not told.is_set():
                    await told.wait()
        finally:
            self._listeners.discard(told)
            self.wake.set()

    async def end(self) -> None:
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)

    def _end(self) -> None:
        """Raise what ended the looking, if it was an error."""
        if not self._looking.cancelled():
            self._looking.result()

    def _event(self, data: dict[str, Json], n: int) -> Event:
        return Event(n, "files", data, _clock.now())

    async def _run(self) -> None:
        """Look again and again, until nobody has listened for a while or the session is gone."""
        try:
            before = await self._marks()
            self._ready = True
            self._tell_all()
            unheard_since: float | None = None
            while unheard_since is None or _clock.monotonic() - unheard_since < limits.WATCH_LINGER_S:
                begun = _clock.monotonic()
                after = await self._marks()
                self._compare(before, after)
                before = after
                await self._pause(_clock.monotonic() - begun)
                unheard_since = None if self._listeners else unheard_since or _clock.monotonic()
        except SessionNotFoundError:
            if not self._ready:
                raise
        finally:
            if self._watches.get(self._session_id) is self:
                del self._watches[self._session_id]
            asyncio.get_running_loop().call_soon(self._tell_all)  # when this task has ended

    async def _pause(self, took_s: float) -> None:
        # All watches together take a twentieth of one processor at most.
        self.wake.clear()
        try:
            async with asyncio.timeout(max(limits.WATCH_S, 20 * took_s * len(self._watches))):
                await self.wake.wait()
        except TimeoutError:
            return

    async def _marks(self) -> _Marks:
        listing = await self._look(self._session_id)
        if listing is None:
            raise SessionNotFoundError(
                f"there is no session {self._session_id}", field="session_id", session_id=self._session_id
            )
        if listing.truncated and len(listing.files) >= limits.LISTING_FILES:
            raise TooLargeError(
                f"the workspace has more than {limits.LISTING_FILES} files",
                limit=limits.LISTING_FILES,
                remedy="list it now and then instead",
            )
        return {file.path: file.version for file in listing.files}

    def _compare(self, before: _Marks, after: _Marks) -> None:
        if before == after:
            return
        changed = sorted(path for path, mark in after.items() if before.get(path) != mark)
        removed = sorted(before.keys() - after.keys())
        told = [_shown(path) for path in changed[: limits.CHANGED_FILES]]
        gone = [_shown(path) for path in removed[: limits.CHANGED_FILES - len(told)]]
        more = len(changed) + len(removed) - len(told) - len(gone)
        self._last = max(self._last + 1, _clock.now())
        if len(self._kept) == limits.WATCH_EVENTS:
            self._forgotten = self._kept.popleft().n
        self._kept.append(self._event({"changed": [*told], "removed": [*gone], "more": more}, self._last))
        self._tell_all()

    def _tell_all(self) -> None:
        for told in self._listeners:
            told.set()


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
