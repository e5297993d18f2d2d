"""The view of a run on the rung `bwrap`: the one that `namespaces` makes, said in the words of bubblewrap.

Runs in the warm spawner and its children: standard library only. Bubblewrap is run as the run's own uid, and needs to
be allowed user namespaces, or to be setuid. It gets its arguments by a descriptor, so that no list of processes shows
them, and reports on another: first that it has made a child, last how the program ended, if that was ever started.
"""

from __future__ import annotations

import errno
import os

from alcove import limits
from alcove.sandbox import system
from alcove.sandbox.bare import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from alcove.sandbox.plan import Plan

PLACES = ("/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap")
NO_NETWORK = {"/etc/hosts": "127.0.0.1\tlocalhost alcove\n::1\tlocalhost\n", "/etc/resolv.conf": ""}
_LINKS = {"/etc/mtab": "/proc/self/mounts", "/var/tmp": "/tmp"}


def command(plan: Plan, program: bytes, report: int, gate: int | None = None) -> tuple[str, list[str]]:
    """Return what is to be executed, with an empty environment: a path and its arguments.

    Its descriptors are inherited, and closed by bubblewrap before it starts the program.

    Args:
        plan: What the run may touch.
        program: The system-call filter.
        report: Where bubblewrap says what becomes of it.
        gate: From which it reads a byte before it starts the program; None for starting it at once.

    Raises:
        OSError: There is no bubblewrap here, or there is no such program in the view.
    """
    place = _place()
    if place is None:
        raise OSError(errno.ENOENT, "bubblewrap is not installed", PLACES[0])
    for tree in (*plan["read"], *plan["write"]):
        os.stat(tree)  # bubblewrap would say it on standard error only
    arguments = [*_namespaces(plan), *_files(plan), "--chdir", plan["cwd"], "--clearenv"]
    for name, value in plan["env"].items():
        arguments += ("--setenv", name, value)
    arguments += ("--seccomp", str(_memory(program)), "--json-status-fd", str(report))
    os.set_inheritable(report, True)
    if gate is not None:
        os.set_inheritable(gate, True)
        arguments += ("--block-fd", str(gate))
    given = _memory(_BASES[plan["network"] == "host"] + _encoded(arguments))
    return place, ["bwrap", "--args", str(given), "--", *plan["argv"]]


def version() -> tuple[str, int, int] | None:
    """Return what changes when bubblewrap does: where it is, its size and its time; None when it is not installed."""
    if (place := _place()) is None:
        return None
    found = os.stat(place)
    return place, found.st_size, found.st_mtime_ns


def find(plan: Plan) -> None:
    """See that the view has the program, which bubblewrap would only say when it is too late to tell it from an answer.

    Raises:
        OSError: It has none, or it cannot be executed.
    """
    program = plan["argv"][0]
    folders = plan["env"].get("PATH", os.defpath).split(":")
    paths = [program] if "/" in program else [f"{folder or '.'}/{program}" for folder in folders]
    shown = (*system.readable(view=True, network=True), *plan["read"], *plan["write"])
    refused = errno.ENOENT
    for path in paths:
        real = os.path.join(plan["cwd"], path)
        if not _within(real, shown) and not _within(os.path.realpath(real), shown):
            continue
        if os.access(real, os.X_OK) and not os.path.isdir(real):
            return
        if os.path.exists(real):
            refused = errno.EACCES
    raise OSError(refused, os.strerror(refused), program)


def child(report: bytes) -> int | None:
    """Return the pid of the first process in the view, which is said as soon as there is one."""
    return _said(report, b"child-pid")


def ended(report: bytes) -> int | None:
    """Return how the program ended, a signal as its negative number; None when it was never started.

    Bubblewrap tells both as a shell does, so an exit with 128 and more, as far as there are signals, is taken for one.
    """
    code = _said(report, b"exit-code")
    return 128 - code if code is not None and 128 < code < 128 + signal.NSIG else code


def _said(report: bytes, name: bytes) -> int | None:
    """Return a number of the report, of the form `{ "child-pid": 17, … }`, once its line is whole.

    By hand: `json` and what it loads would be copied with every start, on every rung.
    """
    for line in report.splitlines(keepends=True):
        if line[-1:] == b"\n" and (found := line.partition(b'"%s":' % name)[2]):
            return int(found.replace(b"}", b",").partition(b",")[0])
    return None


def _namespaces(plan: Plan) -> list[str]:
    words = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "alcove"]
    words += ["--new-session", "--die-with-parent"]
    return words if plan["network"] == "host" else [*words, "--unshare-net"]


def _base(*, host: bool) -> bytes:
    """Return the arguments for what every view has."""
    shown = system.readable(view=True, network=host)
    links = _LINKS | {path: system.LINKS[path] for path in shown if path in system.LINKS}
    words = ["--proc", "/proc", "--dev", "/dev", "--dir", "/run"]
    words += _tmpfs("/tmp", limits.RUN_TMP_BYTES) + _tmpfs("/dev/shm", limits.RUN_SHM_BYTES)
    for path in shown:
        if path not in links:
            words += ("--ro-bind-try", path, path)
    for path, target in links.items():
        words += ("--symlink", target, path)
    return _encoded(words)


def _files(plan: Plan) -> list[str]:
    """Return the arguments for what this run has, after what every view has: parents before what is in them."""
    words: list[str] = []
    texts = plan["files"] | ({} if plan["network"] == "host" else NO_NETWORK)
    for path, text in texts.items():
        words += ("--perms", "0644", "--file", str(_memory(text.encode(errors="surrogateescape"))), path)
    for path, word in sorted([(path, "--ro-bind") for path in plan["read"]] + [(p, "--bind") for p in plan["write"]]):
        words += (word, path, path)
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/"]


def _tmpfs(path: str, size_bytes: int) -> list[str]:
    return ["--perms", "1777", "--size", str(size_bytes), "--tmpfs", path]


def _encoded(words: list[str]) -> bytes:
    return os.fsencode("".join(f"{word}\0" for word in words))


def _memory(content: bytes) -> int:
    descriptor = os.memfd_create("bubblewrap", 0)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _place() -> str | None:
    return next((place for place in PLACES if os.access(place, os.X_OK)), None)


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(f"{path}/".startswith(f"{folder}/") for folder in folders)


_BASES = {host: _base(host=host) for host in (False, True)}  # worked out once, in the spawner
