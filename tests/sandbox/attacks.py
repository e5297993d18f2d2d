"""What a hostile program tries, run by itself inside a sandbox: standard library only, nothing of ours.

Reads a target from its standard input, tries everything once and prints what happened to each attempt: `done`, or the
name of the errno. Nothing here does harm when it works: signal 0, limits set to what they are, ids that do not matter.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"


def call(number: int, *arguments: Any) -> int:
    """One raw system call."""
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def ipv6() -> bool:
    """Whether this machine has a loopback of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


def neighbour(folder: str) -> None:
    """Be a live session with something to lose, and say where it is."""
    os.umask(0o077)
    for name in ("secret", "movable", "removable"):
        with open(f"{folder}/{name}", "w") as file:
            file.write("of the neighbour")
    pathname, abstract, tcp = (socket.socket(family) for family in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET))
    udp = socket.socket(type=socket.SOCK_DGRAM)
    pathname.bind(f"{folder}/socket")
    abstract.bind(f"\0{folder}")
    tcp.bind(("127.0.0.1", 0))
    udp.bind(("127.0.0.1", 0))
    for one in (pathname, abstract, tcp):
        one.listen()
    port6, tcp6 = 0, None
    if ipv6():
        tcp6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
        port6 = tcp6.getsockname()[1]
    shm = call(29 if X86 else 194, 0, 4096, 0o600)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat(shm, None, 0)
    libc.shmctl(shm, 0, None)
    posix = f"/dev/shm/{folder.replace('/', '-')}"
    with open(posix, "w") as file:
        file.write("of the neighbour")
    said = {"folder": folder, "pid": os.getpid(), "tcp": tcp.getsockname()[1], "udp": udp.getsockname()[1]}
    said["tcp6"] = port6
    _say({**said, "shm": shm, "posix": posix})
    while True:
        text, peer = udp.recvfrom(16)
        udp.sendto(text, peer)


def attempts(target: dict[str, Any]) -> dict[str, dict[str, Callable[[], object]]]:
    """Every attempt by its group and its name."""
    folder: str = target["folder"]
    secret = f"{folder}/secret"
    groups: dict[str, dict[str, Callable[[], object]]] = {
        "files": {
            "read": lambda: _read(secret),
            "list": lambda: os.listdir(folder),
            "list the base": lambda: _require(os.path.basename(folder) in os.listdir(os.path.dirname(folder))),
            "read through a link": lambda: _through_link(secret),
            "read through /proc/self/root": lambda: _read(f"/proc/self/root{secret}"),
            "read through /proc/self/cwd": lambda: _read(f"/proc/self/cwd/../{os.path.basename(folder)}/secret"),
            "read below a descriptor": lambda: os.open("secret", os.O_RDONLY, dir_fd=os.open(folder, os.O_PATH)),
            "read the server's own file": lambda: _read(target["private"]),
            "write": lambda: open(secret, "a").close(),
            "create": lambda: open(f"{folder}/planted", "x").close(),
            "truncate": lambda: os.truncate(secret, 16),
            "rename": lambda: os.rename(f"{folder}/movable", f"{folder}/moved"),
            "move a file there": lambda: _move_there(folder),
            "remove": lambda: os.unlink(f"{folder}/removable"),
            "link here": lambda: os.link(secret, f"linked-{os.getpid()}"),
            "make a folder": lambda: os.mkdir(f"{folder}/dir"),
        },
        "metadata": {
            "stat": lambda: os.stat(secret),
            "access": lambda: _require(os.access(secret, os.F_OK)),
            "enter": lambda: _enter(folder),
            "touch": lambda: os.utime(secret),
            "chmod": lambda: os.chmod(secret, 0o600),
            "setxattr": lambda: os.setxattr(secret, "user.planted", b"x"),
            "list attributes": lambda: os.listxattr(secret),
            "watch for changes": lambda: _watch(folder),
        },
        "ipc": {
            "connect to its socket": lambda: _connect(socket.AF_UNIX, f"{folder}/socket"),
            "connect to its abstract socket": lambda: _connect(socket.AF_UNIX, f"\0{folder}"),
            "attach its shared memory": lambda: call(30 if X86 else 196, target["shm"], None, 0x1000),
            "open its POSIX shared memory": lambda: _read(target["posix"]),
            "read kernel keys": lambda: call(250 if X86 else 219, 0, -3, 0),
            "leave a kernel key": lambda: call(248 if X86 else 217, b"user", b"planted", b"x", 1, -1),
        },
        "network": {
            "connect by TCP": lambda: _connect(socket.AF_INET, ("127.0.0.1", target["tcp"])),
            "connect by TCP over IPv6": lambda: _connect(socket.AF_INET6, ("::1", target["tcp6"])),
            "talk by UDP": lambda: _udp(target["udp"]),
            "open a socket to the hypervisor": lambda: socket.socket(socket.AF_VSOCK),
            "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
            "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM),
            "open an audit socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9),
        },
        "kernel": {
            "signal everybody": lambda: os.kill(-1, 0),
            "new user namespace": lambda: call(272 if X86 else 97, 0x10000000),
            "new mount namespace by clone": lambda: call(56 if X86 else 220, 0x10020011, 0, 0, 0, 0) or os._exit(0),
            # On nothing: it must not work, only get past the filter.
            "mount": lambda: _reach(errno.ENOENT, 165 if X86 else 40, b"none", b"/nowhere/at/all", b"tmpfs", 0, None),
            "open a file system": lambda: call(430, b"tmpfs", 0),
            "change the root": lambda: os.chroot("."),
            "take a file handle": lambda: call(
                303 if X86 else 264, -100, b".", struct.pack("Ii128x", 128, 0), ctypes.create_string_buffer(4), 0
            ),
            "set up an io_uring": lambda: call(425, 4, ctypes.create_string_buffer(120)),
            "load a BPF program": lambda: _reach(
                errno.EINVAL, 321 if X86 else 280, 0, ctypes.create_string_buffer(72), 72
            ),
            "watch by userfaultfd": lambda: call(323 if X86 else 282, 1),
            "push into a terminal": _push,
        },
    }
    for whose in ("pid", "server"):
        pid = target[whose]
        name = "its" if whose == "pid" else "the server's"
        groups["files"][f"enter {name} root"] = lambda pid=pid: os.listdir(f"/proc/{pid}/root/")
        groups.setdefault("signals", {}).update(_signalling(pid, name))
        groups.setdefault("processes", {}).update(_inspecting(pid, name))
    return groups


def _signalling(pid: int, name: str) -> dict[str, Callable[[], object]]:
    return {
        f"signal {name} process": lambda: os.kill(pid, 0),
        f"signal {name} thread": lambda: call(234 if X86 else 131, pid, pid, 0),
        f"signal {name} process by handle": lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0),
        f"signal {name} group": lambda: os.killpg(os.getpgid(pid), 0),
    }


def _inspecting(pid: int, name: str) -> dict[str, Callable[[], object]]:
    return {
        f"trace {name} process": lambda: call(101 if X86 else 117, 0x4206, pid, 0, 0),
        f"read {name} memory": lambda: open(f"/proc/{pid}/mem", "rb").close(),
        f"read {name} memory by call": lambda: _read_memory(pid),
        f"read {name} environment": lambda: _read(f"/proc/{pid}/environ"),
        f"read {name} arguments": lambda: _read(f"/proc/{pid}/cmdline"),
        f"read {name} state": lambda: _read(f"/proc/{pid}/status"),
        f"see {name} descriptors": lambda: os.readlink(f"/proc/{pid}/fd/0"),
        f"see where {name} process is": lambda: os.readlink(f"/proc/{pid}/cwd"),
        f"take {name} descriptor": lambda: call(438, os.pidfd_open(pid), 0, 0),
        f"compare {name} memory": lambda: call(312 if X86 else 272, pid, pid, 1, 0, 0),
        f"enter {name} namespaces": lambda: call(308 if X86 else 268, os.open(f"/proc/{pid}/ns/uts", os.O_RDONLY), 0),
        f"limit {name} process": lambda: _limit(pid),
        f"prioritise {name} process": lambda: os.setpriority(0, pid, os.getpriority(0, pid)),
        f"schedule {name} process": lambda: os.sched_setaffinity(pid, os.sched_getaffinity(pid)),
        f"choose {name} scheduler": lambda: os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0)),
        f"prioritise {name} disk": lambda: call(251 if X86 else 30, 1, pid, call(252 if X86 else 31, 1, pid)),
    }


def _move_there(folder: str) -> None:
    name = f"own-{os.getpid()}"
    open(name, "w").close()
    os.rename(name, f"{folder}/{name}")


def _watch(folder: str) -> None:
    if libc.inotify_add_watch(libc.inotify_init(), folder.encode(), 0x100) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _read_memory(pid: int) -> None:
    with open(f"/proc/{pid}/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    buffer = ctypes.create_string_buffer(8)
    there, here = struct.pack("QQ", start, 8), struct.pack("QQ", ctypes.addressof(buffer), 8)
    call(310 if X86 else 270, pid, here, 1, there, 1, 0)


def _reach(refusal: int, number: int, *arguments: Any) -> None:
    """Succeed when the kernel itself refuses, for that reason."""
    try:
        call(number, *arguments)
    except OSError as error:
        if error.errno != refusal:
            raise


def _require(true: bool) -> None:
    if not true:
        raise OSError(errno.EACCES, "not there")


def _enter(folder: str) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    os.fchdir(here)


def _through_link(secret: str) -> None:
    name = f"link-{os.getpid()}"
    os.symlink(secret, name)
    _read(name)


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read()


def _connect(family: int, address: Any) -> None:
    with socket.socket(family) as one:
        one.settimeout(2)
        one.connect(address)


def _udp(port: int) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.settimeout(2)
        one.connect(("127.0.0.1", port))
        one.send(b"x")
        one.recv(1)


def _limit(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))


def _push() -> None:
    """TIOCSTI into a terminal of our own, the only kind that the kernel lets an ordinary process try."""
    child, terminal = os.forkpty()
    if child:
        os.read(terminal, 1)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            raise OSError(code, "refused")
        return
    try:
        fcntl.ioctl(0, 0x5412, b"x")
        code = 0
    except OSError as error:
        code = error.errno or 1
    os.write(1, b".")
    os._exit(code)


def _say(what: object) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def attack(target: dict[str, Any]) -> dict[str, str]:
    """Try everything, each in a process of its own that one success cannot change for the next."""
    result: dict[str, str] = {}
    for name, one in (pair for group in attempts(target).values() for pair in group.items()):
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            result[name] = errno.errorcode.get(code, str(code)) if code else "done"
            continue
        code = 255
        try:
            one()
            code = 0
        except OSError as error:
            code = error.errno or 254
        finally:
            os._exit(code)
    return result


if __name__ == "__main__":
    if len(sys.argv) > 1:
        neighbour(sys.argv[1])
    _say(attack(json.load(sys.stdin)))
