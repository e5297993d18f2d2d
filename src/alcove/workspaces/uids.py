"""The uids that a root server leases to sessions, and those that it spares for what belongs to none."""

from __future__ import annotations

import hashlib
from pathlib import Path

from alcove import limits
from alcove.errors import ConfigurationError

# Above what systemd and container tools hand out (uids from 1879048192 on are nobody's: systemd.io/UIDS-GIDS). Each
# installation takes one of 4096 slots by its id, so that two of them on a machine rarely share uids.
_FIRST, _SLOT, _SLOTS = 1_879_048_192, 65_536, 4096


def leasable(installation: str) -> tuple[int, int]:
    """Return the uids that an installation leases to its sessions, both inclusive.

    Raises:
        ConfigurationError: The user namespace that this server runs in has too few uids.
    """
    own = _own(installation)
    return own.start, own.stop - limits.UIDS_SPARE - 1


def spare(installation: str) -> range:
    """Return the uids of an installation that no session gets: for probes, and for the checks of agents.

    Raises:
        ConfigurationError: The user namespace that this server runs in has too few uids.
    """
    own = _own(installation)
    return own[-limits.UIDS_SPARE :]


def _own(installation: str) -> range:
    """Return the slot of an installation; in a rootless container, which has no slots, the upper half of its uids."""
    slot = int.from_bytes(hashlib.sha256(installation.encode()).digest()[:4], "big") % _SLOTS
    first = _FIRST + slot * _SLOT
    lines = [line.split() for line in Path("/proc/self/uid_map").read_text("ascii").splitlines()]
    ranges = [range(int(start), int(start) + int(count)) for start, _, count in lines]
    if any(first in one and first + _SLOT - 1 in one for one in ranges):
        return range(first, first + _SLOT)
    largest = max(ranges, key=len)
    if len(largest) <= limits.UIDS_MIN:
        raise ConfigurationError(
            f"this server is root with {len(largest)} uids",
            limit=limits.UIDS_MIN,
            remedy="run it as an ordinary user, or in a container that maps 65,536 uids",
        )
    # The container's own users are in the lower half.
    return largest[len(largest) // 2 :]
