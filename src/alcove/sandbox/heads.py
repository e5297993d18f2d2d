"""What a run says to its proxy: the head of an HTTP request, and the first words of TLS. Pure functions of bytes.

One that two programs could read in two ways is refused: there is nothing here that mends.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from alcove.rights.hosts import Host
from alcove.sandbox import destinations
from alcove.sandbox.destinations import RefusalError

END: Final = b"\r\n\r\n"
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIRST: Final = re.compile(rf"({_TOKEN}) ([\x21-\x7e]+) (HTTP/1\.[01])")
_FIELD: Final = re.compile(rf"({_TOKEN}):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_URL: Final = re.compile(r"http://([^/?#]*)(/[^#?]*)?(\?[^#]*)?", re.IGNORECASE)
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
# Between two neighbours only (RFC 9110, 7.6.1), or said anew.
_DROPPED: Final = {
    *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
    *("host", "content-length", "http2-settings"),
}


class Request(NamedTuple):
    """A request that was understood.

    Attributes:
        host: Where to.
        tunnel: Whether it asks for a tunnel; else it is one request, which is passed on.
        head: What is passed on in place of the head that came, `b''` for a tunnel.
        length: Bytes of the body that follow.
    """

    host: Host
    tunnel: bool
    head: bytes
    length: int


def request(head: bytes) -> Request:
    """Return the request in a head, which ends with an empty line.

    Raises:
        RefusalError: `malformed`, or `length` for a body whose length is not said.
    """
    first, *lines = head.removesuffix(END).decode("latin-1").split("\r\n")
    match = _FIRST.fullmatch(first)
    if match is None:
        raise _malformed("the request line is not METHOD TARGET HTTP/1.1")
    method, target, version = match.groups()
    fields = [_field(line) for line in lines]
    if method == "CONNECT":
        host = destinations.target(target)
        if host is None:
            raise _malformed("CONNECT wants name:port, or an address in its usual form")
        return Request(host, True, b"", 0)
    url = _URL.fullmatch(target)
    if url is None:
        raise _malformed("this is a proxy: it wants CONNECT name:port, or http://name/path")
    host = destinations.target(url[1], 80)
    if host is None:
        raise _malformed("the URL names no host, or not in its usual form")
    length = _length(fields)
    passed = [f"{method} {url[2] or '/'}{url[3] or ''} {version}", f"Host: {host.name if host.port == 80 else host}"]
    options = {
        word.strip().lower() for name, value in fields if name.lower() == "connection" for word in value.split(",")
    }
    passed += [f"{name}: {value}" for name, value in fields if not _is_dropped(name.lower(), options)]
    if length is not None:
        passed.append(f"Content-Length: {length}")
    return Request(host, False, "\r\n".join((*passed, "Connection: close", "", "")).encode("latin-1"), length or 0)


def _is_dropped(name: str, options: set[str]) -> bool:
    return name in _DROPPED or name in options or name.startswith("proxy-")


def _field(line: str) -> tuple[str, str]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise _malformed("a header is not NAME: VALUE on one line")
    return match[1], match[2].rstrip(" \t")


def _length(fields: list[tuple[str, str]]) -> int | None:
    said = [value for name, value in fields if name.lower() == "content-length"]
    if any(name.lower() == "transfer-encoding" for name, _ in fields):
        raise RefusalError(411, "length", "a request through this proxy says the length of its body (Content-Length)")
    if len(said) > 1 or not all(map(_LENGTH.fullmatch, said)):
        raise _malformed("Content-Length is not one number")
    return int(said[0]) if said else None


def _malformed(message: str) -> RefusalError:
    return RefusalError(400, "malformed", message)


def server_names(said: bytes) -> list[str] | None:
    """Return the names that a TLS client greets a server by; none when it gives no name, or it is not TLS at all.

    Args:
        said: The first bytes of a connection.

    Returns:
        None while too little was said to tell.

    Raises:
        RefusalError: `server_name`: it begins as TLS and goes on as something else.
    """
    if said[:1] != b"\x16" or (len(said) > 1 and said[1] != 3):
        return []
    hello = bytearray()
    at = 0
    while len(hello) < 4 or len(hello) < 4 + int.from_bytes(hello[1:4], "big"):
        record = said[at : at + 5]
        if len(record) == 5 and record[0] != 0x16:
            raise _no_hello()
        size = int.from_bytes(record[3:5], "big")
        if len(record) < 5 or len(said) < at + 5 + size:
            return None
        hello += said[at + 5 : at + 5 + size]
        at += 5 + size
        if hello and hello[0] != 1:
            raise _no_hello()
    try:
        return _names(_Reader(bytes(hello[4 : 4 + int.from_bytes(hello[1:4], "big")])))
    except (IndexError, UnicodeDecodeError):
        raise _no_hello() from None


def _names(hello: _Reader) -> list[str]:
    hello.take(2 + 32)  # version, random
    for width in (1, 2, 1):  # session, ciphers, compressions
        hello.block(width)
    if hello.done:
        return []
    found: list[str] = []
    extensions = _Reader(hello.block(2))
    while not extensions.done:
        kind, body = extensions.number(2), _Reader(extensions.block(2))
        if kind == 0:
            names = _Reader(body.block(2))
            while not names.done:
                names.take(1)
                found.append(names.block(2).decode("ascii"))
    return found


class _Reader:
    """Takes bytes from the front; raises IndexError where there are too few."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise IndexError
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def block(self, width: int) -> bytes:
        return self.take(self.number(width))


def _no_hello() -> RefusalError:
    return RefusalError(403, "server_name", "it begins as TLS, and goes on as something else")
