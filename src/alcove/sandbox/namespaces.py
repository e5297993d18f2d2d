"""The view of a run on the rung `userns`: a file system of its own, in which other sessions do not exist.

Runs in the warm spawner and its children: standard library only. Each function is one step of the supervisor, which
is pid 1 of its namespaces and holds every capability inside them and none outside.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct

from alcove.sandbox import kernel
from alcove.sandbox.plan import Plan

_CLOSED = kernel.MS_NOSUID | kernel.MS_NODEV
_READ_ONLY = _CLOSED | kernel.MS_RDONLY
_DEVICE = kernel.MS_NOSUID | kernel.MS_NOEXEC
_STAGE = "/tmp"  # covered in this mount namespace only, until the view becomes the root

DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero")
_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/ptmx": "pts/ptmx",
    "/etc/mtab": "/proc/self/mounts",
    "/var/tmp": "/tmp",
}


def flags(plan_network: str) -> int:
    """Return the namespaces that a run gets, as flags for clone."""
    shared = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC
    return shared | kernel.CLONE_NEWUTS | (kernel.CLONE_NEWNET if plan_network == "none" else 0)


def map_ids(pid: int, uid: int | None) -> None:
    """Map the ids of a new user namespace, from outside: the server's own, and the leased one.

    Root stays mapped beside a leased uid, so that the supervisor can reach a workspace below a folder that only root
    may enter; the command itself never runs as root then.
    """
    own, group = os.geteuid(), os.getegid()
    leased = "" if uid is None else f"\n{uid} {uid} 1"
    if own:
        _write(f"/proc/{pid}/setgroups", "deny")  # the kernel asks this of an ordinary user
    _write(f"/proc/{pid}/uid_map", f"{own} {own} 1{leased}")
    _write(f"/proc/{pid}/gid_map", f"{group} {group} 1{leased}")


def build(plan: Plan) -> None:
    """Make the view the root of this mount namespace; nothing else can be reached from it."""
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    trees = _copies(plan)
    kernel.mount("alcove", _STAGE, "tmpfs", _CLOSED, "mode=755,size=1m")
    os.mkdir(f"{_STAGE}/proc")
    # While the host's own is still visible: the kernel demands that of whoever mounts a new one.
    kernel.mount("proc", f"{_STAGE}/proc", "proc", _READ_ONLY | kernel.MS_NOEXEC)
    os.chdir(_STAGE)
    kernel.call("pivot_root", b".", b".")
    kernel.call("umount2", b".", kernel.MNT_DETACH)
    os.chdir("/")
    _furnish(plan)
    for path, tree in trees:
        _point(path, tree)
        kernel.attach_tree(tree, path)
    root = os.open("/", os.O_PATH)
    kernel.set_attributes(root, kernel.MS_RDONLY, below=False)
    os.close(root)


def name_host(plan: Plan) -> None:
    """Hide the machine's name, and bring up the loopback of a network of its own."""
    kernel.call("sethostname", b"alcove", 6)
    if plan["network"] == "none":
        with socket.socket() as one:
            fcntl.ioctl(one, 0x8914, struct.pack("16sH14x", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP


def _copies(plan: Plan) -> list[tuple[str, int]]:
    """Copy every mount that the view shows, before anything is covered; parents come before what lies in them."""
    wanted = [(path, _READ_ONLY) for path in plan["system"]] + [(path, _DEVICE) for path in DEVICES]
    wanted += sorted([(path, _READ_ONLY) for path in plan["read"]] + [(path, _CLOSED) for path in plan["write"]])
    return [(path, kernel.copy_tree(path, attributes)) for path, attributes in wanted]


def _furnish(plan: Plan) -> None:
    for folder in ("/dev/pts", "/dev/shm", "/etc", "/run", "/tmp", "/var"):
        os.makedirs(folder, exist_ok=True)
    for path, target in {**_LINKS, **plan["links"]}.items():
        os.symlink(target, path)
    kernel.mount("devpts", "/dev/pts", "devpts", _DEVICE, "newinstance,ptmxmode=0666,mode=620")
    kernel.mount("shm", "/dev/shm", "tmpfs", _CLOSED | kernel.MS_NOEXEC, f"mode=1777,size={plan['shm_bytes']}")
    kernel.mount("tmp", "/tmp", "tmpfs", _CLOSED, f"mode=1777,size={plan['tmp_bytes']}")
    for path, text in plan["files"].items():
        _write(path, text)


def _point(path: str, tree: int) -> None:
    """Make what a mount can be put on, unless it is there."""
    if os.path.lexists(path):
        return
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(path)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.mknod(path)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
