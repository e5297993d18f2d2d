"""The system-call filter, compiled here to BPF.

Runs in the warm spawner and its children: standard library only. It denies by name what no agent's tool chain needs
and what has broken sandboxes before; the rest is allowed. Order of checks: architecture (another one kills), x32
(refused), then the system call.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from alcove.sandbox import kernel

# Mounts, other processes' memory, keys, rings that bypass this filter, kernel and clock administration.
_DENIED = """
_sysctl acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init fanotify_mark
finit_module fsconfig fsmount fsopen fspick init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl
kcmp kexec_file_load kexec_load keyctl listmount lookup_dcookie migrate_pages modify_ldt mount mount_setattr
move_mount move_pages name_to_handle_at nfsservctl open_by_handle_at open_tree open_tree_attr perf_event_open
pidfd_getfd pivot_root process_madvise process_mrelease process_vm_readv process_vm_writev ptrace quotactl
quotactl_fd reboot request_key setdomainname sethostname setns settimeofday statmount swapoff swapon sysfs syslog
umount2 uselib userfaultfd ustat vhangup
"""
# Of these, what a sandbox inside needs, and what a user namespace of its own makes harmless.
_NESTING = """
chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr pivot_root setdomainname
sethostname setns umount2
"""
# What a private IPC namespace makes harmless and a shared one does not.
_IPC = """
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget
semop semtimedop shmat shmctl shmdt shmget
"""
# These name a process; 0 is the caller.
_AIMED = "prlimit64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler"

_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* of clone(2); CLONE_NEWTIME is one of unshare(2) and clone3(2) only
_TERMINAL = (0x5412, 0x541C, 0x541D, 0x5423)  # TIOCSTI, TIOCLINUX, TIOCCONS, TIOCSETD
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16

_KILL, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x50000  # SECCOMP_RET_*
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_*
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

Instruction = tuple[int, int, int, int]
Filter = list[Instruction]

_YES = (_RETURN, 0, 0, _ALLOW)
_NO = (_RETURN, 0, 0, _ERROR | errno.EPERM)
_ABSENT = (_RETURN, 0, 0, _ERROR | errno.ENOSYS)


def build(*, sockets: bool, shared: bool, nest: bool = False) -> bytes:
    """Return the filter's program.

    Args:
        sockets: Whether sockets besides AF_UNIX may be made (TCP, UDP and the route netlink; never raw families).
        shared: Whether processes and IPC of others are in the same namespaces, so that they need to be fenced off.
        nest: Whether the program may make namespaces and mounts of its own, for a sandbox inside this one.

    Raises:
        OSError: There is no filter for this machine's architecture.
    """
    if kernel.MACHINE not in kernel.ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no system-call filter for {kernel.MACHINE}")
    answers: dict[str, Filter] = {name: [_NO] for name in _DENIED.split()}
    if nest:
        answers = {name: answer for name, answer in answers.items() if name not in _NESTING.split()}
    answers["clone3"] = [_ABSENT]  # its flags are in memory, where no filter can look; libc falls back to clone
    if not nest:
        answers["clone"] = _refuse_bits(0, _NEW_NAMESPACES)
        answers["unshare"] = _refuse_bits(0, _NEW_NAMESPACES | kernel.CLONE_NEWTIME)
    answers["ioctl"] = _refuse_values(1, *_TERMINAL)
    answers["socket"] = _network() if sockets else _only(0, _AF_UNIX)
    if shared:
        answers |= {name: [_NO] for name in _IPC.split()}
        answers |= {name: _only(0, 0) for name in _AIMED.split()}
        answers["setpriority"] = [_argument(0), (_EQUAL, 1, 0, 0), _NO, *_only(1, 0)]  # 0: PRIO_PROCESS
        answers["ioprio_set"] = [_argument(0), (_EQUAL, 1, 0, 1), _NO, *_only(1, 0)]  # 1: IOPRIO_WHO_PROCESS
        answers["kill"] = _refuse_values(0, 0xFFFFFFFF)  # -1: everybody
    program: Filter = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, kernel.ARCHITECTURES[kernel.MACHINE]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if kernel.MACHINE == "x86_64":
        program += [(_ANY_BIT, 0, 1, 0x40000000), _ABSENT]
    numbers = kernel.NUMBERS
    program += _search(sorted((numbers[name], answer) for name, answer in answers.items() if name in numbers))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def install(program: Program) -> None:
    """Put the filter on this process for good. `no_new_privs` must be set."""
    kernel.prctl(kernel.PR_SET_SECCOMP, 2, program.header)  # 2: SECCOMP_MODE_FILTER


class Program:
    """A filter as the kernel takes it; made before a fork, it is the same after it.

    Args:
        code: From `build`.

    Attributes:
        code: The instructions.
        header: Says how many there are, and where.
    """

    def __init__(self, code: bytes) -> None:
        self.code = code
        self._kept = ctypes.create_string_buffer(code, len(code))
        self.header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(self._kept))


def _search(answers: list[tuple[int, Filter]]) -> Filter:
    """Find the answer to the call whose number is in the accumulator by halving; what has none is allowed.

    A chain of comparisons would do, but when it is installed the kernel runs the program once for each system call,
    to learn which are always allowed: halving saves 0.2 ms of every start.
    """
    if len(answers) == 1:
        number, answer = answers[0]
        return [(_EQUAL, 0, len(answer), number), *answer, _YES]
    middle = len(answers) // 2
    low = _search(answers[:middle])
    return [(_AT_LEAST, len(low), 0, answers[middle][0]), *low, *_search(answers[middle:])]


def _argument(index: int) -> Instruction:
    # The low half only: the kernel takes these arguments as 32-bit integers and drops the upper half, and so do we.
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index)


def _refuse_bits(index: int, bits: int) -> Filter:
    return [_argument(index), (_ANY_BIT, 0, 1, bits), _NO, _YES]


def _refuse_values(index: int, *values: int) -> Filter:
    checks = [step for value in values for step in ((_EQUAL, 0, 1, value), _NO)]
    return [_argument(index), *checks, _YES]


def _only(index: int, value: int) -> Filter:
    return [_argument(index), (_EQUAL, 0, 1, value), _YES, _NO]


def _network() -> Filter:
    checks = [step for family in (_AF_UNIX, _AF_INET, _AF_INET6) for step in ((_EQUAL, 0, 1, family), _YES)]
    return [_argument(0), *checks, (_EQUAL, 1, 0, _AF_NETLINK), _NO, *_only(2, 0)]  # 0: NETLINK_ROUTE
