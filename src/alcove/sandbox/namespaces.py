"""The view of a run on the rung `userns`: a file system of its own, in which other sessions do not exist.

Runs in the warm spawner and its children: standard library only. `furnish` and `name_host` make ready what every view
has, `grant` adds what one run was granted and takes the machine's file system away. They run in the supervisor, which
is pid 1 of its namespaces and holds every capability inside them and none outside.
"""

from __future__ import annotations

import os
import stat

from alcove import limits
from alcove.sandbox import kernel, outlet, system
from alcove.sandbox.bubblewrap import NO_NETWORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from alcove.sandbox.plan import Kind, Plan

_CLOSED = kernel.MS_NOSUID | kernel.MS_NODEV
_READ_ONLY = _CLOSED | kernel.MS_RDONLY
_DEVICE = kernel.MS_NOSUID | kernel.MS_NOEXEC
_STAGE = "/tmp"  # covered in this mount namespace only, until the view becomes the root
_MACHINE = "/.machine"  # where the machine's file system stays until the grants are made

_LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
    "/dev/ptmx": "pts/ptmx",
    "/etc/mtab": "/proc/self/mounts",
    "/var/tmp": "/tmp",
}
_FOLDERS = ("/dev", "/dev/pts", "/dev/shm", "/etc", "/proc", "/run", "/tmp", "/var", _MACHINE)
_WRITABLE = {"/tmp": _CLOSED, "/dev/shm": _CLOSED | kernel.MS_NOEXEC}
_BLOCK = 4096  # leased uids that one view is made ready for
with open("/proc/self/uid_map") as _file:
    _MAPPED = [[int(_word) for _word in _line.split()] for _line in _file]  # first uid here, outside, how many


def flags(kind: Kind) -> int:
    """Return the namespaces that a run gets, as flags for clone."""
    if kind["rung"] != "userns":
        # Landlock's rules know ports and no addresses. Only root may have this one without a user namespace.
        return kernel.CLONE_NEWNET if kind["rung"] == "landlock" and kind["network"] == "proxy" else 0
    shared = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC
    return shared | kernel.CLONE_NEWUTS | (0 if kind["network"] == "host" else kernel.CLONE_NEWNET)


def uids(uid: int | None) -> range:
    """Return the leased uids to map for a run of this one: its neighbours too, so that a view can be made ahead.

    The supervisor gets power over files of these uids, but sees only what it was granted; the program gets its own.
    """
    if uid is None:
        return range(0)
    block = range(uid - uid % _BLOCK, uid - uid % _BLOCK + _BLOCK)
    if 0 in block or not any(low <= block.start and block.stop <= low + count for low, _, count in _MAPPED):
        return range(uid, uid + 1)
    return block


def map_ids(pid: int, leased: range) -> None:
    """Map the ids of a new user namespace, from outside: the server's own, and leased ones.

    Root stays mapped beside them, so that the supervisor can reach a workspace below a folder that only root may
    enter; the program itself never runs as root then.
    """
    own, group = os.geteuid(), os.getegid()
    more = f"\n{leased.start} {leased.start} {len(leased)}" if leased else ""
    if own:
        _write(f"/proc/{pid}/setgroups", "deny")  # the kernel asks this of an ordinary user
    _write(f"/proc/{pid}/uid_map", f"{own} {own} 1{more}")
    _write(f"/proc/{pid}/gid_map", f"{group} {group} 1{more}")


class _Furniture:
    """What every view has, worked out once, in the spawner. Paths are below the root, folders before what is in them.

    Args:
        host: Whether the network is the machine's.
    """

    def __init__(self, *, host: bool) -> None:
        shown = system.readable(view=True, network=host)
        self.links = _LINKS | {path: system.LINKS[path] for path in shown if path in system.LINKS}
        self.trees = [path for path in shown if path not in self.links]
        self.texts = {} if host else NO_NETWORK
        folders = [*_FOLDERS, *filter(os.path.isdir, self.trees)]
        self.files = [path for path in (*self.trees, *system.DEVICES) if path not in folders]
        folders += [os.path.dirname(path) for path in (*self.links, *self.files, *self.texts)]
        above = {
            f"/{'/'.join(parts[:n])}" for one in folders if (parts := one.split("/")[1:]) for n in range(len(parts))
        }
        self.folders = sorted({*folders, *above} - {"/"})


_FURNITURE = {host: _Furniture(host=host) for host in (False, True)}


def furnish(kind: Kind) -> None:
    """Make a new root with everything that is the same for all, and the machine's own file system beside it."""
    what = _FURNITURE[kind["network"] == "host"]
    kernel.mount("alcove", _STAGE, "tmpfs", _CLOSED, f"mode=755,size={limits.RUN_TMP_BYTES}")
    os.chdir(_STAGE)
    for path in what.folders:
        os.mkdir(f".{path}")
    for path in what.files:
        os.mknod(f".{path}")
    for path, target in what.links.items():
        os.symlink(target, f".{path}")
    for path, text in what.texts.items():
        _write(f".{path}", text)
    # A mount of its own for each folder that is not as the root: its attributes, and /dev for all that is below it.
    for path in _WRITABLE:
        os.chmod(f".{path}", 0o1777)
    for path in ("/dev", *_WRITABLE):
        kernel.bind(f".{path}", f".{path}")
    for path in (*what.trees, *system.DEVICES):
        _show(path)
    kernel.set_attributes(".", _READ_ONLY)
    kernel.set_attributes(".", 0, clear=kernel.MS_RDONLY, below=False)
    kernel.set_attributes("./dev", _DEVICE, clear=kernel.MS_NODEV)  # to a device one may write nevertheless
    for path, attributes in _WRITABLE.items():
        kernel.set_attributes(f".{path}", attributes, clear=kernel.MS_RDONLY)
    # While the machine's own is in its place: the kernel demands that of whoever mounts a new one. It demands too that
    # a sandbox inside does not get more than is to be seen here, and such a one mounts a writable /proc.
    kernel.mount("proc", "proc", "proc", (_CLOSED if kind["nest"] else _READ_ONLY) | kernel.MS_NOEXEC)
    kernel.call("pivot_root", b".", _MACHINE[1:].encode())
    os.chdir("/")
    kernel.mount("devpts", "/dev/pts", "devpts", _DEVICE, "newinstance,ptmxmode=0666,mode=620")


def name_host(kind: Kind) -> None:
    """Hide the machine's name, and bring up the loopback of a network of its own."""
    kernel.call("sethostname", b"alcove", 6)
    if kind["network"] != "host":
        outlet.raise_loopback()


def grant(plan: Plan) -> None:
    """Show what the run was granted, at its own path, and nothing else of the machine any more."""
    machine = os.open(_MACHINE, os.O_PATH)
    wanted = sorted([(path, _READ_ONLY) for path in plan["read"]] + [(path, _CLOSED) for path in plan["write"]])
    trees = [(path, kernel.copy_tree(path, machine), attributes) for path, attributes in wanted]
    os.close(machine)
    kernel.call("umount2", _MACHINE.encode(), kernel.MNT_DETACH)
    os.rmdir(_MACHINE)
    for path, tree, attributes in trees:
        kernel.set_attributes(tree, attributes)
        _make(path, os.mkdir if stat.S_ISDIR(os.fstat(tree).st_mode) else os.mknod)
        kernel.attach_tree(tree, path)
    for path, text in plan["files"].items():
        _write(path, text)
    kernel.set_attributes("/", kernel.MS_RDONLY, below=False)


def _show(path: str) -> None:
    """Mount what the machine has at a path at its place, which is of the other kind when a file has become a folder."""
    place = f".{path}"
    try:
        kernel.bind(path, place)
    except FileNotFoundError:
        pass  # what the machine itself has lost, nobody misses here
    except NotADirectoryError:
        folder = os.path.isdir(path)
        (os.unlink if folder else os.rmdir)(place)
        (os.mkdir if folder else os.mknod)(place)
        kernel.bind(path, place)


def _make(path: str, make: Callable[[str], None]) -> None:
    missing: list[str] = []
    above = path
    while not os.access(above, os.F_OK):  # an exception for each that is not there would cost more
        missing.append(above)
        above = above.rpartition("/")[0] or "/"
    while len(missing) > 1:
        os.mkdir(missing.pop())
    if missing:
        make(path)


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.write(file, os.fsencode(text))
    os.close(file)
