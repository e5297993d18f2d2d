"""The server's side of the warm spawner: it starts it, gives orders and hears what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import marshal
import os
import signal
import socket
import subprocess
import sys
from typing import Final, final

from alcove.errors import AgentUnavailableError, ClosedError, LaunchError
from alcove.sandbox import processes
from alcove.sandbox.handover import send
from alcove.sandbox.plan import Failure, Order, Plan
from alcove.sandbox.running import Exit, Process
from alcove.sandbox.watch import Guard

_ROOT: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# `-I -S` keeps variables, user folders and .pth files of this server out of a process that may be root.
BOOT: Final = (
    f"import sys; sys.path.insert(0, {_ROOT!r}); from alcove.sandbox.spawning import main; main(int(sys.argv[1]))"
)
_READY_S: Final = 20
_MESSAGE_BYTES: Final = 64 * 1024
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@final
class Spawner:
    """One warm spawner process, started again when it died."""

    def __init__(self, boot: str = BOOT) -> None:
        self._boot = boot
        self._orders = 0
        self._pending = 0
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
        order = Order(
            id=self._orders,
            rung=plan["rung"],
            network=plan["network"],
            nest=plan["nest"],
            probing=plan["probing"],
            uid=plan["uid"],
            group=guard.group.number if guard and guard.group else 0,
        )
        mine: list[int] = []
        theirs: list[int] = []
        try:
            theirs += [_seal("plan", marshal.dumps({**plan})), _seal("stdin", stdin)]
            for _ in range(2):
                reader, writer = os.pipe()
                mine.append(reader)
                theirs.append(writer)
                os.set_blocking(reader, False)
            process = Process(order["id"], self.tell, mine[0], mine[1], guard)
            mine.clear()
            self._runs[order["id"]] = process
            self.tell(order, [*theirs, *(() if door is None else (door,)), *(guard.joins if guard else ())])
        finally:
            for one in (*mine, *theirs):
                os.close(one)
        # When many start at once there is no time to make one ahead.
        if guard and not self._pending and (ahead := guard.ahead()):
            self.tell({"ahead": ahead.number}, ahead.joins)
        self._pending += 1
        try:
            await process.started()
        except BaseException:
            process.close()
            self.tell({"kill": order["id"]})  # it may be starting still, when it is we who were cancelled
            raise
        finally:
            self._pending -= 1
        return process

    def tell(self, message: Order | dict[str, int], descriptors: list[int] | None = None) -> None:
        """Send a message; one that cannot be sent is for a spawner that is dead, whose end is noticed elsewhere."""
        if self._control is None:
            return
        # Blocks only while the spawner has more unread orders than its socket holds, which takes thousands.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            send(self._control, marshal.dumps({**message}), descriptors or [])

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
        message = marshal.loads(text)
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


def _seal(name: str, content: bytes) -> int:
    """Return a descriptor of an unchangeable file in memory: a program that never reads it blocks nobody."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, memoryview(content)[written:], written)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor


async def _bury(spawner: subprocess.Popen[bytes], runs: list[Process]) -> None:
    spawner.kill()
    await asyncio.to_thread(spawner.wait)
    for process in runs:
        if process.pid:
            await asyncio.to_thread(processes.end_tree, process.pid, process.start_time, process.boot_id)
        process.fail(LaunchError("the warm spawner ended", step="spawner"))


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
