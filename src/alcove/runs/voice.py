"""What a function says, from whatever thread, at the pace at which the database takes it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, final

from alcove import limits
from alcove.errors import ClosedError, TooLargeError
from alcove.runs.journal import Journal


@final
class Voice:
    """Gives a function's words to the journal of its run. Made in the event loop that the journal is written in.

    A thread waits while the journal has much to write, like a program whose pipe is full. Code in the event loop cannot
    wait inside a call: it has `drain`, and an error past the limit.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._home = threading.get_ident()
        self._ahead = 0  # said by threads since one of them last waited

    def emit(self, text: str) -> None:
        """Say a piece.

        Raises:
            ClosedError: The run has ended.
            TooLargeError: Called in the event loop, with `limits.EMIT_BYTES` not yet written.
        """
        if self._journal.closed:
            raise _ended()
        # Lone surrogates, which no database takes, become question marks.
        valid = text.encode(errors="replace").decode()
        if threading.get_ident() != self._home:
            self._emit_from_thread(valid)
            return
        if self._journal.buffered + len(valid) > limits.EMIT_BYTES:
            raise TooLargeError(
                f"{limits.EMIT_BYTES} bytes of output are waiting to be written",
                field="emit",
                limit=limits.EMIT_BYTES,
                remedy="await context.drain() between pieces, or yield them",
            )
        self._journal.add_text("stdout", valid)

    async def drain(self) -> None:
        """Wait while more than `limits.JOURNAL_BUFFER_BYTES` are not yet on their way to the database."""
        await self._journal.drained()

    def _emit_from_thread(self, text: str) -> None:
        self._ahead += self._journal.cost(text)
        try:
            self._loop.call_soon_threadsafe(self._journal.add_text, "stdout", text)
            if self._ahead > limits.EMIT_AHEAD_BYTES:
                self._ahead = 0
                self._wait(self.drain())
        except (RuntimeError, CancelledError):  # the event loop has ended, or is about to
            raise _ended() from None

    def _wait(self, drain: Coroutine[Any, Any, None]) -> None:
        try:
            drained = asyncio.run_coroutine_threadsafe(drain, self._loop)
        except RuntimeError:
            drain.close()
            raise
        while True:
            try:
                return drained.result(limits.EVENT_POLL_S)
            except TimeoutError:
                # A loop that has ended never says so.
                if self._loop.is_closed():
                    raise _ended() from None


def _ended() -> ClosedError:
    return ClosedError("the run has ended: nobody hears what its function says", remedy="return from the function")
