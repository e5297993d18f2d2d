"""Where a run's proxy connects to: pure functions of what is listed and what a name leads to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from alcove.rights import hosts
from alcove.rights.hosts import Host

Address = IPv4Address | IPv6Address


class RefusalError(Exception):
    """What the proxy answers instead of connecting.

    Attributes:
        status: The HTTP status.
        code: `malformed`, `unlisted`, `address`, `server_name`, `unresolved`, `unreachable`, `length`, `head`, `busy`.
        message: The same for a person.
        host: What was asked for, `''` when that was not understood.
    """

    def __init__(self, status: int, code: str, message: str, host: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.host = host


# From the registries of special-purpose addresses (RFC 6890 and its successors).
_REFUSED: Final = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local, where clouds keep metadata"),
        ("10.0.0.0/8", "private"),
        ("172.16.0.0/12", "private"),
        ("192.168.0.0/16", "private"),
        ("100.64.0.0/10", "private to a provider"),
        ("0.0.0.0/8", "this machine"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_PUBLIC_6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_REFUSED_6: Final = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("2002::/16", "a tunnel"),
        ("3fff::/20", "reserved"),
        ("::1/128", "loopback"),
        ("fe80::/10", "link-local"),
        ("fc00::/7", "private"),
        ("ff00::/8", "multicast"),
        ("::ffff:0:0/96", "an IPv4 address in disguise"),
    )
)


def special(address: Address) -> str:
    """Return what keeps an address from being reached by a name alone, `''` when nothing does."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:  # how a network without IPv4 reaches one
            return special(IPv4Address(int(address) & 0xFFFFFFFF))
        found = next((what for network, what in _REFUSED_6 if address in network), "")
        return found or ("" if address in _PUBLIC_6 else "reserved")
    return next((what for network, what in _REFUSED if address in network), "")


def target(authority: str, port: int | None = None) -> Host | None:
    """Return the one host that an authority names; None when it is not plain, or names many.

    Args:
        authority: `name:port`, or without a port where one is usual. Whoever logs in (`user@name`) is not understood.
        port: The usual port; None where it has to be named.
    """
    found = hosts.host(authority)
    if found is None or found.name.startswith(hosts.BELOW):
        return None
    found = Host(found.name, port if found.port is None else found.port)
    return None if found.port is None else found


def check_listed(listed: Collection[str], asked: Host) -> None:
    """Let pass what is listed.

    Raises:
        RefusalError: `unlisted`.
    """
    if not hosts.reaches(listed, str(asked)):
        raise RefusalError(403, "unlisted", f"{asked} is not among the hosts that this run may reach", str(asked))


def checked(listed: Collection[str], asked: Host, found: Sequence[str]) -> list[str]:
    """Return the addresses that a name leads to, when every one of them may be reached.

    One that is not public has to be listed itself, besides the name: whoever answers for a name could otherwise lead
    it into this machine or its network.

    Raises:
        RefusalError: `address`, or `unresolved` when there is none.
    """
    if not found:
        raise RefusalError(502, "unresolved", f"{asked.name} leads to no address", str(asked))
    for text in found:
        address = ip_address(text)
        what = special(address)
        shown = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        if what and not hosts.reaches(listed, f"{shown}:{asked.port}"):
            raise RefusalError(
                403, "address", f"{asked} leads to {shown} ({what}), which is not listed itself", str(asked)
            )
    return list(found)
