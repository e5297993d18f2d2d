"""Calls of a server: requests, answers, streams, and its problems as the errors that they were.

The standard library's client works in a thread, so that Ctrl-C is heard; cancelling a call hangs up.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
from collections.abc import AsyncGenerator, Generator, Iterable, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

import alcove
from alcove import errors, limits
from alcove.errors import AlcoveError, InvalidError
from alcove.server import problems

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]

_KINDS: Final = {
    kind.code: kind
    for module in (errors, problems)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, AlcoveError)
}
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class UnreachableError(AlcoveError):
    """The server does not answer."""

    code = "unreachable"
    retryable = True


class Answer(NamedTuple):
    """What a server answered, when it was no problem."""

    status: int
    content: bytes

    def read(self, kind: type[T]) -> T:
        """Return the body as a struct; fields that it does not have are left out."""
        try:
            return msgspec.json.decode(self.content, type=kind)
        except msgspec.DecodeError as error:
            raise UnreachableError(
                f"what answers there is no Alcove of this version: {error}", remedy="look at the address"
            ) from error


class Wire:
    """One server, by its address.

    Args:
        url: `http://host:port` or `https://…`, with a path where a proxy asks for one.
        key: Sent as `Authorization: Bearer`; empty for none.

    Raises:
        InvalidError: That is no such address, or the key would go over a network in the clear.
    """

    def __init__(self, url: str, key: str = "") -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            self._host = ""
        if parts.scheme not in {"http", "https"} or not self._host or parts.username or parts.query or parts.fragment:
            raise InvalidError(
                f"{url!r} is not the address of a server", field="url", remedy="such as http://127.0.0.1:8080"
            )
        if key and not (key.isascii() and key.isprintable()):
            raise InvalidError("the key has a character that no key has", field="api-key", remedy="copy it again")
        if key and parts.scheme == "http" and self._host not in _LOOPBACK:
            raise InvalidError(
                f"the key would go to {self._host} in the clear", field="url", remedy="use https, or a tunnel"
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._secure = parts.scheme == "https"
        self._path = parts.path.rstrip("/")
        self._headers = {"User-Agent": f"alcove/{alcove.__version__}", "Accept": "application/json, */*"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        content: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Make a request and return its answer.

        Args:
            method: In capitals.
            path: Below the address, encoded: see `at`.
            query: Its parameters; those that are None are left out.
            body: A value, sent as JSON.
            content: Bytes to send as they are.
            headers: Further ones.

        Raises:
            UnreachableError: There is no answer.
            AlcoveError: What the server raised, as the same class.
        """
        sent = dict(headers or {})
        if body is not None:
            content, sent["Content-Type"] = msgspec.json.encode(body), "application/json"
        elif content is not None:
            sent["Content-Type"] = "application/octet-stream"
        async with self._asked(method, path, query, content, sent) as response:
            with self._reached():
                content = await asyncio.to_thread(response.read)
            return Answer(response.status, content)

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Query | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[http.client.HTTPResponse]:
        """Make a GET request whose answer is read piece by piece: see `pieces`. Raises what `ask` does."""
        async with self._asked("GET", path, query, None, headers or {}) as response:
            yield response

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        query: Query | None,
        content: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
    ) -> AsyncGenerator[http.client.HTTPResponse]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=limits.CONNECT_TIMEOUT_S)
        head = {**self._headers, **headers}
        target = self._path + path + (f"?{_encoded(query)}" if query else "")
        try:
            with self._reached():
                response = await asyncio.to_thread(_exchange, connection, method, target, content, head)
                if response.status >= http.client.BAD_REQUEST or response.status in {301, 302, 303, 307, 308}:
                    raise _problem(response.status, await asyncio.to_thread(response.read), self.url)
            yield response
        finally:
            # A thread that still reads finds the end of it.
            if isinstance(sock := connection.sock, socket.socket):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    @contextmanager
    def _reached(self) -> Generator[None]:
        """Turn every way in which a connection may fail into one error."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreachableError(
                f"{self.url} does not answer: {why}", remedy="is `alcove serve` running there, on that port?"
            ) from error

    async def pieces(self, response: http.client.HTTPResponse) -> AsyncGenerator[bytes]:
        """Yield the body of a streamed answer as it comes.

        Raises:
            UnreachableError: It ended before its end.
        """
        while True:
            with self._reached():
                piece = await asyncio.to_thread(response.read1, limits.SEND_BYTES)
            if not piece:
                if response.length:
                    raise UnreachableError(f"{self.url} hung up in the middle of its answer", remedy="try again")
                return
            yield piece


def at(*parts: str) -> str:
    """Return a path of the API, each part encoded: bytes of file names that are not UTF-8 as well."""
    return "/api/v1/" + "/".join(quote(os.fsencode(part), safe="") for part in parts)


def _encoded(query: Query) -> str:
    given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    return urlencode({name: value for name, value in given.items() if value is not None})


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    content: bytes | Iterable[bytes] | None,
    headers: dict[str, str],
) -> http.client.HTTPResponse:
    connection.connect()
    # An answer takes as long as it takes; a stream says every limits.SSE_HEARTBEAT_S that it is still there.
    connection.sock.settimeout(4 * limits.SSE_HEARTBEAT_S if method == "GET" else None)
    # A server that says no before it has heard all hangs up; what it said is there to be read.
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request(method, target, content, headers)
    return connection.getresponse()


class _Problem(msgspec.Struct):
    detail: str
    code: str = "internal"
    field: str = ""
    limit: str | int | None = None
    remedy: str = ""
    details: dict[str, Any] = {}


def _problem(status: int, content: bytes, url: str) -> AlcoveError:
    try:
        said = msgspec.json.decode(content, type=_Problem)
    except msgspec.DecodeError:
        return UnreachableError(f"{url} answers {status}, not as Alcove does", remedy="look at the address")
    kind = _KINDS.get(said.code, AlcoveError)
    details = {name: value for name, value in said.details.items() if name not in {"field", "limit", "remedy"}}
    return kind(said.detail, field=said.field, limit=said.limit, remedy=said.remedy, **details)
