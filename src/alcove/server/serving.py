"""`alcove serve`: opens the hub, listens, and stops in order."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import final

import uvicorn
import uvloop

from alcove import hub as installation, limits
from alcove.audit.model import Act
from alcove.errors import AgentNotFoundError, AlcoveError, ConfigurationError
from alcove.hub import Alcove
from alcove.principals import oidc
from alcove.rights.rules import reaches_loopback
from alcove.server.app import App
from alcove.server.auth import PortGate
from alcove.server.call import Site
from alcove.server.door import RunDoor
from alcove.server.protocol import configured
from alcove.server.routes import ROUTES
from alcove.settings.model import Settings
from alcove.telemetry import logs
from alcove.telemetry.metrics import Metrics
from alcove.values import Json

_log = logging.getLogger("alcove.server")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(settings: Settings, *, prepare: Callable[[Alcove], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; a second one forces the end.

    Prints one line on standard output when requests are answered.

    Args:
        settings: The installation to serve.
        prepare: Called with the open hub before the first request: the place to register functions as agents.

    Raises:
        ConfigurationError: The address or port cannot be used, or there are no keys and others could reach it.
        AlcoveError: The hub cannot be opened.
    """
    logs.configure(settings.log)
    _take_descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, prepare=prepare))


def _take_descriptors() -> None:
    """Raise the soft limit of open files as far as the hard one allows: connections, files and databases share it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, limits.DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def serve(settings: Settings, *, prepare: Callable[[Alcove], None] | None = None) -> None:
    """Serve in a running event loop: see `run`."""
    with _listening(settings.host, settings.port) as (listener, loopback):
        async with installation.open(settings=settings) as hub:
            logs.redact_by(hub.agents.secrets.redact)
            if prepare:
                prepare(hub)
            check_default(hub)
            await hub.runs.reconcile()
            provider = oidc.configured(settings, audit=hub.audit)
            guarded = provider is not None or await hub.keys.exist()
            if not guarded and (trusted := check_keyless(hub, loopback=loopback)):
                words: dict[str, Json] = {"agents": ", ".join(trusted)}
                await hub.audit.done(Act(act="server.trusted", who="configuration", words=words))
            for warning in settings.warnings:
                _log.warning(warning)
            site = Site(hub=hub, routes=ROUTES, metrics=Metrics(), stopping=asyncio.Event())
            hub.workshop.door = RunDoor(site)
            gate = PortGate(
                hub.keys,
                settings.allowed_hosts,
                tokens=hub.runs.of_token,
                provider=provider,
                loopback=loopback,
            )
            await hub.runs.adopt(all_quiet=False)
            await _Server(site, gate).serve([listener])
    _log.info("stopped")


def check_default(hub: Alcove) -> None:
    """Make sure that somebody answers a message that names no agent.

    Raises:
        ConfigurationError: There is no such agent.
    """
    try:
        hub.agents.get(hub.settings.agent)
    except AgentNotFoundError as error:
        raise ConfigurationError(f"the default agent: {error.message}", field="agent", remedy=error.remedy) from error


def check_keyless(hub: Alcove, *, loopback: bool) -> list[str]:
    """Make sure that nobody but this machine's user is taken for the administrator while there are no keys.

    Returns:
        The agents that are trusted not to call the server, because the configuration says so.

    Raises:
        ConfigurationError: Others reach the port, or a configured agent does.
    """
    if not loopback:
        raise ConfigurationError(
            f"{hub.settings.host} is not an address of the loopback, and there are no keys: whoever reached it would "
            "be the administrator",
            field="host",
            remedy="make a key first (alcove key create --role admin), or use 127.0.0.1",
        )
    return check_reach(hub)


def check_reach(hub: Alcove) -> list[str]:
    """Make sure that no configured program can call this server as the local administrator.

    What is configured is looked at here. Whether the machine keeps runs off the network is known once it has been
    probed: that becomes part of the minimum, so that no run starts where it does not.

    Returns:
        The agents that could and are trusted not to, because the configuration says so.

    Raises:
        ConfigurationError: One could, and nobody said that this is meant.
    """
    commands = [agent for agent in hub.agents.describe() if agent.kind == "command"]
    open_rung = hub.settings.rung == "none"
    port = hub.settings.port
    reaching = [agent.name for agent in commands if open_rung or reaches_loopback(agent.network, port)]
    if hub.settings.trust_host_agents:
        if reaching:
            _log.warning("these agents could call this server as its administrator", extra={"agents": reaching})
        return reaching
    if reaching:
        name, what = reaching[0], "rung none" if open_rung else "network"
        raise ConfigurationError(
            f"agent {name!r} could call this server as its administrator ({what})",
            field="sandbox.rung" if open_rung else f"agents.{name}.network",
            remedy=("use another rung" if open_rung else 'set network = "none" for that agent, or list what it needs')
            + ", or make a key (alcove key create --role admin), without which nobody is the administrator then, "
            "or allow it with ALCOVE_TRUST_HOST_AGENTS=true",
        )
    hub.require("network")
    return []


def announcement(host: str, port: int, form: str) -> str:
    """Return the line that says where the server listens: a JSON object where log lines are."""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return json.dumps({"url": url, "pid": os.getpid()}) if form == "json" else f"Alcove listens on {url}"


@final
class _Server(uvicorn.Server):
    """uvicorn's server, with our start, our signals and our order of stopping."""

    def __init__(self, site: Site, gate: PortGate) -> None:
        super().__init__(configured(App(site, gate)))
        self._site = site
        self._beside: list[asyncio.Task[None]] = []
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        assert sockets
        host, port = sockets[0].getsockname()[:2]
        print(announcement(host, port, self._site.hub.settings.log), flush=True)  # noqa: T201
        hub = self._site.hub
        self._beside = [asyncio.create_task(work) for work in (_warm_up(hub), hub.dialogs.keep_time())]
        if hub.settings.auto_cleanup:
            self._beside.append(asyncio.create_task(hub.janitor.watch()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more, let runs end or end them, let answers and streams end."""
        for server in self.servers:
            server.close()
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        live = self._site.hub.runs.live_count
        _log.info("stopping", extra={"runs": live})
        patience_s = limits.DRAIN_S if live and not self.force_exit else 0
        self._draining = asyncio.create_task(self._site.hub.runs.close(patience_s))
        with suppress(asyncio.CancelledError):
            await self._draining
        self._site.stopping.set()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Stop at the first signal, at once at the second."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        if self.force_exit and self._draining:
            self._draining.cancel()


async def _warm_up(hub: Alcove) -> None:
    """Open and probe the sandbox before the first run asks for it, and say what it found."""
    try:
        sandbox = await hub.workshop.sandbox()
        sandbox.require()
    except AlcoveError as error:
        _log.error("no program can be run", extra={"reason": error.message, "remedy": error.remedy})
        return
    _log.info("sandbox ready", extra={"rung": sandbox.rung})


@contextmanager
def _listening(host: str, port: int) -> Generator[tuple[socket.socket, bool]]:
    """Bind before anything is opened, so that a second server on the same port touches nothing.

    Yields:
        The socket, and whether only this machine reaches it.
    """
    address = "127.0.0.1" if host == "localhost" else host
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        raise ConfigurationError(
            f"{host!r} is no IP address", field="host", remedy="use 127.0.0.1, or 0.0.0.0 for every interface"
        ) from None
    # asyncio turns Nagle off only where the protocol is named; with it, every answer waits for the one before.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            raise ConfigurationError(
                f"port {port} of {host} cannot be used: {error.strerror}",
                field="port",
                remedy="stop what listens there, or choose another with ALCOVE_PORT (0 for any free one)",
            ) from error
        yield listener, loopback
