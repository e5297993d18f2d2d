"""One event loop in a thread of its own, and the way into it for threads without one."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, Generic, TypeVar

from alcove.errors import ClosedError, ConflictError

T = TypeVar("T")

_REOPEN: Final = "open it again"


class _Call(Generic[T]):
    """A call on its way into the loop, and then its outcome on the way back."""

    __slots__ = ("_function", "_gone", "_loop", "answered", "error", "ready", "result", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Coroutine[Any, Any, T] | T]) -> None:
        self._loop = loop
        self._function = function
        self._gone = False
        self.task: asyncio.Task[None] | None = None
        self.answered = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.ready = threading.Lock()  # a bare lock costs a third of an Event
        self.ready.acquire()

    def start(self) -> None:
        """Begin; called in the loop."""
        try:
            result = self._function()
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            self.answer(None, error)
            return
        if not asyncio.iscoroutine(result):
            self.answer(result)
            return
        coroutine: Coroutine[Any, Any, T] = result
        self.task = self._loop.create_task(self._finish(coroutine))
        self.task.add_done_callback(lambda _: self._end(coroutine))
        if self._gone:
            self.task.cancel()

    async def _finish(self, coroutine: Coroutine[Any, Any, T]) -> None:
        # The caller goes on from here: a callback of the task would come two rounds of the loop later.
        try:
            result = await coroutine
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            self.answer(None, error)
        else:
            self.answer(result)

    def _end(self, coroutine: Coroutine[Any, Any, T]) -> None:
        coroutine.close()  # one that was cancelled before its first step
        self.abandon()

    def answer(self, result: Any, error: BaseException | None = None) -> None:
        """Let the caller go on."""
        self.answered = True
        self.result, self.error = result, error
        self.ready.release()

    def abandon(self) -> None:
        """Let the caller of what will not be done go on."""
        if not self.answered:
            self.answer(None, ClosedError("the hub was closed before the call was done", remedy=_REOPEN))

    def cancel(self) -> None:
        """Give up; called in the loop."""
        self._gone = True
        if self.task:
            self.task.cancel()


class Portal:
    """Runs functions and coroutines in its loop for callers in other threads. Any number of them may call at once."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._closed = False
        self._ended: Future[None] = Future()
        self._thread: threading.Thread | None = None
        self._spawned: set[asyncio.Task[None]] = set()
        self._calls: set[_Call[Any]] = set()  # those that somebody waits for

    def open(self, context: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Start the thread and enter a context in it; return what it gives. Raises what entering does."""
        opened: Future[T] = Future()
        self._thread = threading.Thread(target=self._work, args=(context, opened), name="alcove-portal", daemon=True)
        self._thread.start()
        try:
            return opened.result()
        except BaseException:
            # It could not be opened, and the thread ends by itself; or Ctrl-C came first.
            with suppress(ClosedError):
                self._post(self._closing.set)
            self._thread.join()
            raise

    def _work(self, context: Callable[[], AbstractAsyncContextManager[T]], opened: Future[T]) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._live(context, opened))
            self._ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever opened or closes
            (self._ended if opened.done() else opened).set_exception(error)
        # What was posted after the last round of the loop; what comes from now on finds it closed.
        for call in list(self._calls):
            call.abandon()

    async def _live(self, context: Callable[[], AbstractAsyncContextManager[T]], opened: Future[T]) -> None:
        # One task enters and leaves, as contexts may demand.
        async with context() as value:
            opened.set_result(value)
            await self._closing.wait()
            # What comes from now on is refused; what waits is answered by what closes, or cancelled by the runner.
            self._closed = True

    def call(self, function: Callable[[], Coroutine[Any, Any, T] | T]) -> T:
        """Call a function in the loop, await what it returns, and return the result; or raise what it raised.

        Ctrl-C while waiting cancels the call, waits until that is done, and passes on.

        Raises:
            ClosedError: The portal was closed, or opened before a fork.
            ConflictError: Called from the loop itself, which would wait for itself.
        """
        self.check()
        if threading.current_thread() is self._thread:
            raise ConflictError(
                "the blocking door was called from the hub's own event loop",
                remedy="use the async hub there: `agents.register` gives functions a context",
            )
        call = _Call[T](self._loop, function)
        self._calls.add(call)
        try:
            self._post(call.start)
            call.ready.acquire()
        except KeyboardInterrupt:
            self._post(call.cancel)
            call.ready.acquire()
            raise
        finally:
            self._calls.discard(call)
        if call.error is not None:
            try:
                raise call.error
            finally:
                del call  # or the error's traceback would hold itself
        return call.result

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have something done in the loop without waiting; nothing happens when there is no loop any more."""

        def start() -> None:
            task = self._loop.create_task(function())
            self._spawned.add(task)
            task.add_done_callback(self._spawned.discard)

        if not self._closed and os.getpid() == self._pid:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(start)

    def check(self) -> None:
        """Refuse to go on when there is no loop in this process."""
        if os.getpid() != self._pid:
            raise ClosedError("the hub was opened before a fork", remedy="open it in the process that uses it")
        if self._closed:
            raise ClosedError("the hub has been closed", remedy=_REOPEN)

    def close(self) -> None:
        """Leave the context, end the thread and wait for it. Twice is fine; in a forked child nothing happens."""
        if os.getpid() != self._pid or self._thread is None:
            return
        if threading.current_thread() is self._thread:
            raise ConflictError(
                "the hub cannot be closed from its own event loop", remedy="close it where it was opened"
            )
        with suppress(ClosedError):
            self._post(self._closing.set)
        self._thread.join()
        ended, self._ended = self._ended, Future()
        self._ended.set_result(None)
        ended.result()

    def _post(self, function: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError as error:
            raise ClosedError("the hub has been closed", remedy=_REOPEN) from error


class Steps(Generic[T]):
    """An async iterator, step by step from outside the loop.

    One task goes through it from the first step to the last, as it would in a coroutine: what spans steps (a time
    limit, a context variable) belongs to a task.
    """

    def __init__(self, source: AsyncIterator[T]) -> None:
        self._source = source
        self._wanted = asyncio.Semaphore(0)
        self._given: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._asked = False

    async def step(self) -> tuple[bool, Any]:
        """Return True and the next item, or False and the error that ended it (None: the end)."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        if not self._asked:  # an interrupted call left its item to the next
            self._asked = True
            self._wanted.release()
        given = await self._given.get()
        self._asked = False
        return given

    async def close(self) -> None:
        """End it where it is."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            await self._wanted.acquire()
            async for item in self._source:
                self._given.put_nowait((True, item))
                await self._wanted.acquire()
        except Exception as raised:  # noqa: BLE001 - it belongs to whoever steps
            error = raised
        finally:
            close = getattr(self._source, "aclose", None)
            if close:
                await close()
            self._given.put_nowait((False, error))
