"""Open a path below a folder so that no link, no rename and no race can lead out of it.

The kernel does this (`openat2`, Linux 5.6). Where it is missing or forbidden, each part is opened on its own and
links are refused. See docs/adr/0004-openat2.md.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from functools import cache

_OPENAT2 = 437  # the same number on every architecture that CPython supports on Linux, except Alpha
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
_ATTEMPTS = 64  # a rename anywhere in the system may cause EAGAIN; only an attacker causes this many in a row
_PART = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_How), ctypes.c_size_t)
_syscall.restype = ctypes.c_long


def open_beneath(folder: int, path: bytes, flags: int, *, links: bool = True, mounts: bool = True) -> int:
    """Open an existing `path` (relative, `b"."` for the folder itself) below the descriptor `folder`.

    Args:
        folder: Descriptor of a folder; nothing above it is ever opened.
        path: Relative path.
        flags: As for `os.open`, without `O_CREAT`; with `O_PATH` also `O_DIRECTORY`. Close-on-exec is added.
        links: Follow symbolic links that stay below the folder. Where the kernel lacks openat2 none is followed.
        mounts: Go into file systems mounted below the folder, bind mounts included.

    Returns:
        A descriptor that the caller closes.

    Raises:
        OSError: As open(2); `EXDEV` when the path leads out, `ELOOP` at a link that is not followed, `EAGAIN` when
            folders on the way keep moving or another process holds a lease on the file.
    """
    if not supported():
        return _walk(folder, path, flags, mounts=mounts)
    resolve = _BENEATH | _NO_MAGICLINKS | (0 if links else _NO_SYMLINKS) | (0 if mounts else _NO_XDEV)
    return _openat2(folder, path, flags, resolve)


@cache
def supported() -> bool:
    """Whether the kernel has openat2 and lets this process use it (older container runtimes answer EPERM)."""
    root = os.open(b"/", _PART)
    try:
        os.close(_openat2(root, b".", _PART, _BENEATH | _NO_MAGICLINKS))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def _openat2(folder: int, path: bytes, flags: int, resolve: int) -> int:
    how = _How(flags | os.O_CLOEXEC, 0, resolve)
    error = 0
    for _ in range(_ATTEMPTS):
        fd = int(_syscall(_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how)))
        if fd >= 0:
            return fd
        error = ctypes.get_errno()
        if error not in {errno.EAGAIN, errno.EINTR}:
            break
    raise OSError(error, os.strerror(error), path)


def _walk(folder: int, path: bytes, flags: int, *, mounts: bool) -> int:
    if path.startswith(b"/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    *parts, last = path.split(b"/")
    at = folder
    try:
        for part in parts:
            below = _step(at, part, _PART)
            if at != folder:
                os.close(at)
            at = below
        fd = _step(at, last, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    finally:
        if at != folder:
            os.close(at)
    if not mounts and _mount(fd) != _mount(folder):
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    return fd


def _step(at: int, part: bytes, flags: int) -> int:
    if part == b"..":
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), part)
    try:
        return os.open(part, flags, dir_fd=at)
    except NotADirectoryError:
        # O_DIRECTORY answers ENOTDIR at a link as well; openat2 says ELOOP.
        if stat.S_ISLNK(os.stat(part, dir_fd=at, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part) from None
        raise


def _mount(fd: int) -> str:
    # A bind mount has the st_dev of its source, so that only the mount's id tells.
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
        return next(line for line in lines if line.startswith("mnt_id:"))
