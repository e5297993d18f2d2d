"""What a probe does in place of a program: be a neighbour, or try everything against one.

Runs as the last step of a confined start, in a child of the warm spawner: standard library only, and no interpreter has
to be visible in the sandbox. Nothing here does harm when it succeeds: signals are number 0, limits are set to what they
are. A neighbour runs on the rung `none`, as an unprotected session would.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable

from alcove.sandbox import kernel, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from alcove.sandbox.plan import Errand, Target


PROCESSES, MEMORY_BYTES, DISK_BYTES = 32, 48 << 20, 2 << 20
"""What a probe is given; it tries to take more."""
STAY_S = 4
"""So long it stays with what it took: whoever looks after the disk has to have ended it by then."""

SECRET, MOVABLE, REMOVABLE, SOCKET = "secret", "movable", "removable", "socket"


def run(errand: Errand) -> NoReturn:
    """Do the errand, print JSON and end this process."""
    try:
        if errand.get("fill"):
            _fill_and_stay()
        elif (target := errand["target"]) is None:
            _be_neighbour(errand["folder"], errand["token"])
        else:
            _print(attempt(target))
    finally:
        os._exit(0)


def attempt(target: Target) -> dict[str, list[str]]:
    """Return by guarantee the attempts that succeeded: each one is a hole."""
    holes: dict[str, list[str]] = {}
    for guarantee, tries in ATTEMPTS.items():
        holes[guarantee] = [name for name, one in tries.items() if _succeeds(one, target)]
    return holes


def _succeeds(one: Callable[[Target], object], target: Target) -> bool:
    try:
        one(target)
    except OSError:
        return False
    return True


# It opens what it can, as people do when something does not work: no session's own modes are what keeps others out.
def _be_neighbour(folder: str, token: str) -> None:
    os.umask(0)
    posix = f"/dev/shm/{token}"
    for path in (f"{folder}/{SECRET}", f"{folder}/{MOVABLE}", f"{folder}/{REMOVABLE}", posix):
        with open(path, "w") as file:
            file.write(token)
    pathname, abstract, tcp = (socket.socket(family) for family in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET))
    udp = socket.socket(type=socket.SOCK_DGRAM)
    os.chdir(folder)  # the address of a socket has room for 107 bytes, which a path may pass
    pathname.bind(SOCKET)
    abstract.bind(f"\0{token}")
    tcp.bind(("127.0.0.1", 0))
    udp.bind(("127.0.0.1", 0))
    for one in (pathname, abstract, tcp):
        one.listen()
    with contextlib.suppress(PermissionError):
        os.chmod(".", 0o777)
    sysv = kernel.call("shmget", 0, 4096, 0o666)
    kernel.call("shmat", sysv, None, 0)
    kernel.call("shmctl", sysv, 0, None)  # IPC_RMID: it lives exactly as long as this process

    def leave(*_: object) -> None:
        os.unlink(posix)
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    own = os.getpid()
    target: Target = {
        "folder": folder,
        "processes": [(own, processes.start_time(own) or 0)],
        "abstract": token,
        "tcp": tcp.getsockname()[1],
        "udp": udp.getsockname()[1],
        "sysv": sysv,
        "posix": posix,
    }
    _print(target)
    while True:
        text, peer = udp.recvfrom(16)
        udp.sendto(text, peer)


def _print(result: object) -> None:
    os.write(1, json.dumps(result).encode() + b"\n")


def _on_file(name: str, *, mode: str) -> Callable[[Target], object]:
    def try_it(target: Target) -> None:
        with open(f"{target['folder']}/{name}", mode) as file:
            file.write("x") if mode == "x" else file.read(1)

    return try_it


def _on_processes(one: Callable[[int], object]) -> Callable[[Target], object]:
    """Try it on each; in a pid namespace another process may have the number, and does not count."""

    def try_it(target: Target) -> None:
        refused: OSError = ProcessLookupError()
        for pid, started in target["processes"]:
            if not _may_be(pid, started):
                continue
            try:
                one(pid)
            except OSError as error:
                refused = error
            else:
                return
        raise refused

    return try_it


def _may_be(pid: int, started: int) -> bool:
    try:
        return processes.start_time(pid) in {None, started}
    except PermissionError:  # which is not a pid namespace's answer
        return True


def _through_proc(target: Target) -> None:
    _on_processes(lambda pid: os.stat(f"/proc/{pid}/root{target['folder']}/{SECRET}"))(target)


def _limit(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))


def _prioritise(pid: int) -> None:
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))


def _schedule(pid: int) -> None:
    os.sched_setaffinity(pid, os.sched_getaffinity(pid))


def _inspect(name: str) -> Callable[[Target], object]:
    def try_it(pid: int) -> None:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            file.read(1)

    return _on_processes(try_it)


def _trace(pid: int) -> None:
    kernel.call("ptrace", 0x4206, pid, 0, 0)  # PTRACE_SEIZE: does not stop it, and ends with this process


def _take_descriptor(pid: int) -> None:
    kernel.call("pidfd_getfd", os.pidfd_open(pid), 0, 0)


def _signal_by_handle(pid: int) -> None:
    signal.pidfd_send_signal(os.pidfd_open(pid), 0)


def _connect(family: int, address: Callable[[Target], str | tuple[str, int]]) -> Callable[[Target], object]:
    def try_it(target: Target) -> None:
        with socket.socket(family) as one:
            one.settimeout(1)
            one.connect(address(target))

    return try_it


def _datagram(target: Target) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.settimeout(1)
        one.connect(("127.0.0.1", target["udp"]))
        one.send(b"x")
        one.recv(1)


def _socket_of(target: Target) -> str:
    # By descriptor, because the path may be longer than an address; a folder that cannot be reached fails here.
    return f"/proc/self/fd/{os.open(target['folder'], os.O_PATH)}/{SOCKET}"


def _in_child(work: Callable[[], object]) -> Callable[[Target], object]:
    """Try it in a process of its own, which may be ended for it."""

    def try_it(_: Target) -> None:
        if child := os.fork():
            if os.waitpid(child, 0)[1]:
                raise OSError(errno.EPERM, "it was stopped")
            return
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)

    return try_it


def _multiply() -> None:
    children: list[int] = []
    try:
        for _ in range(PROCESSES + 8):
            child = os.fork()
            if not child:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _fill_and_stay() -> None:
    with open("filling", "wb") as file:
        file.writelines(bytes(1 << 20) for _ in range(2 * DISK_BYTES >> 20))
    time.sleep(STAY_S)
    _print({"quota": ["write more"]})


def _take_memory() -> None:
    taken = bytearray(MEMORY_BYTES + MEMORY_BYTES // 2)
    for at in range(0, len(taken), 4096):
        taken[at] = 1


def _fill_disk() -> None:
    try:
        with open("filling", "wb") as file:
            file.writelines(bytes(1 << 20) for _ in range(2 * DISK_BYTES >> 20))
    finally:
        os.unlink("filling")


ATTEMPTS: dict[str, dict[str, Callable[[Target], object]]] = {
    "file_read": {
        "read": _on_file(SECRET, mode="r"),
        "list": lambda target: os.listdir(target["folder"]),
        "read through /proc": _through_proc,
    },
    "file_write": {
        "write": _on_file(SECRET, mode="r+"),
        "create": _on_file("planted", mode="x"),
        "truncate": lambda target: os.truncate(f"{target['folder']}/{SECRET}", 8),
        "rename": lambda target: os.rename(f"{target['folder']}/{MOVABLE}", f"{target['folder']}/moved"),
        "remove": lambda target: os.unlink(f"{target['folder']}/{REMOVABLE}"),
    },
    "metadata": {
        "stat": lambda target: os.stat(f"{target['folder']}/{SECRET}"),
        "chmod": lambda target: os.chmod(f"{target['folder']}/{SECRET}", 0o600),
        "touch": lambda target: os.utime(f"{target['folder']}/{SECRET}"),
        "setxattr": lambda target: os.setxattr(f"{target['folder']}/{SECRET}", "user.alcove", b"x"),
    },
    "processes": {
        "limit": _on_processes(_limit),
        "prioritise": _on_processes(_prioritise),
        "schedule": _on_processes(_schedule),
        "read environment": _inspect("environ"),
        "read arguments": _inspect("cmdline"),
        "trace": _on_processes(_trace),
        "take a descriptor": _on_processes(_take_descriptor),
    },
    "signals": {
        "kill": _on_processes(lambda pid: os.kill(pid, 0)),
        "kill by handle": _on_processes(_signal_by_handle),
        "kill the group": _on_processes(lambda pid: os.killpg(pid, 0)),
    },
    "network": {
        "connect by TCP": _connect(socket.AF_INET, lambda target: ("127.0.0.1", target["tcp"])),
        "talk by UDP": _datagram,
    },
    "ipc": {
        "connect to a socket": _connect(socket.AF_UNIX, _socket_of),
        "connect to an abstract socket": _connect(socket.AF_UNIX, lambda target: f"\0{target['abstract']}"),
        "attach shared memory": lambda target: kernel.call("shmat", target["sysv"], None, 0x1000),  # SHM_RDONLY
        "open shared memory": lambda target: os.stat(target["posix"]) and os.open(target["posix"], os.O_RDONLY),
    },
    "limits": {"make more processes": _in_child(_multiply), "take more memory": _in_child(_take_memory)},
    "quota": {"write more": _in_child(_fill_disk)},
}
