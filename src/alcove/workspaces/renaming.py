"""Renames that replace nothing (`renameat2`, Linux 3.15): the kernel looks and renames in one step."""

from __future__ import annotations

import ctypes
import errno
import os

_NUMBER = {"x86_64": 316, "aarch64": 276}.get(os.uname().machine)
_NOREPLACE = 1
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EPERM}  # an old kernel, a file system without it, a strict filter

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)
_syscall.restype = ctypes.c_long


def rename_new(source: int, name: bytes, target: int, new: bytes) -> None:
    """Rename `name`, in the folder open as `source`, to `new`, in the one open as `target`, where nothing may be.

    Where the kernel cannot do it in one step, a name that comes between the look and the rename is replaced.

    Raises:
        FileExistsError: There is something.
        OSError: As rename(2).
    """
    if _NUMBER is not None:
        if not _syscall(_NUMBER, source, name, target, new, _NOREPLACE):
            return
        error = ctypes.get_errno()
        if error not in _UNSUPPORTED:
            raise OSError(error, os.strerror(error), name)
    try:
        os.stat(new, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
