"""Hosts as they are listed and asked for: names, names below one, addresses; each with a port or with every port.

Pure functions. One form for each host, so that equal ones are equal texts: lower case, addresses as short as can be.
What looks like an address and is none in that form (`127.1`, `0x7f000001`, `010.0.0.1`) is no host at all: programs
differ in what they take it for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final, NamedTuple

BELOW: Final = "*."
"""Begins a pattern for every name below one, and not for that one itself."""

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_NAME_CHARS: Final = 253
_TEXT_CHARS: Final = 2 + 253 + 1 + 6  # a pattern, a dot at the end, a port


class Host(NamedTuple):
    """A host, or a pattern of hosts.

    Attributes:
        name: A name, `*.` and a name, an IPv4 address, or an IPv6 address in brackets.
        port: None for every port.
    """

    name: str
    port: int | None

    def __str__(self) -> str:
        return self.name if self.port is None else f"{self.name}:{self.port}"

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The address that it is, None for a name."""
        return _address(self.name)


@lru_cache(4096)
def host(text: str) -> Host | None:
    """Return what a text names, as `name` or `name:port`; None when it is no host in a form that everybody reads alike.

    Upper case is taken for lower, and one dot at the end of a name is left out.
    """
    if len(text) > _TEXT_CHARS or not text.isascii():
        return None
    text = text.lower()
    name, port = text, None
    before, colon, after = text.rpartition(":")
    if colon and not text.endswith("]"):
        if not _PORT.fullmatch(after) or int(after) > 0xFFFF:
            return None
        name, port = before, int(after)
    plain = _plain(name)
    return None if plain is None else Host(plain, port)


def covers(bound: Host, given: Host) -> bool:
    """Return whether everything that `given` names is named by `bound` too."""
    return bound.port in {None, given.port} and _names(bound.name, given.name)


def reaches(listed: Collection[str], asked: str) -> bool:
    """Return whether a host, as `name` or `name:port`, is listed. One listed without a port has every port."""
    wanted = host(asked)
    return wanted is not None and any(covers(one, wanted) for one in map(host, listed) if one is not None)


def common(given: Collection[str], bound: Collection[str]) -> tuple[str, ...]:
    """Return as few patterns as will do for what both lists name, sorted; those of `given` stay as they are."""
    limits = [one for one in map(host, bound) if one is not None]
    found = {both for one in map(host, given) if one is not None for limit in limits if (both := _both(one, limit))}
    kept = {one for one in found if str(one) in given or not any(covers(other, one) for other in found - {one})}
    return tuple(sorted(map(str, kept)))


def is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether this machine takes an address for itself, whatever its form."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback or (mapped or address).is_unspecified


def _both(one: Host, other: Host) -> Host | None:
    """Return what two patterns both name: of names one is within the other, or they share none."""
    if None not in {one.port, other.port} and one.port != other.port:
        return None
    if _names(one.name, other.name):
        name = other.name
    elif _names(other.name, one.name):
        name = one.name
    else:
        return None
    return Host(name, one.port if other.port is None else other.port)


def _names(bound: str, given: str) -> bool:
    return bound == given or (bound.startswith(BELOW) and given.endswith(bound[1:]))


def _plain(name: str) -> str | None:
    found = _address(name)
    if found is not None:
        return f"[{found}]" if found.version == 6 else str(found)
    name = name.removesuffix(".")
    labels = name.removeprefix(BELOW).split(".")
    if len(name) > _NAME_CHARS or _NUMBER.fullmatch(labels[-1]) or not all(map(_LABEL.fullmatch, labels)):
        return None
    return name


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        if name.startswith("[") and name.endswith("]") and "%" not in name:
            return ipaddress.IPv6Address(name[1:-1])
        return ipaddress.IPv4Address(name)
    except ValueError:
        return None
