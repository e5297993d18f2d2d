"""Search in a server's histories: what `hub.search` is to commands that work on one."""

from __future__ import annotations

from typing import final

from alcove.cli import answers
from alcove.cli.wire import Wire, at
from alcove.search.model import Found


@final
class RemoteSearch:
    """`hub.search` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def find(
        self,
        query: str,
        *,
        user_id: str | None = None,
        app: str | None = None,
        session_id: str | None = None,
        limit: int = 20,
    ) -> Found:
        """Find messages and titles by their words: see `Search.find`."""
        asked = {"q": query, "user_id": user_id, "app": app, "session_id": session_id, "limit": limit}
        return (await self._wire.ask("GET", at("search"), query=asked)).read(answers.FoundAnswer).record()
