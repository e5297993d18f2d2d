"""Between the event loop, where bytes come from and go to, and the threads in which files are read and written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar

from alcove import limits

T = TypeVar("T")
Content: TypeAlias = bytes | Iterable[bytes] | AsyncIterable[bytes]
"""Bytes, or pieces of them: from an iterable, such as an open binary file, or as they arrive."""


async def pieces(data: Content, size_bytes: int = limits.MIB) -> AsyncGenerator[bytes]:
    """Yield content in pieces of at least a size (but for the last), so that not every packet costs a thread's turn."""
    if isinstance(data, bytes):
        yield data
        return
    kept = bytearray()
    async for chunk in data if isinstance(data, AsyncIterable) else _read(data):
        kept += chunk
        if len(kept) >= size_bytes:
            yield bytes(kept)
            kept.clear()
    if kept:
        yield bytes(kept)


async def finished(work: Callable[[], T]) -> T:
    """Return what `work`, which blocks, returns in a thread; a caller that is cancelled waits for its end first.

    For what works on descriptors that the caller closes: their numbers may be those of other files a moment later.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await ended(task)
        raise


async def ended(task: asyncio.Future[Any]) -> None:
    """Wait for a task to end, however often this is cancelled meanwhile; what comes of it is looked at by nobody."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


@asynccontextmanager
async def entered(make: Callable[[], AbstractContextManager[T]]) -> AsyncGenerator[T]:
    """Enter and leave a context manager that blocks, in threads."""
    manager = make()
    entering = asyncio.ensure_future(asyncio.to_thread(manager.__enter__))
    try:
        opened = await asyncio.shield(entering)
    except asyncio.CancelledError:
        await ended(entering)
        if not entering.cancelled() and entering.exception() is None:
            await finished(lambda: manager.__exit__(None, None, None))
        raise
    try:
        yield opened
    finally:
        await finished(lambda: manager.__exit__(None, None, None))


async def stepped(steps: Generator[bytes]) -> AsyncGenerator[bytes]:
    """Yield what a generator that blocks yields, each step in a thread; it is closed in the end."""
    step: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(_next, steps))
            piece = await asyncio.shield(step)
            if piece is None:
                return
            yield piece
    finally:
        if step is not None:
            await ended(step)  # a generator that is running cannot be closed
        await finished(steps.close)


def part(fd: int, start: int, length: int | None = None) -> Generator[bytes]:
    """Yield what is open as `fd` from byte `start` on, up to its end or a length; blocks."""
    end = None if length is None else start + length
    while end is None or start < end:
        chunk = os.pread(fd, limits.SEND_BYTES if end is None else min(limits.SEND_BYTES, end - start), start)
        if not chunk:
            return
        start += len(chunk)
        yield chunk


def _next(steps: Generator[bytes]) -> bytes | None:
    return next(steps, None)


async def _read(data: Iterable[bytes]) -> AsyncGenerator[bytes]:
    chunks = iter(data)
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
