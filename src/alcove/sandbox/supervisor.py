"""The process above a run's program: it prepares the view, reaps, and ends with nothing of its tree left.

Runs in a child of the warm spawner: standard library only. On `userns` it is pid 1 of the run's pid namespace, and
the kernel ends the tree when it ends; elsewhere it is a subreaper that ends its descendants itself. It never ends
before its tree, so its end, seen by the spawner, is the end of the run.

It is made ahead, with the process that will be the program below it, and waits for a run.

Signals: SIGUSR1 asks the program to end (as SIGTERM); SIGTERM ends the tree at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import NoReturn

from alcove.sandbox import bubblewrap, kernel, launcher, namespaces, outlet, processes
from alcove.sandbox.plan import DESCRIPTORS, Kind, keep_only, read_plan

_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1)


def supervise(kind: Kind, channel: socket.socket, report: int) -> NoReturn:
    """Make everything ready, wait for a run, and stay until nothing of it is left. Called right after the clone.

    Args:
        kind: What kind of run it will be.
        channel: One byte comes when the id maps are in place, then another with the descriptors of plan, standard
            input, output and error, of the control group to join, and for a proxied run of a Unix socket. It ends when
            the spawner does.
        report: Where lines are written: `step NAME`, `failed ERRNO DETAIL`, `started`, `exit CODE`.
    """
    try:
        os.write(report, b"step supervisor\n")
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        keep_only(0, 1, 2, channel.fileno(), report)
        alone = kind["rung"] == "userns"
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL if alone else signal.SIGTERM)
        if channel.recv(1):
            _prepare(kind, report)
            _serve(kind, channel, report)
    except BaseException as error:  # noqa: BLE001 - whatever it was, it is reported and the process ends
        os.write(report, launcher.describe(error))
    finally:
        os._exit(0)  # never back into the code of the process that this one was forked from


def _prepare(kind: Kind, report: int) -> None:
    if kind["rung"] != "userns":
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
        if namespaces.flags(kind):
            outlet.raise_loopback()
        return
    os.write(report, b"step view\n")
    namespaces.furnish(kind)
    os.write(report, b"step host\n")
    namespaces.name_host(kind)


def _serve(kind: Kind, channel: socket.socket, report: int) -> None:
    os.write(report, b"step fork\n")
    alone = kind["rung"] == "userns"
    orders, theirs = socket.socketpair()
    account, told = os.pipe()
    program = os.fork()
    if not program:
        launcher.launch(kind, theirs, told)
    theirs.close()
    os.close(told)
    proxied = kind["network"] == "proxy"
    _, descriptors, _, _ = socket.recv_fds(channel, 1, DESCRIPTORS)
    if len(descriptors) < 4 + proxied:
        return
    wrapped = kind["rung"] == "bwrap"
    gate = _hand_out(descriptors, report, wrapped=wrapped) if proxied else ()
    if alone:
        os.write(report, b"step view\n")
        namespaces.grant(read_plan(descriptors[0]))
    with contextlib.suppress(BrokenPipeError):  # it ended already, and its account says why
        socket.send_fds(orders, [b"."], descriptors)
    uid = None if alone else read_plan(descriptors[0])["uid"]
    # Not even the program's output: that has to end when the program closes it.
    keep_only(account, report, *gate)
    if not gate:
        _drop(alone=alone)
    said = _hear(account, wrapped=wrapped)
    began = bubblewrap.child(said) if wrapped else program if said.endswith(b"step program\n") else None
    os.write(report, said.partition(b"{")[0] if wrapped else said)
    if gate:
        _open(gate, began, report, uid)
        keep_only(account, report)
        _drop(alone=alone)
    if began:
        os.write(report, b"started\n")
    status = _attend(program, began or program)
    if not alone:
        processes.end_descendants(uid=uid)
    if status is None:
        return
    code = os.waitstatus_to_exitcode(status)
    if wrapped and began and code >= 0:
        said += b"".join(iter(lambda: os.read(account, 4096), b""))
        ended = bubblewrap.ended(said)
        if ended is None:
            os.write(report, b"step bubblewrap\nfailed 0 it did not get to the program; see its standard error\n")
        code = code if ended is None else ended
    os.write(report, f"exit {code}\n".encode())


def _hand_out(descriptors: list[int], report: int, *, wrapped: bool) -> tuple[int, ...]:
    """Make the way out of this process's network and hand it out by the last of the descriptors, which is taken off.

    A network that bubblewrap has yet to make needs a gate before the program instead: the end to be read takes the
    last place, and that descriptor is returned with the end that opens the gate.
    """
    door = descriptors.pop()
    if wrapped:
        closed, gate = os.pipe()
        descriptors.append(closed)
        return door, gate
    os.write(report, b"step proxy\n")
    outlet.hand_out(door)
    os.close(door)
    return ()


def _open(gate: tuple[int, ...], began: int | None, report: int, uid: int | None) -> None:
    """Make the way out of bubblewrap's network, then let the program begin; never the one without the other."""
    if began is None:
        return
    door, gate_end = gate
    os.write(report, b"step proxy\n")
    try:
        outlet.hand_out_of(began, door)
    except OSError:
        processes.end_descendants(uid=uid)
        raise
    os.write(gate_end, b".")


def _hear(account: int, *, wrapped: bool) -> bytes:
    """Read what becomes of the start: to the end, or as far as bubblewrap has a child, for it keeps the account."""
    said = b""
    while chunk := os.read(account, 4096):
        said += chunk
        if wrapped and bubblewrap.child(said) is not None:
            break
    return said


def _drop(*, alone: bool) -> None:
    """Give up what only the preparation needed; what remains is what it takes to end the tree."""
    if alone or os.geteuid() == 0:
        kernel.set_capabilities(kernel.CAP_KILL, *(() if alone else (kernel.CAP_SETGID, kernel.CAP_SETUID)))
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _attend(program: int, began: int) -> int | None:
    """Reap until the program ends, and return its status; None when the tree is to be ended now.

    `began` is the program itself, or the first process of bubblewrap's view, below which that is.
    """
    while True:
        number = signal.sigwaitinfo(_SIGNALS).si_signo
        if number == signal.SIGTERM:
            return None
        if number == signal.SIGUSR1:
            below = [pid for pid, one in processes.descendants(began).items() if one.parent == began]
            asked = program if began == program else next(iter(below), program)
            with contextlib.suppress(ProcessLookupError):
                os.kill(asked, signal.SIGTERM)
            continue
        while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
            if reaped[0] == program:
                return reaped[1]
