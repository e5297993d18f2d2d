"""The process above a run's program: it prepares the view, reaps, and ends with nothing of its tree left.

Runs in a child of the warm spawner: standard library only. On `userns` it is pid 1 of the run's pid namespace, and
the kernel ends the tree when it ends; elsewhere it is a subreaper that ends its descendants itself. It never ends
before its tree, so its end, seen by the spawner, is the end of the run.

Signals: SIGUSR1 asks the program to end (as SIGTERM); SIGTERM ends the tree at once.
"""

from __future__ import annotations

import json
import os
import signal
from typing import NoReturn

from alcove.sandbox import kernel, launcher, namespaces, processes
from alcove.sandbox.plan import Order, Plan, keep_only

_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1)


def supervise(order: Order, plan: int, stdio: tuple[int, int, int], report: int, go: int) -> NoReturn:
    """Start the program and stay until nothing of it is left. Called in the child right after the clone.

    Args:
        order: What kind of run it is.
        plan: A descriptor from which the plan can be read.
        stdio: The program's standard input, output and error.
        report: Where lines are written: `step NAME`, `failed ERRNO DETAIL`, `started`, `exit CODE SIGNAL`.
        go: One byte can be read from it when the id maps are in place; it ends without one when the spawner died.
    """
    try:
        os.write(report, b"step supervisor\n")
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for number, descriptor in enumerate(stdio):
            os.dup2(descriptor, number)
        keep_only(0, 1, 2, plan, report, go)
        alone = order["rung"] == "userns"
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL if alone else signal.SIGTERM)
        if not os.read(go, 1):
            os._exit(1)
        _run(json.loads(_read(plan)), report)
    except BaseException as error:  # noqa: BLE001 - whatever it was, it is reported and the process ends
        os.write(report, launcher.describe(error))
    finally:
        os._exit(0)  # never back into the code of the process that this one was forked from


def _run(plan: Plan, report: int) -> None:
    alone = plan["rung"] == "userns"
    if alone:
        os.write(report, b"step view\n")
        namespaces.build(plan)
        os.write(report, b"step host\n")
        namespaces.name_host(plan)
    else:
        kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    os.write(report, b"step fork\n")
    ours, theirs = os.pipe()
    program = os.fork()
    if not program:
        launcher.launch(plan, theirs)
    keep_only(ours, report)  # not even the program's output: that has to end when the program closes it
    _drop(alone=alone)
    account = _read(ours)
    os.write(report, account + b"started\n" if account.endswith(b"step program\n") else account)
    status = _attend(program)
    if not alone:
        processes.end_descendants(uid=plan["uid"])
    if status is not None:
        os.write(report, f"exit {os.waitstatus_to_exitcode(status)}\n".encode())


def _drop(*, alone: bool) -> None:
    """Give up what only the preparation needed; what remains is what it takes to end the tree."""
    if alone or os.geteuid() == 0:
        kernel.set_capabilities(kernel.CAP_KILL, *(() if alone else (kernel.CAP_SETGID, kernel.CAP_SETUID)))
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _attend(program: int) -> int | None:
    """Reap until the program ends, and return its status; None when the tree is to be ended now."""
    while True:
        number = signal.sigwaitinfo(_SIGNALS).si_signo
        if number == signal.SIGTERM:
            return None
        if number == signal.SIGUSR1:
            os.kill(program, signal.SIGTERM)
            continue
        while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
            if reaped[0] == program:
                return reaped[1]


def _read(descriptor: int) -> bytes:
    with open(descriptor, "rb", buffering=0) as file:
        return file.read()
