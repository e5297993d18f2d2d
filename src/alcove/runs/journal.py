"""What a run says while it works, on its way to the database.

Output is buffered until the write before it is durable, then written as one batch: a quiet program is seen at once,
a loud one in large pieces, and one that is louder than the database waits. The first and the last
`limits.JOURNAL_HEAD_BYTES` and `JOURNAL_TAIL_BYTES` are kept; what lies between becomes a gap.
"""

from __future__ import annotations

import asyncio
import codecs
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from alcove import limits
from alcove.database.op import Database
from alcove.errors import ClosedError
from alcove.events.model import NewEvent
from alcove.events.service import Events
from alcove.runs import queries
from alcove.sessions.heads import Fence

T = TypeVar("T")

_PIECE_BYTES: Final = 64  # what a buffered piece takes besides its text


class Journal:
    """The one writer of a run's events.

    Attributes:
        next: The number of the next event.
        closed: Whether no more output is taken; may be read from any thread.
        buffered: Bytes, about, that are not yet on their way to the database.
    """

    def __init__(self, database: Database, events: Events, session_id: str, fence: Fence, first: int) -> None:
        self.next = first
        self._database = database
        self._events = events
        self._session_id = session_id
        self._fence = fence
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": decoder("replace"), "stderr": decoder("replace")}
        self._buffer: list[tuple[str, str]] = []
        self.buffered = 0
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.closed = False
        self._head_left = limits.JOURNAL_HEAD_BYTES
        self._head_end = 0
        self._tail: deque[tuple[int, int]] = deque()
        self._tail_bytes = 0
        self._turn = asyncio.Lock()  # whoever has it gives events their numbers

    async def add(self, stream: str, chunk: bytes) -> None:
        """Take output of a program; waits while more than `limits.JOURNAL_BUFFER_BYTES` are not yet durable."""
        self.add_text(stream, self._decoders[stream].decode(chunk))
        await self.drained()

    async def drained(self) -> None:
        """Wait while more than `limits.JOURNAL_BUFFER_BYTES` are buffered."""
        await self._drained.wait()

    def add_text(self, stream: str, text: str) -> None:
        """Take output without waiting; none is taken once the journal is closed or cannot be written."""
        if not text or self.closed:
            return
        self._buffer.append((stream, text))
        self.buffered += self.cost(text)
        if self.buffered > limits.JOURNAL_BUFFER_BYTES:
            self._drained.clear()
        self._changed.set()

    @staticmethod
    def cost(text: str) -> int:
        """Return what a piece counts for in the buffer: many small ones take more room than their text."""
        return len(text) + _PIECE_BYTES

    async def write(self) -> None:
        """Write until `close`; the run's supervisor runs this as a task.

        Raises:
            StaleEpochError: The run has lost its lease; what is buffered is not written.
        """
        try:
            while not (self.closed and not self._buffer):
                await self._changed.wait()
                self._changed.clear()
                async with self._turn:
                    await self._flush()
        finally:
            # A program that goes on talking must not wait for a writer that is no more.
            self.closed = True
            self._drained.set()
        async with self._turn:
            return  # what is written beside has its number: none is given after this

    async def beside(self, write: Callable[[int], Awaitable[tuple[T, int]]]) -> T:
        """Have events written in somebody's own transaction, after all that was said before them.

        Has to run to its end: whoever may be cancelled makes it a task and shields that.

        Args:
            write: Is given the first event's number; returns its result, and how many events it wrote.

        Raises:
            ClosedError: The run has ended, or is about to.
        """
        async with self._turn:
            if self.closed:
                raise ClosedError("the run has ended", remedy="return")
            await self._flush()
            result, written = await write(self.next)
            self.next += written
        self._events.wake(self._fence.run_id)
        return result

    def close(self) -> None:
        """Let `write` end once everything is written."""
        for stream, decoder in self._decoders.items():
            self.add_text(stream, decoder.decode(b"", final=True))
        self.closed = True
        self._changed.set()

    async def _flush(self) -> None:
        batch, self._buffer, self.buffered = self._buffer, [], 0
        self._drained.set()
        for entries in _batches(batch):
            await self._write(entries)

    async def _write(self, entries: list[NewEvent]) -> None:
        dropped = self._account(entries)
        await self._database.write(queries.journal, self._session_id, self._fence, self.next, entries, dropped)
        self.next += len(entries)
        self._events.wake(self._fence.run_id)

    def _account(self, entries: list[NewEvent]) -> tuple[int, int] | None:
        """Count what is about to be written; return the numbers between which events are to be forgotten."""
        for n, entry in enumerate(entries, self.next):
            size = len(str(entry.data["text"]).encode())
            if self._head_left > 0:
                self._head_left -= size
                self._head_end = n
            else:
                self._tail.append((n, size))
                self._tail_bytes += size
        gone = 0
        while self._tail_bytes > limits.JOURNAL_TAIL_BYTES:
            gone, size = self._tail.popleft()
            self._tail_bytes -= size
        return (self._head_end, gone + 1) if gone else None


def _batches(pieces: list[tuple[str, str]]) -> list[list[NewEvent]]:
    """Return pieces as output events of at most `limits.EVENT_BYTES`, a few to a transaction."""
    entries: list[NewEvent] = []
    parts: list[str] = []
    size, last = 0, ""

    def cut() -> None:
        if parts:
            entries.append(NewEvent("output", {"stream": last, "text": "".join(parts)}))
            parts.clear()

    # A character takes at most four bytes.
    most = limits.EVENT_BYTES // 4
    for stream, text in pieces:
        for start in range(0, len(text), most):
            piece = text[start : start + most]
            if stream != last or size + len(piece) > most:
                cut()
                size = 0
            parts.append(piece)
            size, last = size + len(piece), stream
    cut()
    return [entries[i : i + 16] for i in range(0, len(entries), 16)]
