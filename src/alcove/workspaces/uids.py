"""The uids that a root server leases to sessions."""

from __future__ import annotations

import hashlib
from pathlib import Path

from alcove import limits
from alcove.errors import ConfigurationError

# Above what systemd and container tools hand out (uids from 1879048192 on are nobody's: systemd.io/UIDS-GIDS). Each
# installation takes one of 4095 slots by its id, so that two of them on a machine rarely share uids; programs that
# belong to no session (`checks`) have the slot after them.
_FIRST, _SLOT, _SLOTS = 1_879_048_192, 65_536, 4095


def leasable(installation: str) -> tuple[int, int]:
    """Return the uids that an installation leases to its sessions, both inclusive.

    Raises:
        ConfigurationError: The user namespace that this server runs in has too few uids.
    """
    slot = int.from_bytes(hashlib.sha256(installation.encode()).digest()[:4], "big") % _SLOTS
    first = _FIRST + slot * _SLOT
    low, high = _mapped(first + _SLOT)
    return (first, first + _SLOT - 1) if low <= first and first + _SLOT <= high else (low + (high - low) // 2, high - 1)


def checks() -> int:
    """Return the uid of programs that are run to see whether they work, outside any session."""
    uid = _FIRST + _SLOTS * _SLOT
    low, high = _mapped(uid)
    return uid if low <= uid <= high else high


def _mapped(wanted: int) -> tuple[int, int]:
    """Return the range of uids in this user namespace that holds `wanted`, else the largest: a rootless container's.

    Of that, the upper half is leased, where the container's own users are not.
    """
    lines = [line.split() for line in Path("/proc/self/uid_map").read_text("ascii").splitlines()]
    ranges = [(int(start), int(start) + int(count) - 1) for start, _, count in lines]
    for low, high in ranges:
        if low <= wanted <= high:
            return low, high
    low, high = max(ranges, key=lambda pair: pair[1] - pair[0])
    if high - low < limits.UIDS_MIN:
        raise ConfigurationError(
            f"this server is root with {high - low + 1} uids",
            limit=limits.UIDS_MIN,
            remedy="run it as an ordinary user, or in a container that maps 65,536 uids",
        )
    return low, high
