"""A program that was started: its output, its end, and how to end it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from typing import Final, Literal, final

import msgspec

from alcove.limits import EVENT_BYTES
from alcove.sandbox.watch import Guard

_PATIENCE_S: Final = 5  # with a supervisor that was told to end its tree


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended: by itself with a code, or by a signal; by SIGKILL when its tree was ended."""

    code: int | None
    signal: int | None


@final
class Process:
    """A running program and the tree below it.

    Attributes:
        pid: Of the tree's supervisor, as this machine counts.
        start_time: Of the supervisor, in clock ticks since boot.
        boot_id: Of the machine; the three together name the tree for `processes.end_tree`.
        guard: What holds it to its limits; None for a program that has none.
    """

    def __init__(
        self,
        order: int,
        tell: Callable[[dict[str, int]], None],
        stdout: int,
        stderr: int,
        guard: Guard | None = None,
    ) -> None:
        self.pid = 0
        self.start_time = 0
        self.boot_id = ""
        self.guard = guard
        self._cutting: asyncio.Task[None] | None = None
        self._order = order
        self._tell = tell
        self._pipes: dict[int, Literal["stdout", "stderr"]] = {stdout: "stdout", stderr: "stderr"}
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[Exit] = self._loop.create_future()
        self._at_end: list[Callable[[], None]] = []

    async def output(self) -> AsyncGenerator[tuple[Literal["stdout", "stderr"], bytes]]:
        """Yield what the program writes, in chunks of at most 64 KiB, as it comes; to be iterated once.

        Reads only when asked to, so a slow reader slows the program down. Ends past the limit of output, when both
        pipes are at their end, or, with what is still in them, when the tree is gone.
        """
        try:
            while self._pipes:
                last = self._ended.done()
                silent = True
                for pipe, name in list(self._pipes.items()):
                    chunk = _read(pipe)
                    if chunk:
                        silent = False
                        if self.guard:
                            self.guard.say(len(chunk))
                        yield name, chunk
                        if self.guard and self.guard.said_enough:
                            return
                    elif chunk is not None or last:
                        del self._pipes[pipe]
                        os.close(pipe)
                if silent and self._pipes:
                    await self._readable()
        finally:
            self.close()

    async def wait(self) -> Exit:
        """Return how the program ended, once nothing of its tree is left. Its output has to be read meanwhile.

        Raises:
            LaunchError: Bubblewrap never came to start it; what it said is in the output.
        """
        return await asyncio.shield(self._ended)

    async def kill(self, grace_s: float = 0) -> None:
        """End the whole tree and return when nothing of it is left.

        Args:
            grace_s: How long the program may take to end by itself after SIGTERM; 0 does not ask it.
        """
        if grace_s > 0 and not self._ended.done():
            self._tell({"ask": self._order})
            await asyncio.wait([self._ended], timeout=grace_s)
        if self.guard and self.guard.group and not self._ended.done():
            self.guard.group.kill()
        for word, patience_s in (("kill", _PATIENCE_S), ("force", None)):
            if not self._ended.done():
                self._tell({word: self._order})
                await asyncio.wait([self._ended], timeout=patience_s)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call back when nothing is left of the tree, before `wait` returns; now when that is so already."""
        if self._ended.done():
            callback()
        else:
            self._at_end.append(callback)

    def close(self) -> None:
        """Close the pipes; a program that still writes gets SIGPIPE."""
        while self._pipes:
            pipe, _ = self._pipes.popitem()
            os.close(pipe)

    def __del__(self) -> None:
        self.close()

    async def _readable(self) -> None:
        awaited: asyncio.Future[None] = self._loop.create_future()

        def wake(*_: object) -> None:
            if not awaited.done():
                awaited.set_result(None)

        pipes = list(self._pipes)
        for pipe in pipes:
            self._loop.add_reader(pipe, wake)
        self._ended.add_done_callback(wake)
        try:
            await awaited
        finally:
            self._ended.remove_done_callback(wake)
            for pipe in pipes:
                self._loop.remove_reader(pipe)

    # Called by the spawner, in this order.

    def begin(self, pid: int, start_time: int, boot_id: str) -> None:
        """Note that the program was started."""
        self.pid, self.start_time, self.boot_id = pid, start_time, boot_id
        if self.guard:
            self.guard.begin(pid, self._cut)
        if not self._started.done():
            self._started.set_result(None)

    def fail(self, error: Exception) -> None:
        """Note that it was not."""
        self.end(Exit(code=None, signal=signal.SIGKILL))
        if not self._started.done():
            self._started.set_exception(error)

    def void(self, error: Exception) -> None:
        """Note that it turned out never to have started, and that nothing is left of the tree."""
        if not self._ended.done():
            try:
                self._call_back()
            finally:
                self._ended.set_exception(error)
                self._ended.exception()  # whoever waits gets it; nobody has to

    def end(self, how: Exit) -> None:
        """Note that nothing is left of the tree."""
        if not self._ended.done():
            if self.guard:
                self.guard.end(how.code if how.signal is None else -how.signal)
            try:
                self._call_back()
            finally:
                self._ended.set_result(how)

    def _call_back(self) -> None:
        # Not by the future: whoever asks a future that is done goes on at once, before those who were to be called.
        for callback in self._at_end:
            callback()

    def _cut(self) -> None:
        self._cutting = asyncio.create_task(self.kill())

    async def started(self) -> None:
        """Wait until the program was started."""
        await self._started


def _read(pipe: int) -> bytes | None:
    try:
        return os.read(pipe, EVENT_BYTES)
    except BlockingIOError:
        return None
