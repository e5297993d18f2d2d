"""The process above a run's program: it prepares the view, reaps, and ends with nothing of its tree left.

Runs in a child of the warm spawner: standard library only. On `userns` it is pid 1 of the run's pid namespace, and
the kernel ends the tree when it ends; elsewhere it is a subreaper that ends its descendants itself. It never ends
before its tree, so its end, seen by the spawner, is the end of the run.

It is made ahead and waits for a run. Where the program will not be able to end it, it takes the program's confinement
on itself and starts it; else the process that will be the program is made ahead too, as a fork of this one.

Signals: SIGUSR1 asks the program to end (as SIGTERM); SIGTERM ends the tree at once.
"""

from __future__ import annotations

import os

from alcove.sandbox import bubblewrap, kernel, launcher, namespaces, outlet, processes
from alcove.sandbox.bare import signal, socket
from alcove.sandbox.handover import GIVEN, HIDDEN, keep_only, read_plan, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from alcove.sandbox.plan import Kind
    from alcove.sandbox.report import Report

_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1)


def supervise(kind: Kind, channel: socket.socket, report: Report, joins: list[int]) -> NoReturn:
    """Make everything ready, wait for a run, and stay until nothing of it is left. Called right after the clone.

    Args:
        kind: What kind of run it will be.
        channel: One byte comes when the id maps are in place, then another with the descriptors of plan, standard
            input, output and error, and for a proxied run of a Unix socket. It ends when the spawner does.
        report: Told how the run comes along, and how it ends.
        joins: By which the program, or this process with it, gets into the control group of the run.
    """
    try:
        report.step("supervisor")
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        keep_only(0, 1, 2, channel.fileno(), report.pipe, *joins)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL if kind["rung"] == "userns" else signal.SIGTERM)
        if channel.recv(1):
            _prepare(kind, report)
            (_become if kind["rung"] in HIDDEN else _fork)(kind, channel, report, joins)
    except BaseException as error:  # noqa: BLE001 - whatever it was, it is reported and the process ends
        report.fail(error)
    finally:
        os._exit(0)  # never back into the code of the process that this one was forked from


def _prepare(kind: Kind, report: Report) -> None:
    if kind["rung"] != "userns":
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        if namespaces.flags(kind):
            outlet.raise_loopback()
        return
    report.step("view")
    namespaces.furnish(kind)
    report.step("host")
    namespaces.name_host(kind)


def _become(kind: Kind, channel: socket.socket, report: Report, joins: list[int]) -> None:
    """Become as confined as the program has to be, start it below, and stay."""
    account, status = os.pipe() if kind["rung"] == "bwrap" else (None, None)
    start = launcher.Start(kind, report, joins, status)
    start.get_ready()
    proxied = kind["network"] == "proxy"
    descriptors = receive(channel, GIVEN + proxied)
    if not descriptors:
        return
    gate: list[int] = []
    if proxied and account is None:
        _hand_out(descriptors.pop(), report)
    elif proxied:
        # That network is yet to be made: the program waits at a gate until it has its way out.
        start.gate, opener = os.pipe()
        gate = [descriptors.pop(), opener]
    plan = read_plan(descriptors[0])
    if account is None:
        report.step("view")
        namespaces.grant(plan)
    start.kept = [*gate, *(() if account is None else (account,))]
    start.take(descriptors)
    start.go(plan)
    # Not even the program's output: that has to end when the program closes it.
    keep_only(report.pipe, *start.kept)
    if account is None:
        report.say(b"started\n")
        _report(_attend(start.program, start.program, alone=True), report)
    else:
        _attend_wrapped(start.program, account, report, gate, plan["uid"])


def _fork(kind: Kind, channel: socket.socket, report: Report, joins: list[int]) -> None:
    """Let a fork become the program, which can see this process and must not be able to end it, and stay."""
    report.step("fork")
    orders, theirs = socket.socketpair()
    account, told = os.pipe()
    below = report.of_fork(told)
    program = os.fork()
    if not program:
        launcher.launch(kind, theirs, below, joins)
    theirs.close()
    for one in (told, *joins):
        os.close(one)
    proxied = kind["network"] == "proxy"
    descriptors = receive(channel, GIVEN + proxied)
    if not descriptors:
        return
    if proxied:
        _hand_out(descriptors.pop(), report)
    try:
        send(orders, b".", descriptors)
    except BrokenPipeError:
        pass  # it ended already, and its account says why
    uid = read_plan(descriptors[0])["uid"]
    keep_only(account, report.pipe)
    _drop()
    said = b"".join(iter(lambda: os.read(account, 4096), b""))
    report.step(below.last)
    if said:
        report.say(said)
    elif below.last == "program":
        report.say(b"started\n")
    status = _attend(program, program)
    processes.end_descendants(uid=uid)
    _report(status, report)


def _attend_wrapped(program: int, account: int, report: Report, gate: list[int], uid: int | None) -> None:
    """Attend to bubblewrap, which tells by `account` what becomes of the program."""
    said = b""
    while (began := bubblewrap.child(said)) is None and (chunk := os.read(account, 4096)):
        said += chunk
    if began and gate:
        _open(gate, began, report, uid)
    keep_only(account, report.pipe)
    if began:
        report.say(b"started\n")
    status = _attend(program, began or program)
    processes.end_descendants(uid=uid)
    if began and status is not None and os.WIFEXITED(status):
        said += b"".join(iter(lambda: os.read(account, 4096), b""))
        ended = bubblewrap.ended(said)
        if ended is None:
            report.step("bubblewrap")
            report.say(b"failed 0 it did not get to the program; see its standard error\n")
        else:
            report.end(ended)
            return
    _report(status, report)


def _hand_out(door: int, report: Report) -> None:
    """Make the way out of this process's network and hand it out."""
    report.step("proxy")
    outlet.hand_out(door)
    os.close(door)


def _open(gate: list[int], began: int, report: Report, uid: int | None) -> None:
    """Make the way out of bubblewrap's network, then let the program begin; never the one without the other."""
    door, opener = gate
    report.step("proxy")
    try:
        outlet.hand_out_of(began, door)
    except OSError:
        processes.end_descendants(uid=uid)
        raise
    os.write(opener, b".")


def _drop() -> None:
    """Give up what only the preparation needed; what remains is what it takes to end the tree."""
    if os.geteuid() == 0:
        kernel.set_capabilities(kernel.CAP_KILL, kernel.CAP_SETGID, kernel.CAP_SETUID)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _attend(program: int, began: int, *, alone: bool = False) -> int | None:
    """Reap until the program ends, and return its status; None when the tree is to be ended now.

    Args:
        program: Our child.
        began: The program itself, or the first process of bubblewrap's view, below which that is.
        alone: Whether this is the first process of a namespace. Who is in that is not obeyed (`pkill python` means
            others); only who stands outside has no number here.
    """
    while True:
        found = signal.sigwaitinfo(_SIGNALS)
        if found.si_signo != signal.SIGCHLD:
            if alone and (found.si_pid or found.si_code):
                continue
            if found.si_signo == signal.SIGTERM:
                return None
            _ask(program, began)
            continue
        while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
            if reaped[0] == program:
                return reaped[1]


def _ask(program: int, began: int) -> None:
    asked = program
    if began != program:
        asked = next((pid for pid, one in processes.descendants(began).items() if one.parent == began), program)
    try:
        os.kill(asked, signal.SIGTERM)
    except ProcessLookupError:
        pass


def _report(status: int | None, report: Report) -> None:
    if status is not None:
        report.end(os.waitstatus_to_exitcode(status))
