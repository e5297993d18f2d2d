"""A hub with function agents, and clients that call it in process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import alcove.hub
from alcove.agents.base import AgentContext
from alcove.hub import Alcove
from alcove.server.app import App
from alcove.server.auth import PortGate, RunGate
from alcove.server.call import Site
from alcove.server.routes import ROUTES
from alcove.settings.loading import load
from alcove.telemetry.metrics import Metrics
from server.asgi import Client


class Agents:
    """Functions that answer; `go` lets the slow ones end."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.calls = 0

    async def echo(self, context: AgentContext) -> str:
        self.calls += 1
        return f"you said: {context.message}"

    async def slow(self, context: AgentContext) -> str:
        context.emit("begun\n")
        await self.go.wait()
        return "done"

    async def counting(self, context: AgentContext) -> str:
        for number in range(int(context.message)):
            context.emit(f"{number}\n")
            await asyncio.sleep(0)
        return "counted"

    async def broken(self, context: AgentContext) -> str:
        raise RuntimeError("cannot think")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Alcove]:
    # A session's own uid has to get there, when the tests run as root.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and (folder == tmp_path or folder.name.startswith("pytest-")):
            folder.chmod(0o711)
    async with alcove.hub.open(settings=load(tmp_path, {})) as hub:
        yield hub


@pytest.fixture
def agents(hub: Alcove) -> Agents:
    agents = Agents()
    for name in ("echo", "slow", "counting", "broken"):
        hub.agents.register(name, getattr(agents, name))
    return agents


@pytest.fixture
def site(hub: Alcove) -> Site:
    return Site(hub=hub, routes=ROUTES, metrics=Metrics(), stopping=asyncio.Event())


@pytest.fixture
def call(site: Site) -> Client:
    """The local administrator."""
    return Client(App(site, PortGate(site.hub.keys, ["alcove.example.org"])))


@pytest.fixture
async def own(call: Client) -> str:
    """A session."""
    return (await call("POST", "/api/v1/sessions")).json()["session_id"]


@pytest.fixture
def as_run(site: Site, own: str) -> Client:
    """A run in that session."""
    return Client(App(site, RunGate(own, "run-1", "s3cret")), {"authorization": "Bearer s3cret"})
