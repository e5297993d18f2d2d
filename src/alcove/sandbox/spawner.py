"""The server's side of the warm spawner: it starts it, gives orders and hears what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Final, Literal, final

import msgspec

from alcove.errors import AgentUnavailableError, ClosedError, LaunchError
from alcove.limits import EVENT_BYTES
from alcove.sandbox import processes
from alcove.sandbox.plan import Failure, Order, Plan
from alcove.sandbox.watch import Guard

_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# `-I -S` keeps variables, user folders and .pth files of this server out of a process that may be root.
BOOT: Final = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from alcove.sandbox.spawning import main; main(int(sys.argv[1]))"
)
_READY_S: Final = 20
_PATIENCE_S: Final = 5  # with a supervisor that was told to end its tree
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_MESSAGE_BYTES: Final = 64 * 1024


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

    def __init__(self, order: int, spawner: Spawner, stdout: int, stderr: int, guard: Guard | None = None) -> None:
        self.pid = 0
        self.start_time = 0
        self.boot_id = ""
        self.guard = guard
        self._cutting: asyncio.Task[None] | None = None
        self._order = order
        self._spawner = spawner
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
            self._spawner.tell({"ask": self._order})
            await asyncio.wait([self._ended], timeout=grace_s)
        if self.guard and self.guard.group and not self._ended.done():
            self.guard.group.kill()
        for word, patience_s in (("kill", _PATIENCE_S), ("force", None)):
            if not self._ended.done():
                self._spawner.tell({word: self._order})
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


@final
class Spawner:
    """One warm spawner process, started again when it died."""

    def __init__(self, boot: str = BOOT) -> None:
        self._boot = boot
        self._orders = 0
        self._runs: dict[int, Process] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._starting = asyncio.Lock()
        self._ready: asyncio.Future[None] | None = None
        self._boot_id = processes.boot_id()
        self._closed = False
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """The process id of the spawner, if it runs."""
        return self._process.pid if self._process else None

    async def start(self, plan: Plan, stdin: bytes, *, door: int | None = None, guard: Guard | None = None) -> Process:
        """Start a program.

        Args:
            plan: What it may touch.
            stdin: What it reads.
            door: A Unix socket through which a proxied run hands out its listening one, before it has started.
            guard: What will hold it to its limits.

        Raises:
            AgentUnavailableError: There is no such program in the sandbox, or it cannot be executed.
            LaunchError: A step failed; `details["step"]` names it.
            ClosedError: The spawner was closed.
        """
        await self._ensure()
        self._orders += 1
        order = Order(id=self._orders, rung=plan["rung"], network=plan["network"], nest=plan["nest"], uid=plan["uid"])
        mine: list[int] = []
        theirs: list[int] = []
        try:
            theirs += [_memory("plan", json.dumps(plan).encode()), _memory("stdin", stdin)]
            for _ in range(2):
                reader, writer = os.pipe()
                mine.append(reader)
                theirs.append(writer)
                os.set_blocking(reader, False)
            process = Process(order["id"], self, mine[0], mine[1], guard)
            mine.clear()
            self._runs[order["id"]] = process
            self.tell(order, [*theirs, *(guard.joins if guard else ()), *(() if door is None else (door,))])
        finally:
            for one in (*mine, *theirs):
                os.close(one)
        try:
            await process.started()
        except BaseException:
            process.close()
            self.tell({"kill": order["id"]})  # it may be starting still, when it is we who were cancelled
            raise
        return process

    def tell(self, message: Order | dict[str, int], descriptors: list[int] | None = None) -> None:
        """Send a message; one that cannot be sent is for a spawner that is dead, whose end is noticed elsewhere."""
        if self._control is None:
            return
        # Blocks only while the spawner has more unread orders than its socket holds, which takes thousands.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors or [])

    async def close(self) -> None:
        """End every tree that is left, then the spawner."""
        self._closed = True
        await asyncio.gather(*(process.kill() for process in self._runs.values()))
        self._drop()
        await asyncio.gather(*self._ending)

    async def _ensure(self) -> None:
        async with self._starting:
            if self._closed:
                raise ClosedError("the sandbox is closed")
            if self._control is None:
                self._launch()
            assert self._ready is not None
            if self._ready.done() and not self._ready.exception():
                return
            try:
                await asyncio.wait_for(asyncio.shield(self._ready), _READY_S)
            except TimeoutError:
                self._drop()
                raise LaunchError("the warm spawner did not get ready", step="spawner") from None

    def _launch(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", self._boot, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise LaunchError(f"the warm spawner cannot be started: {error}", step="spawner") from error
        self._control = ours
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        loop.add_reader(ours, self._hear)

    def _hear(self) -> None:
        assert self._control is not None
        try:
            text = self._control.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            text = b""
        if not text:
            self._drop()
            return
        message = json.loads(text)
        if "ready" in message:
            assert self._ready is not None
            self._ready.set_result(None)
            return
        process = self._runs[message["id"]]
        if "started" in message:
            process.begin(message["started"], message["start_time"], self._boot_id)
            return
        del self._runs[message["id"]]
        if "void" in message:
            process.void(_error(message["void"]))
        elif "failed" in message:
            process.fail(_error(message["failed"]))
        else:
            process.end(_exit(message["ended"]))

    def _drop(self) -> None:
        """Let go of a spawner that is dead or has to go, and see that its trees are gone before saying so."""
        if self._control is None or self._process is None or self._ready is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._control = None
        if not self._ready.done():
            self._ready.set_exception(LaunchError("the warm spawner ended while it started", step="spawner"))
            self._ready.exception()  # nobody may be waiting any more, which is no mistake
        spawner, self._process = self._process, None
        runs, self._runs = self._runs, {}
        task = asyncio.create_task(_bury(spawner, list(runs.values())))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _bury(spawner: subprocess.Popen[bytes], runs: list[Process]) -> None:
    spawner.kill()
    await asyncio.to_thread(spawner.wait)
    for process in runs:
        if process.pid:
            await asyncio.to_thread(processes.end_tree, process.pid, process.start_time, process.boot_id)
        process.fail(LaunchError("the warm spawner ended", step="spawner"))


def _memory(name: str, content: bytes) -> int:
    """Return a descriptor of an unchangeable file in memory: a program that never reads it blocks nobody."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, memoryview(content)[written:], written)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


def _read(pipe: int) -> bytes | None:
    try:
        return os.read(pipe, EVENT_BYTES)
    except BlockingIOError:
        return None


def _exit(code: int | None) -> Exit:
    if code is None:
        return Exit(code=None, signal=signal.SIGKILL)
    return Exit(code=code, signal=None) if code >= 0 else Exit(code=None, signal=-code)


def _error(failure: Failure) -> Exception:
    step, detail = failure["step"], failure["detail"]
    if step == "program" and failure["errno"]:
        return AgentUnavailableError(
            f"the program cannot be executed: {detail}",
            remedy="check its name; if it is installed outside of /usr and /opt, grant its folder with `read`",
            errno=failure["errno"],
        )
    return LaunchError(f"step {step!r} of a confined start failed: {detail}", step=step, errno=failure["errno"])
