"""An installation around a database that a contract brings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from alcove.database.op import Database
from alcove.hub import Alcove
from alcove.settings.loading import load


@asynccontextmanager
async def installed(
    database: Database, place: Path, environ: Mapping[str, str] | None = None
) -> AsyncGenerator[Alcove]:
    """Yield an installation without folders; what it keeps beside its rows lies in `place`."""
    settings = load(place, environ or {})
    (settings.home / "database").mkdir(parents=True, exist_ok=True)
    hub = Alcove(settings, database, "contract", None)
    try:
        yield hub
    finally:
        await hub.search.close()
        await hub.objects.close()
