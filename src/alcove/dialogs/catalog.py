"""The definitions that a process has read or kept already: a bot says which one it means at every message."""

from __future__ import annotations

from typing import final

from alcove import ids, limits
from alcove.database.op import Database
from alcove.dialogs import definitions, loading
from alcove.dialogs.model import Definition


@final
class Catalog:
    """Definitions of one process, so that none is read or kept twice.

    Attributes:
        known: Those that were read, by id: stored definitions never change. Whoever reads one adds it.

    Args:
        database: Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[tuple[str, str], str] = {}  # by tenant and digest
        self.known: dict[str, Definition] = {}

    async def newest(self, name: str, tenant: str) -> tuple[str, Definition]:
        """Return the newest version of a definition, and its id.

        Raises:
            DialogNotFoundError: There is none of that name.
        """
        kept, source = await self._database.read(definitions.newest, tenant, name)
        return kept.id, self.known.get(kept.id) or loading.decoded(source)

    async def keep(self, definition: Definition, tenant: str) -> str:
        """Return the id of a definition, kept now if it was not.

        Raises:
            AlreadyExistsError: This version is there with other content.
        """
        place = (tenant, definition.digest)
        if place not in self._ids:
            kept = await self._database.write(definitions.store, ids.new_id(), tenant, definition)
            if len(self._ids) >= limits.DIALOGS_KNOWN:
                self._ids.clear()
            self._ids[place] = kept.id
        return self._ids[place]
