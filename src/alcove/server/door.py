"""The socket of a run: the same routes, for one token and one session."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from uvicorn.server import ServerState

from alcove import limits
from alcove.server.app import App
from alcove.server.auth import RunGate
from alcove.server.call import Site
from alcove.server.protocol import Connection, configured


class RunDoor:
    """Opens the sockets of runs; give it to `hub.workshop.door`.

    Args:
        site: What the sockets serve.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, session_id: str, run_id: str, token: str, path: Path) -> Callable[[], Awaitable[None]]:
        """Listen at `path`, for whoever owns that file and has the token; return what closes the socket."""
        app = App(self._site, RunGate(session_id, run_id, token))
        config, state = configured(app), ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: Connection(config, state, {}, loop, most=limits.RUN_CONNECTIONS), path
        )
        os.chmod(path, 0o600)

        async def close() -> None:
            server.close()
            for connection in list(state.connections):
                connection.transport.close()
            for task in list(state.tasks):
                task.cancel()
            await asyncio.gather(*state.tasks, return_exceptions=True)

        return close
