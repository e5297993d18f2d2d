"""Who is calling, and whether the call may come in at all."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol, TypeAlias, final
from urllib.parse import urlsplit

from alcove.errors import UnauthorizedError
from alcove.principals import oidc
from alcove.principals.model import LOCAL, NOBODY, Principal, Role
from alcove.principals.service import Keys
from alcove.runs.hosted import TOKEN_PREFIX, Bearer
from alcove.server.problems import ForbiddenError, MisdirectedError
from alcove.server.route import UNMATCHED, Route

Headers = Mapping[bytes, bytes]
Tokens: TypeAlias = Callable[[str], Awaitable[Bearer]]
_RUN: Final = TOKEN_PREFIX.encode()
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Gate(Protocol):
    """What stands before the routes of one listening socket."""

    async def admit(self, headers: Headers, route: Route) -> Principal:
        """Return who is calling, or raise why the call is refused."""
        ...


@final
class PortGate:
    """Stands before a TCP port: no page of another origin comes in and, once there are keys, nobody without one.

    While there are none, whoever reaches a port of the loopback is taken for the local administrator. A page may make a
    browser call it: under a name that it made point here (the Host tells), or across sites (Origin and Sec-Fetch-Site
    tell). A page on another port of this machine counts as foreign too.

    Args:
        keys: Tells who holds one.
        allowed_hosts: Names besides those of the loopback under which a proxy may call.
        tokens: Tells which run a run's token is of; None to take none.
        provider: Tells whom a token of the OpenID Connect provider is for; None to take none.
        loopback: Whether only this machine reaches the port. Otherwise a key is needed always, and any name is taken
            unless some are listed: no page has the key.
    """

    def __init__(
        self,
        keys: Keys,
        allowed_hosts: Iterable[str] = (),
        *,
        tokens: Tokens | None = None,
        provider: oidc.Tokens | None = None,
        loopback: bool = True,
    ) -> None:
        self._keys = keys
        self._provider = provider
        self._tokens = tokens
        self._loopback = loopback
        listed = frozenset(name.lower() for name in allowed_hosts)
        self._names = _LOOPBACK_NAMES | listed if loopback or listed else None

    async def admit(self, headers: Headers, route: Route) -> Principal:
        """Return who is calling.

        Raises:
            MisdirectedError: The Host header is missing, or names another host.
            ForbiddenError: A page of another origin sent the request.
            UnauthorizedError: It comes without a key where one is needed, or the key is not taken.
            RateLimitedError: The key's holder asks too often.
        """
        self._check_origin(headers, route)
        secret = _bearer(headers)
        if secret is not None and secret.startswith(_RUN) and self._tokens:
            # Also where there are no keys: whoever shows a run's token is that run, and not the administrator.
            bearer = await self._tokens(secret.decode("latin-1"))
            owner = bearer.owner
            return Principal(role=Role.RUN, tenant=owner.tenant, session_id=owner.session_id, run_id=bearer.run_id)
        if self._loopback and self._provider is None and not await self._keys.exist():
            return LOCAL
        if secret is not None:
            text = secret.decode("latin-1")
            if self._provider is not None and oidc.looks_like_one(text):
                return await self._provider.authenticate(text)
            return await self._keys.authenticate(secret.decode("latin-1"))
        if route.public and route is not UNMATCHED:  # a stranger is not told which paths there are
            return NOBODY
        raise UnauthorizedError(remedy="send Authorization: Bearer with a key; `alcove key create` makes one")

    def _check_origin(self, headers: Headers, route: Route) -> None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._names is not None and _name(host) not in self._names:
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
        self._principal = Principal(role=Role.RUN, session_id=session_id, run_id=run_id)

    async def admit(self, headers: Headers, route: Route) -> Principal:
        """Return the run.

        Raises:
            UnauthorizedError: The token is missing or another one.
        """
        del route
        token = _bearer(headers)
        if token is None or not hmac.compare_digest(_digest(token), self._digest):
            raise UnauthorizedError(remedy="send Authorization: Bearer with the value of ALCOVE_RUN_TOKEN")
        return self._principal


def _bearer(headers: Headers) -> bytes | None:
    """Return the credential that a request carries, None when it carries none."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None


def _name(host: str) -> str:
    """Return a Host header without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
