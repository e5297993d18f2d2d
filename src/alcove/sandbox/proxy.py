"""The proxy of a run with a list of hosts: its only way out, served in this process, gone with the run.

It speaks what programs expect of `HTTPS_PROXY` and `HTTP_PROXY`: `CONNECT name:port`, and plain requests by their whole
URL, one on each connection. It looks names up itself, connects to the very addresses that it has checked, and follows
nothing: a redirect is the program's own to follow, by another request. What passes through a tunnel it cannot read, but
a TLS client that greets another server than it asked for is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast, final

from alcove import limits
from alcove.errors import LaunchError
from alcove.rights import hosts
from alcove.rights.hosts import Host
from alcove.sandbox import destinations, heads
from alcove.sandbox.destinations import RefusalError
from alcove.sandbox.handover import take
from alcove.sandbox.plan import Plan
from alcove.sandbox.relay import Server, Side
from alcove.sandbox.resolving import Resolve, connected
from alcove.sandbox.running import Process
from alcove.sandbox.spawner import Spawner
from alcove.sandbox.watch import Guard


class Refused(NamedTuple):
    """A connection that a run was refused; each one is told once.

    Attributes:
        host: As `name:port`, `''` when it could not be understood.
        code: See `destinations.RefusalError`.
        message: The same for a person.
    """

    host: str
    code: str
    message: str


async def start_with_proxy(
    spawner: Spawner, plan: Plan, stdin: bytes, proxy: Proxy, *, guard: Guard | None = None
) -> Process:
    """Start a program whose only network is a proxy; that ends with the program's tree.

    Raises:
        AgentUnavailableError, LaunchError, ClosedError: As `Spawner.start`.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = await spawner.start(plan, stdin, door=theirs.fileno(), guard=guard)
        try:
            listener = _receive(ours)
            if listener is None:
                raise LaunchError("the program has no way to its proxy", step="proxy")
            await proxy.open(listener)
        except BaseException:
            proxy.close()
            process.close()
            await process.kill()
            raise
    process.on_end(proxy.close)
    return process


def _receive(door: socket.socket) -> socket.socket | None:
    """Return the socket that was handed out; None when none was. Does not wait."""
    door.setblocking(False)
    try:
        _, descriptors = take(door, 1, 1)
    except BlockingIOError:
        return None
    return socket.socket(fileno=descriptors[0]) if descriptors else None


@final
class Proxy:
    """Connects one run to the hosts that it may reach.

    Args:
        listed: Those hosts (`rights.hosts`).
        resolve: Looks names up.
        refused: Is told of each destination that was refused, the first time.
    """

    def __init__(
        self, listed: Sequence[str], resolve: Resolve, refused: Callable[[Refused], None] | None = None
    ) -> None:
        self.listed = tuple(listed)
        self.connections: set[_Client] = set()
        self._resolve = resolve
        self._refused = refused
        self._told: set[tuple[str, str]] = set()
        self._look_ups: set[asyncio.Task[Sequence[str]]] = set()
        self._looking = asyncio.Semaphore(limits.PROXY_LOOKUPS_OF_RUN)
        self._server: asyncio.Server | None = None

    async def open(self, listener: socket.socket) -> None:
        """Accept connections on a listening socket, which is the proxy's from then on."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), sock=listener)

    def close(self) -> None:
        """Accept no more, and cut every connection."""
        if self._server is not None:
            self._server.close()
        for one in list(self.connections):
            one.abort()
        for look_up in self._look_ups:
            look_up.cancel()

    def tell(self, refusal: RefusalError) -> None:
        """Note a refusal; what is asked for again and again is told once."""
        key = refusal.host, refusal.code
        if self._refused is not None and key not in self._told and len(self._told) < limits.PROXY_TOLD:
            self._told.add(key)
            self._refused(Refused(*key, refusal.message))

    async def connect(self, asked: Host) -> socket.socket:
        """Return a socket that is connected to a host.

        Raises:
            RefusalError: It is not listed, leads where nobody may go, or does not answer.
        """
        destinations.check_listed(self.listed, asked)
        try:
            async with asyncio.timeout(limits.PROXY_CONNECT_S):
                return await connected(await self._addresses(asked), asked)
        except TimeoutError:
            raise RefusalError(504, "unreachable", f"{asked} did not answer in time", str(asked)) from None

    def check_names(self, asked: Host, names: Sequence[str]) -> None:
        """Let pass the names by which a TLS client greets a server.

        Raises:
            RefusalError: `server_name`: one is neither what was asked for nor listed.
        """
        if asked.address is not None:
            return  # listed as an address, so whatever it is called there
        for name in names:
            found = hosts.host(name)
            if found is None or found.port is not None or not self._may_greet(Host(found.name, asked.port), asked):
                raise RefusalError(403, "server_name", f"asked for {asked} and greeted another server", str(asked))

    def _may_greet(self, greeted: Host, asked: Host) -> bool:
        return greeted == asked or hosts.reaches(self.listed, str(greeted))

    async def _addresses(self, asked: Host) -> list[str]:
        if asked.address is not None:
            return destinations.checked(self.listed, asked, [str(asked.address)])
        look_up = asyncio.create_task(self._look_up(asked))
        self._look_ups.add(look_up)
        look_up.add_done_callback(self._look_ups.discard)
        # One that nobody waits for any more goes on in its place, or a run could have as many as it likes.
        return destinations.checked(self.listed, asked, await asyncio.shield(look_up))

    async def _look_up(self, asked: Host) -> Sequence[str]:
        async with self._looking:
            try:
                return await self._resolve(asked.name, cast("int", asked.port))
            except OSError:
                return ()


class _Client(Side):
    """The end towards the run: it hears what is asked for, then carries that."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._heard = bytearray()  # of a head or a greeting that is not complete
        self._take: Callable[[bytes], None] = self._take_head
        self._left = 0  # bytes of a body that are still to come
        self._opening: asyncio.Task[None] | None = None
        self._asked: Host | None = None
        self._timer: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """End both sides at once."""
        if self._opening is not None:
            self._opening.cancel()
        self.transport.abort()
        if self.other is not None:
            self.other.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, when the run has not too many already."""
        super().connection_made(transport)
        if len(self._proxy.connections) >= limits.PROXY_CONNECTIONS:
            self._refuse(RefusalError(503, "busy", f"{limits.PROXY_CONNECTIONS} connections of this run are open"))
            self.transport.close()
            return
        self._proxy.connections.add(self)
        self._timer = self._loop.call_later(limits.PROXY_HEAD_S, self._end_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side, and forget this one."""
        if self._timer is not None:
            self._timer.cancel()
        if self._opening is not None:
            self._opening.cancel()
        self._proxy.connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the run says, by what is being waited for."""
        self.heard_at = self._loop.time()
        self._take(data)

    def eof_received(self) -> bool:
        """Go on while there is an answer to come."""
        return super().eof_received() or self._opening is not None

    # What is being waited for.

    def _take_head(self, data: bytes) -> None:
        self._heard += data
        end = self._heard.find(heads.END)
        if end < 0 and len(self._heard) <= limits.PROXY_HEAD_BYTES:
            return
        try:
            if not 0 <= end <= limits.PROXY_HEAD_BYTES:
                raise RefusalError(431, "head", f"the head of a request takes at most {limits.PROXY_HEAD_BYTES} bytes")
            request = heads.request(bytes(self._heard[: end + 4]))
        except RefusalError as refusal:
            self._refuse(refusal)
            return
        self._asked = request.host
        rest = bytes(self._heard[end + 4 :])
        self._heard.clear()
        self._take = self._keep  # heard on, so that it is noticed when the client goes away
        self._opening = self._loop.create_task(self._open(request, rest))

    def _keep(self, data: bytes) -> None:
        """Keep what comes before there is somebody to send it to."""
        self._heard += data
        if len(self._heard) > limits.PROXY_BUFFER_BYTES:
            self.transport.pause_reading()

    def _take_greeting(self, data: bytes) -> None:
        """Wait until it is known whom a TLS client greets; what is no TLS goes on at once."""
        assert self.other is not None
        assert self._asked is not None
        self._heard += data
        try:
            names = heads.server_names(bytes(self._heard))
            if names is None and len(self._heard) > limits.PROXY_HEAD_BYTES:
                raise RefusalError(403, "server_name", "the greeting of a TLS client does not end")
            if names is None:
                return
            self._proxy.check_names(self._asked, names)
        except RefusalError as refusal:
            # Inside of a tunnel nothing can be answered.
            self._tell(refusal)
            self.abort()
            return
        self.other.pass_on(bytes(self._heard))
        self._heard.clear()
        self._take = self.other.pass_on

    def _take_body(self, data: bytes) -> None:
        """Pass on the body that was announced; anything after it is no part of the request, and goes nowhere."""
        assert self.other is not None
        self.other.pass_on(data[: self._left])
        self._left -= min(self._left, len(data))

    async def _open(self, request: heads.Request, rest: bytes) -> None:
        try:
            way = await self._proxy.connect(request.host)
            try:
                _, server = await self._loop.create_connection(lambda: Server(tunnel=request.tunnel), sock=way)
            except BaseException:
                way.close()
                raise
        except (RefusalError, OSError) as error:
            self._opening = None
            unreachable = RefusalError(502, "unreachable", f"{request.host}: {error}", str(request.host))
            self._refuse(error if isinstance(error, RefusalError) else unreachable)
            return
        self.other, server.other = server, self
        self._opening = None
        if request.tunnel:
            self.transport.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            self._take = self._take_greeting
        else:
            server.pass_on(request.head)
            self._left = request.length
            self._take = self._take_body
        if rest := rest + bytes(self._heard):
            self._heard.clear()
            self._take(rest)
        if self.ended:
            self.eof_received()
        self._watch()
        with contextlib.suppress(RuntimeError):
            self.transport.resume_reading()

    # Ends.

    def _refuse(self, refusal: RefusalError) -> None:
        """Answer with a reason, and hear no more."""
        self._tell(refusal)
        body = f"{refusal.code}: {refusal.message}\n".encode()
        head = f"HTTP/1.1 {refusal.status} Refused by Alcove ({refusal.code})\r\nAlcove-Refusal: {refusal.code}\r\n"
        head += f"Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self._take = lambda _: None
        if not self.transport.is_closing():
            self.transport.write(head.encode() + body)
            # Not closed at once: a client that is still sending would be reset, and lose the answer.
            self.transport.write_eof()
            with contextlib.suppress(RuntimeError):
                self.transport.resume_reading()
            self._wait(limits.PROXY_LINGER_S, self.transport.abort)

    def _tell(self, refusal: RefusalError) -> None:
        if not refusal.host and self._asked is not None:
            refusal.host = str(self._asked)
        self._proxy.tell(refusal)

    def _end_slow(self) -> None:
        if self._opening is None:
            self._refuse(RefusalError(408, "head", f"no request came within {limits.PROXY_HEAD_S} s"))

    def _watch(self) -> None:
        """End a connection on which nothing passes, looked at from time to time."""
        assert self.other is not None
        idle_s = self._loop.time() - max(self.heard_at, self.other.heard_at)
        if idle_s >= limits.PROXY_IDLE_S:
            self.abort()
        else:
            self._wait(limits.PROXY_IDLE_S - idle_s, self._watch)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then)
