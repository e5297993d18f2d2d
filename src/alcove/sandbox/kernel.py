"""System calls that Python has no words for, by name, for x86_64 and aarch64.

Runs in the warm spawner and its children: standard library only. Every failed call raises `OSError`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# name, number on x86_64, number on aarch64; "-" where the call does not exist there.
_NUMBERS = """
_sysctl 156 -            acct 163 89               add_key 248 217          adjtimex 159 171
bpf 321 280              capget 125 90             capset 126 91            chroot 161 51
clock_adjtime 305 266
clock_settime 227 112    clone 56 220              clone3 435 435           close_range 436 436
delete_module 176 106    fanotify_init 300 262     fanotify_mark 301 263    finit_module 313 273
fsconfig 431 431         fsmount 432 432           fsopen 430 430           fspick 433 433
init_module 175 105      io_uring_enter 426 426    io_uring_register 427 427
io_uring_setup 425 425   ioctl 16 29               ioperm 173 -             iopl 172 -
ioprio_set 251 30        kcmp 312 272              kexec_file_load 320 294  kexec_load 246 104
keyctl 250 219           kill 62 129               landlock_add_rule 445 445
landlock_create_ruleset 444 444                    landlock_restrict_self 446 446
listmount 458 458        lookup_dcookie 212 18     migrate_pages 256 238    modify_ldt 154 -
mount 165 40             mount_setattr 442 442     move_mount 429 429       move_pages 279 239
mq_getsetattr 245 185    mq_notify 244 184         mq_open 240 180          mq_timedreceive 243 183
mq_timedsend 242 182     mq_unlink 241 181         msgctl 71 187            msgget 68 186
msgrcv 70 188            msgsnd 69 189             name_to_handle_at 303 264
nfsservctl 180 42        open_by_handle_at 304 265 open_tree 428 428        open_tree_attr 467 467
openat2 437 437
perf_event_open 298 241  pidfd_getfd 438 438       pidfd_send_signal 424 424
pivot_root 155 41        prctl 157 167             prlimit64 302 261        process_madvise 440 440
process_mrelease 448 448 process_vm_readv 310 270  process_vm_writev 311 271
ptrace 101 117           quotactl 179 60           quotactl_fd 443 443      reboot 169 142
request_key 249 218      sched_setaffinity 203 122 sched_setattr 314 274    sched_setparam 142 118
sched_setscheduler 144 119                         seccomp 317 277          semctl 66 191
semget 64 190            semop 65 193              semtimedop 220 192       setdomainname 171 162
sethostname 170 161      setns 308 268             setpriority 141 140      settimeofday 164 170
shmat 30 196             shmctl 31 195             shmdt 67 197             shmget 29 194
socket 41 198            statmount 457 457         swapoff 168 225          swapon 167 224
sysfs 139 -              syslog 103 116            umount2 166 39           unshare 272 97
uselib 134 -             userfaultfd 323 282       ustat 136 -              vhangup 153 58
"""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*, linux/audit.h
MACHINE = os.uname().machine if sys.maxsize > 2**32 else "32-bit"

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 38, 36
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAP_KILL, CAP_SETGID, CAP_SETUID = 5, 6, 7

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
CLONE_NEWCGROUP, CLONE_NEWTIME = 0x2000000, 0x80

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
_IN_ROOT = struct.pack("3Q", os.O_PATH | os.O_CLOEXEC, 0, 0x10)  # struct open_how, RESOLVE_IN_ROOT
# The attributes of mount_setattr(2) are the same bits as MS_* for these four.
_OPEN_TREE_CLONE, _AT_RECURSIVE, _AT_EMPTY_PATH, _MOVE_MOUNT_F_EMPTY_PATH, _AT_FDCWD = 1, 0x8000, 0x1000, 4, -100


def _numbers() -> dict[str, int]:
    words = _NUMBERS.split()
    column = 2 if MACHINE == "aarch64" else 1
    return {words[i]: int(words[i + column]) for i in range(0, len(words), 3) if words[i + column] != "-"}


NUMBERS = _numbers()
_PADDING = tuple((None,) * (6 - given) for given in range(7))  # the kernel wants unused arguments of prctl to be 0

# PyDLL holds the GIL over the call, which keeps the interpreter consistent in both processes after `clone`.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 6]  # takes integers, bytes, buffers and None alike


def call(name: str, *arguments: object) -> int:
    """Make the system call `name`; integers are passed as 64-bit words, bytes as pointers, `None` as 0.

    Raises:
        OSError: The kernel refused, or has no such call.
    """
    result: int = _syscall(NUMBERS[name], *arguments, *_PADDING[len(arguments)])
    return result if result >= 0 else _fail(name)


def _fail(name: str) -> NoReturn:
    code = ctypes.get_errno()
    raise OSError(code, f"{name}: {os.strerror(code)}")


def prctl(option: int, *arguments: object) -> int:
    """Set or read a property of this process."""
    return call("prctl", option, *arguments)


def clone(flags: int) -> int:
    """Fork into new namespaces: 0 in the child, the child's pid in the parent. For single-threaded processes only."""
    return call("clone", flags | 17, 0, 0, 0, 0)  # 17: SIGCHLD


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount a new file system of a kind, or change how mounts propagate."""
    call("mount", source.encode(), os.fsencode(target), kind.encode(), flags, data.encode())


def bind(source: str, target: str) -> None:
    """Mount what is at and below `source` at `target` too; both follow links."""
    call("mount", os.fsencode(source), os.fsencode(target), None, MS_BIND | MS_REC, None)


def copy_tree(path: str, root: int) -> int:
    """Return a descriptor of a detached copy of the mounts at and below `path`.

    Args:
        path: Absolute; links are followed.
        root: A descriptor of the folder that counts as the root for the path and for links.
    """
    how = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    try:
        found = call("openat2", root, os.fsencode(path), _IN_ROOT, len(_IN_ROOT))
        try:
            return call("open_tree", found, b"", how | _AT_EMPTY_PATH)
        finally:
            os.close(found)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


def set_attributes(place: int | str, attributes: int, *, clear: int = 0, below: bool = True) -> None:
    """Add mount attributes (MS_*) to a mount, and to those below it.

    Args:
        place: A descriptor from `copy_tree`, or where it is mounted.
        attributes: Added.
        clear: Taken away.
        below: Whether the mounts below are meant too.
    """
    fields = struct.pack("4Q", attributes, clear, 0, 0)
    flags = _AT_RECURSIVE if below else 0
    if isinstance(place, int):
        call("mount_setattr", place, b"", flags | _AT_EMPTY_PATH, fields, len(fields))
    else:
        call("mount_setattr", _AT_FDCWD, os.fsencode(place), flags, fields, len(fields))


def attach_tree(tree: int, target: str) -> None:
    """Mount what `copy_tree` returned, and close its descriptor."""
    call("move_mount", tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    os.close(tree)


def drop_bounding_set() -> None:
    """Empty the capability bounding set, so that no program can ever give a capability back."""
    number = NUMBERS["prctl"]
    for capability in range(64):  # by the shortest way, for there are many
        if _syscall(number, PR_CAPBSET_DROP, capability, 0, 0, 0, 0) < 0:
            if ctypes.get_errno() == errno.EINVAL and capability:
                return  # past the last capability of this kernel
            _fail("prctl")


def set_capabilities(*kept: int) -> None:
    """Keep of the permitted capabilities only `kept`, and those effective; nothing is inheritable or ambient."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    low = 0
    if kept:
        sets = ctypes.create_string_buffer(24)  # effective, permitted, inheritable: the low halves, then the high ones
        call("capget", header, sets)
        low = struct.unpack("6I", sets.raw)[1] & sum(1 << capability for capability in kept)
    call("capset", header, struct.pack("6I", low, low, 0, 0, 0, 0))
