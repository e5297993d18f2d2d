"""A server in a thread of the test's own process."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

import alcove.hub
from alcove.hub import Alcove
from alcove.server.app import App
from alcove.server.auth import Gate, PortGate
from alcove.server.call import Site
from alcove.server.door import RunDoor
from alcove.server.protocol import configured
from alcove.server.routes import ROUTES
from alcove.settings.loading import load
from alcove.telemetry.metrics import Metrics


class Served:
    """Serves the installation of a folder while it is entered.

    Attributes:
        url: Where.
    """

    def __init__(self, folder: Path, gate: Gate | None = None) -> None:
        self._folder = folder
        self._gate = gate
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="server")
        self._ready = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server: uvicorn.Server | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        assert self._server
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        try:
            async with alcove.hub.open(settings=load(self._folder, {})) as hub:
                await self._answer(hub)
        finally:
            self._ready.set()

    async def _answer(self, hub: Alcove) -> None:
        site = Site(hub=hub, routes=ROUTES, metrics=Metrics(), stopping=asyncio.Event())
        hub.workshop.door = RunDoor(site)
        self._server = uvicorn.Server(configured(App(site, self._gate or PortGate(hub.keys))))
        self._ready.set()
        await self._server.serve([self._listener])
