"""Who is calling, and whether the call may come in at all."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final, Literal, Protocol, final
from urllib.parse import urlsplit

import msgspec

from alcove.server.problems import ForbiddenError, MisdirectedError, UnauthorizedError
from alcove.server.route import Route

Headers = Mapping[bytes, bytes]
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling.

    Attributes:
        kind: `admin` may do everything; `run` is a program, limited to reading its own session; `nobody` nothing.
        tenant: Whose sessions it sees.
        session_id: The session of a run, `''` for an administrator.
        run_id: The run itself.
    """

    kind: Literal["admin", "run", "nobody"]
    tenant: str = "default"
    session_id: str = ""
    run_id: str = ""


NOBODY: Final = Principal(kind="nobody")


class Gate(Protocol):
    """What stands before the routes of one listening socket."""

    def admit(self, headers: Headers, route: Route) -> Principal:
        """Return who is calling, or raise why the call is refused."""
        ...


@final
class LoopbackGate:
    """Takes whoever reaches the loopback port for the local administrator, unless a web page sent him.

    A page may make a browser call this port: under a name that it made point here (the Host tells), or across sites
    (Origin and Sec-Fetch-Site tell). A page on another port of this machine counts as foreign too.

    Args:
        allowed_hosts: Names besides those of the loopback under which a proxy may call.
    """

    _admin = Principal(kind="admin")

    def __init__(self, allowed_hosts: Iterable[str] = ()) -> None:
        self._names = _LOOPBACK_NAMES | {name.lower() for name in allowed_hosts}

    def admit(self, headers: Headers, route: Route) -> Principal:
        """Return the administrator.

        Raises:
            MisdirectedError: The Host header is missing, or names another host.
            ForbiddenError: A page of another origin sent the request.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if _name(host) not in self._names:
            raise MisdirectedError(
                f"this server is not {host[:100]!r}",
                field="host",
                remedy="call it by its address, or add the name to ALCOVE_ALLOWED_HOSTS",
            )
        origin = headers.get(b"origin")
        if origin is not None and _host_of(origin) != host:
            raise ForbiddenError(field="origin")
        site = headers.get(b"sec-fetch-site", b"none")
        if site not in {b"none", b"same-origin"} and not route.public:
            raise ForbiddenError(field="sec-fetch-site")
        return self._admin


def _host_of(origin: bytes) -> str | None:
    """Return the host and port of an Origin header, None when it is no URL."""
    try:
        return urlsplit(origin.decode("latin-1").lower()).netloc
    except ValueError:
        return None


@final
class RunGate:
    """Admits nothing but the token of one run.

    Args:
        token: What the run was given in `ALCOVE_RUN_TOKEN`; only its digest is kept.
    """

    def __init__(self, session_id: str, run_id: str, token: str) -> None:
        self._digest = _digest(token.encode())
        self._principal = Principal(kind="run", session_id=session_id, run_id=run_id)

    def admit(self, headers: Headers, route: Route) -> Principal:
        """Return the run.

        Raises:
            UnauthorizedError: The token is missing or another one.
        """
        del route
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(_digest(token.strip()), self._digest):
            raise UnauthorizedError(remedy="send Authorization: Bearer with the value of ALCOVE_RUN_TOKEN")
        return self._principal


def _name(host: str) -> str:
    """Return a Host header without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
