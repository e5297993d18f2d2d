"""Landlock: which files a process may touch, which TCP ports, and whom it may signal.

Runs in the warm spawner and its children: standard library only. Landlock has no right for metadata (`stat`, `chmod`)
nor, before ABI 9, for pathname sockets: namespaces or a leased uid have to give those.
"""

from __future__ import annotations

import os
import stat
import struct

from alcove.sandbox import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ = EXECUTE | READ_FILE | READ_DIR
DEVICE = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV
_MAKE_CHARACTER, _MAKE_BLOCK = 1 << 6, 1 << 11
WRITE = (1 << 16) - 1 & ~(_MAKE_CHARACTER | _MAKE_BLOCK | IOCTL_DEV)
_ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

_TCP = 3  # bind and connect, ABI 4
_SCOPES = 3  # abstract UNIX sockets and signals, ABI 6
_RIGHTS = {0: 0, 1: REFER - 1, 2: TRUNCATE - 1, 3: IOCTL_DEV - 1, 4: IOCTL_DEV - 1}  # by ABI; from 5 on all 16

ABI_SIGNALS = 6
_asked: list[int] = []  # once, in the spawner


def abi() -> int:
    """Return the newest Landlock ABI of this kernel, 0 when there is none.

    Asked by system call: securityfs is often not mounted, so that the list of security modules says nothing.
    """
    if not _asked:
        try:
            _asked.append(kernel.call("landlock_create_ruleset", None, 0, 1))
        except OSError:
            _asked.append(0)
    return _asked[0]


def ruleset(*, tcp: bool) -> int:
    """Return a descriptor of a domain in which nothing is allowed yet.

    Args:
        tcp: Whether TCP stays as it is; otherwise it can neither bind nor connect.

    Raises:
        OSError: This kernel has no Landlock.
    """
    version = abi()
    fields = [_handled(version), 0 if tcp or version < 4 else _TCP, 0 if version < ABI_SIGNALS else _SCOPES]
    size = 8 if version < 4 else 16 if version < ABI_SIGNALS else 24
    return kernel.call("landlock_create_ruleset", struct.pack("3Q", *fields), size, 0)


def allow(domain: int, paths: Iterable[str], rights: int, *, present: bool = True) -> None:
    """Allow `rights` on these paths and on everything below them.

    They are opened here and now, so it is the files they name at this moment that count.

    Args:
        domain: From `ruleset`.
        paths: Absolute; links are followed.
        rights: Of the constants above.
        present: Whether each path has to be there.

    Raises:
        OSError: A path cannot be opened; `filename` is set.
    """
    rights &= _handled(abi())
    for path in paths:
        try:
            beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            if present:
                raise
            continue
        try:
            kept = rights if stat.S_ISDIR(os.fstat(beneath).st_mode) else rights & _ON_FILES
            kernel.call("landlock_add_rule", domain, 1, struct.pack("=Qi", kept, beneath), 0)
        finally:
            os.close(beneath)


def restrict(domain: int) -> None:
    """Enter the domain for good. `no_new_privs` must be set."""
    kernel.call("landlock_restrict_self", domain, 0)


def _handled(version: int) -> int:
    return _RIGHTS.get(version, (1 << 16) - 1)
