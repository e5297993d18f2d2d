"""The warm spawner: a small process, made ready once, from which every run is forked.

Standard library only. It is executed by the server with an empty environment and one descriptor, its control socket;
it never holds what a run is given, only which processes are running. When the server ends, however, the spawner ends,
and by their parent-death signals so do all trees.

Messages are dictionaries as `marshal` writes them, one per datagram. To it: an `Order` with descriptors: plan, stdin,
stdout, stderr, for a proxied run a Unix socket through which the listening one is handed out, and those by which its
control group is joined; `{"ahead": number}` with those of the next run's group, which a process that is made ahead
joins ahead; and `{WORD: id}`: `ask` sends the program SIGTERM, `kill` has the supervisor end the tree, `force` kills
the supervisor. From it: `{"ready": pid}`, and for each order either `{"id", "failed": Failure}`, or `{"id", "started":
pid, "start_time"}` and later `{"id", "ended": exit code or None}`, or `{"id", "void": Failure}` when it turned out that
the program was never reached.
"""

from __future__ import annotations

import gc
import marshal
import os
import select
from importlib import import_module

from alcove.sandbox import kernel, landlock, launcher, namespaces, processes, supervisor
from alcove.sandbox.bare import signal, socket
from alcove.sandbox.handover import DESCRIPTORS, GIVEN, send, take
from alcove.sandbox.report import Report, Reports

# As type checkers take it: `typing`, and whatever else is not needed, would be copied with every run.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from alcove.sandbox.plan import Failure, Kind, Network, Order, Rung

    Make = tuple[Rung, Network, bool, bool, range]
    """What a supervisor is made ready for: its kind, and the uids mapped."""

_MESSAGE_BYTES = 64 * 1024


class _Run:
    """A supervisor: a spare one that waits for a run, or one that has it."""

    def __init__(self, make: Make, group: int, pid: int, channel: socket.socket, pipe: int, report: Report) -> None:
        self.make = make
        self.group = group
        self.alone = make[0] == "userns"
        self.pid = pid
        self.channel = channel
        self.handle = os.pidfd_open(pid)
        self.start_time = processes.start_time(pid)
        self.pipe = pipe
        self.report = report
        self.said = b""
        self.failure: Failure | None = None
        self.started = False
        self.id: int | None = None


class _Spawner:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._owner = os.pidfd_open(os.getppid())
        self._poll.register(self._owner, select.POLLIN)
        self._reports = Reports()
        self._pipes: dict[int, _Run] = {}
        self._handles: dict[int, _Run] = {}
        self._spare: _Run | None = None
        self._next: Make | None = None
        self._ahead: tuple[int, list[int]] = (0, [])  # the group that the next run will have, and what joins it

    def serve(self) -> None:
        """Do as told until the server is gone."""
        self._tell({"ready": os.getpid()})
        while True:
            # A spare is made when there is nothing else to do, and only after a start that worked.
            ready = self._poll.poll(0 if self._next else None)
            if not ready and self._next:
                self._keep_spare(self._next)
            for descriptor, _ in ready:
                if descriptor == self._owner:
                    return
                if descriptor == self._control.fileno():
                    if not self._obey():
                        return
                elif run := self._pipes.get(descriptor):
                    self._listen(run)
                elif run := self._handles.get(descriptor):
                    self._reap(run)

    def _tell(self, message: dict[str, object]) -> None:
        self._control.sendall(marshal.dumps(message))

    def _obey(self) -> bool:
        try:
            text, descriptors = take(self._control, _MESSAGE_BYTES, DESCRIPTORS)
        except ConnectionResetError:
            return False
        if not text:
            return False
        message = marshal.loads(text)
        if "rung" in message:
            try:
                self._start(message, descriptors)
            except OSError as error:
                failure: Failure = {"step": "clone", "errno": error.errno or 0, "detail": error.strerror or str(error)}
                self._tell({"id": message["id"], "failed": failure})
            finally:
                for one in descriptors:
                    os.close(one)
            return True
        [(word, wanted)] = message.items()
        if word == "ahead":
            self._expect(wanted, descriptors)
        for run in self._handles.values():
            if run.id == wanted:
                self._signal(run, word)
        return True

    def _start(self, order: Order, descriptors: list[int]) -> None:
        leased = namespaces.uids(order["uid"]) if order["rung"] == "userns" else range(0)
        make = (order["rung"], order["network"], order["nest"], order["probing"], leased)
        given = GIVEN + (order["network"] == "proxy")
        spare = self._spare
        if spare and (spare.make, spare.group) == (make, order["group"]):
            run, self._spare = spare, None
        else:
            if spare and spare.group == order["group"]:
                self._dismiss(spare)  # it would be in a group of others
            run = self._make(make, order["group"], descriptors[given:])
        run.id = order["id"]
        try:
            send(run.channel, b".", descriptors[:given])
        except BrokenPipeError:
            pass  # it ended already, and its report says why
        run.channel.close()
        self._expect(0, [])

    def _keep_spare(self, make: Make) -> None:
        self._next = None
        group, joins = self._ahead
        spare = self._spare
        if spare and (spare.make != make or (joins and spare.group != group)):
            self._dismiss(spare)
        if self._spare is None:
            try:
                self._spare = self._make(make, group, joins)
            except OSError:
                pass  # the next order will meet the same, and report it
        self._expect(0, [])  # who is in it, is in it

    def _dismiss(self, spare: _Run) -> None:
        spare.channel.close()  # by which it ends
        self._spare = None

    def _expect(self, group: int, joins: list[int]) -> None:
        """Note the group that the next run will have, and forget the one before."""
        for one in self._ahead[1]:
            os.close(one)
        self._ahead = group, joins
        if joins and self._spare:
            self._next = self._spare.make  # one that is not in it

    def _make(self, make: Make, group: int, joins: list[int]) -> _Run:
        """Start a supervisor that makes everything ready for a run of that kind, in that control group."""
        rung, network, nest, probing, leased = make
        if probing:
            import_module("alcove.sandbox.attempts")  # now: inside, it may not be there to be read
        kind: Kind = {"rung": rung, "network": network, "nest": nest, "probing": probing}
        pipe, theirs = os.pipe()
        channel, other = socket.socketpair()
        report: Report | None = None
        try:
            report = self._reports.open(theirs)
            os.set_blocking(pipe, False)
            pid = kernel.clone(namespaces.flags(kind))
            if not pid:
                supervisor.supervise(kind, other, report, joins)
            try:
                run = _Run(make, group, pid, channel, pipe, report)
            except OSError:  # no descriptor is left to watch it by
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        except OSError:
            channel.close()
            os.close(pipe)
            if report:
                self._reports.close(report)
            raise
        finally:
            other.close()
            os.close(theirs)
        self._handles[run.handle] = self._pipes[pipe] = run
        self._poll.register(run.handle, select.POLLIN)
        self._poll.register(pipe, select.POLLIN)
        try:
            if rung == "userns":
                namespaces.map_ids(pid, leased)
            channel.send(b".")
        except OSError as error:
            # The supervisor, let go by nobody, ends.
            run.failure = {"step": "ids", "errno": error.errno or 0, "detail": error.strerror or str(error)}
            channel.shutdown(socket.SHUT_RDWR)
        return run

    def _signal(self, run: _Run, word: str) -> None:
        if word == "ask":
            os.kill(run.pid, signal.SIGUSR1)
        elif word == "force" or run.alone:
            os.kill(run.pid, signal.SIGKILL)
        else:
            os.kill(run.pid, signal.SIGTERM)
            os.kill(run.pid, signal.SIGCONT)

    def _listen(self, run: _Run) -> bool:
        """Read what the supervisor says; False when there is nothing more at the moment."""
        try:
            chunk = os.read(run.pipe, _MESSAGE_BYTES)
        except BlockingIOError:
            return False
        run.said += chunk
        if not run.started and run.said.startswith(b"started\n"):
            run.started = True
            self._next = run.make
            self._tell({"id": run.id, "started": run.pid, "start_time": run.start_time})
        if run.started or not chunk:
            self._deafen(run)  # what else it says is of interest when it has ended
        return bool(chunk)

    def _deafen(self, run: _Run) -> None:
        if self._pipes.pop(run.pipe, None):
            self._poll.unregister(run.pipe)

    def _reap(self, run: _Run) -> None:
        while self._listen(run):
            pass
        _, status = os.waitpid(run.pid, 0)
        self._poll.unregister(run.handle)
        self._deafen(run)
        del self._handles[run.handle]
        os.close(run.handle)
        os.close(run.pipe)
        report = run.report
        if report.ended is None and not run.alone:
            # The supervisor did not end as it should; what it has left is now ours.
            processes.end_descendants(without=frozenset(one.pid for one in self._handles.values()))
        if run.id is None:
            run.channel.close()
            self._spare = None if self._spare is run else self._spare
        elif not run.started:
            self._tell({"id": run.id, "failed": run.failure or _failure(report, run.said, status)})
        elif b"failed " in run.said:
            self._tell({"id": run.id, "void": _failure(report, run.said, status)})
        else:
            self._tell({"id": run.id, "ended": report.ended})
        self._reports.close(report)


def _failure(report: Report, said: bytes, status: int) -> Failure:
    found = said.partition(b"failed ")[2].decode(errors="replace")
    if found:
        number, _, detail = found.strip().partition(" ")
        return {"step": report.last, "errno": int(number), "detail": detail}
    ended = os.waitstatus_to_exitcode(status) if report.ended is None else report.ended
    return {"step": report.last, "errno": 0, "detail": f"the process ended there with {ended}"}


def main(control: int) -> None:
    """Serve the socket with that descriptor, then end, and with this process every tree."""
    for number in range(1, signal.NSIG):
        if number not in {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, 32, 33}:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.chdir("/")
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    launcher.compile_filters()
    landlock.abi()
    gc.disable()
    gc.freeze()
    _Spawner(socket.socket(fileno=control)).serve()
    os._exit(0)
