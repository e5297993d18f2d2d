"""The last steps of a run's main process, from a fork of the supervisor to the program.

Runs in a child of the warm spawner: standard library only. The order is strict and every step has a name, which is
written to the report before the step is taken: whatever happens, the supervisor knows how far it came. A step that
fails ends the process; nothing but the last step can start the program.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from typing import NoReturn

from alcove.sandbox import attempts, kernel, landlock, namespaces, seccomp
from alcove.sandbox.plan import Plan, keep_only

_REPORT, _DOMAIN = 3, 4  # where the report and the Landlock domain are kept until the program starts

# Compiled once, in the spawner. By (sockets, shared), see `seccomp.build`.
FILTERS: dict[tuple[bool, bool], bytes] = {}


def launch(plan: Plan, report: int) -> NoReturn:
    """Become the program of the plan, confined, or report which step failed and end."""
    try:
        os.dup2(report, _REPORT, inheritable=False)
        for name, step in STEPS:
            os.write(_REPORT, f"step {name}\n".encode())
            step(plan)
    except BaseException as error:  # noqa: BLE001 - whatever it was, it is reported and the process ends
        os.write(_REPORT, describe(error))
    finally:
        os._exit(127)  # never back into the code of the process that this one was forked from


def describe(error: BaseException) -> bytes:
    """Return the line of a report that says what went wrong."""
    number = error.errno if isinstance(error, OSError) else None
    named = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
    text = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
    return f"failed {number or 0} {text}{named}".encode(errors="replace")[:2000].replace(b"\n", b" ") + b"\n"


def compile_filters() -> None:
    """Compile every filter that a plan may ask for; a machine without one is found out by the step `filter`."""
    if kernel.MACHINE in kernel.ARCHITECTURES:
        for key in ((True, False), (True, True), (False, True)):
            FILTERS[key] = seccomp.build(sockets=key[0], shared=key[1])


def _session(_: Plan) -> None:
    # Out of the supervisor's process group and away from any terminal: a pid namespace does not stop kill(0).
    os.setsid()


def _folder(plan: Plan) -> None:
    os.chdir(plan["cwd"])


def _limits(plan: Plan) -> None:
    for name, most in plan["limits"].items():
        number: int = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (bound, bound))


def _domain(plan: Plan) -> None:
    # Made while the process may still open every path, entered further below.
    if plan["rung"] == "none":
        return
    if plan["rung"] == "userns" and not landlock.abi():
        return  # the view confines by itself; Landlock is the second wall
    granted = [(path, landlock.READ) for path in plan["read"]] + [(path, landlock.WRITE) for path in plan["write"]]
    if plan["rung"] == "userns":
        system = [("/", landlock.READ), ("/dev", landlock.DEVICE), ("/dev/shm", landlock.WRITE)]
        system.append(("/tmp", landlock.WRITE))
    else:
        system = [(path, landlock.READ) for path in (*plan["system"], "/proc")]
        system += [(path, landlock.DEVICE) for path in namespaces.DEVICES]
    alone = plan["rung"] == "userns" and plan["network"] == "none"
    domain = landlock.ruleset(system + granted, tcp=alone or plan["network"] == "host")
    os.dup2(domain, _DOMAIN, inheritable=False)


def _descriptors(plan: Plan) -> None:
    confined = plan["rung"] != "none"
    keep_only(0, 1, 2, _REPORT, *([_DOMAIN] if confined else []))


def _bounding(plan: Plan) -> None:
    # Takes a capability itself, so it comes before the identity; an ordinary user has none to lose.
    if plan["rung"] == "userns" or (plan["rung"] == "landlock" and os.geteuid() == 0):
        kernel.drop_bounding_set()


def _identity(plan: Plan) -> None:
    uid = plan["uid"]
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    elif os.geteuid() == 0 and plan["rung"] != "none":
        os.setgroups([])


def _capabilities(plan: Plan) -> None:
    if plan["rung"] != "none":
        kernel.set_capabilities()


def _privileges(plan: Plan) -> None:
    if plan["rung"] != "none":
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _guard(plan: Plan) -> None:
    # After the identity, whose change would clear it. In a pid namespace the kernel does this by itself.
    if plan["rung"] != "userns":
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _landlock(plan: Plan) -> None:
    if plan["rung"] == "landlock" or (plan["rung"] == "userns" and landlock.abi()):
        landlock.restrict(_DOMAIN)
        os.close(_DOMAIN)


def _filter(plan: Plan) -> None:
    if plan["rung"] == "none":
        return
    shared = plan["rung"] == "landlock"
    program = FILTERS.get((plan["network"] == "host" or not shared, shared))
    if program is None:
        raise OSError(errno.ENOSYS, f"no system-call filter for {kernel.MACHINE}")
    seccomp.install(program)


def _program(plan: Plan) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if plan["errand"] is not None:
        os.close(_REPORT)
        attempts.run(plan["errand"])
    program, argv, env = plan["argv"][0], plan["argv"], plan["env"]
    if "/" in program:
        os.execve(program, argv, env)
    failed = OSError(errno.ENOENT, os.strerror(errno.ENOENT), program)
    for folder in env.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":"):
        try:
            os.execve(f"{folder or '.'}/{program}", argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            failed = error
    raise failed


STEPS: list[tuple[str, Callable[[Plan], None]]] = [
    ("session", _session),
    ("folder", _folder),
    ("limits", _limits),
    ("domain", _domain),
    ("descriptors", _descriptors),
    ("bounding", _bounding),
    ("identity", _identity),
    ("capabilities", _capabilities),
    ("privileges", _privileges),
    ("guard", _guard),
    ("landlock", _landlock),
    ("filter", _filter),
    ("program", _program),
]
