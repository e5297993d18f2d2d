"""Landlock: which files a process may touch, which TCP ports, and whom it may signal.

Runs in the warm spawner and its children: standard library only. Landlock has no right for metadata (`stat`, `chmod`)
nor, before ABI 9, for pathname sockets: namespaces or a leased uid have to give those.
"""

from __future__ import annotations

import os
import stat
import struct

from alcove.sandbox import kernel

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


def abi() -> int:
    """Return the newest Landlock ABI of this kernel, 0 when there is none.

    Asked by system call: securityfs is often not mounted, so that the list of security modules says nothing.
    """
    try:
        return kernel.call("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def ruleset(rules: list[tuple[str, int]], *, tcp: bool) -> int:
    """Return a descriptor of a domain in which `rules` (path, rights) are allowed and nothing else.

    Args:
        rules: Paths are opened here and now, so it is the files they name at this moment that count.
        tcp: Whether TCP stays as it is; otherwise it can neither bind nor connect.

    Raises:
        OSError: A path cannot be opened (`filename` is set), or this kernel has no Landlock.
    """
    version = abi()
    handled = _RIGHTS.get(version, (1 << 16) - 1)
    fields = [handled, 0 if tcp or version < 4 else _TCP, 0 if version < ABI_SIGNALS else _SCOPES]
    size = 8 if version < 4 else 16 if version < ABI_SIGNALS else 24
    domain = kernel.call("landlock_create_ruleset", struct.pack("3Q", *fields), size, 0)
    for path, rights in rules:
        _allow(domain, path, rights & handled)
    return domain


def restrict(domain: int) -> None:
    """Enter the domain for good. `no_new_privs` must be set."""
    kernel.call("landlock_restrict_self", domain, 0)


def _allow(domain: int, path: str, rights: int) -> None:
    beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            rights &= _ON_FILES
        kernel.call("landlock_add_rule", domain, 1, struct.pack("=Qi", rights, beneath), 0)
    finally:
        os.close(beneath)
