"""What leaves the trash for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import final

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Database
from alcove.errors import AlcoveError
from alcove.janitor import queries, rules
from alcove.janitor.model import Cleaned, Group, What
from alcove.lifecycle.model import By, Gone, Trashing
from alcove.lifecycle.trash import Trash


@final
class Emptying:
    """Purges what was in the trash for long enough.

    Args:
        database: Where the rows are.
        trash: Removes.
        clocks: How the clocks have jumped.
    """

    def __init__(self, database: Database, trash: Trash, clocks: rules.Periods) -> None:
        self._database = database
        self._trash = trash
        self._clocks = clocks

    async def run(self, older: Micros, tenant: str | None, limit: int | None, by: By, *, dry_run: bool) -> Cleaned:
        """Remove what was trashed longer ago than `older`, until about `limit` sessions went; or tell what would."""
        shown: list[Group] = []
        problems: list[str] = []
        count = size_bytes = 0
        more = False
        async for batch in self._ripe(older, tenant):
            more = limit is not None and count >= limit
            if more:
                break
            gone = [Gone()] * len(batch)
            if not dry_run:
                gone = await asyncio.gather(*(self._purge(one.id, by, problems) for one in batch))
            for one, removed in zip(batch, gone, strict=True):
                if removed is not None:
                    count += one.sessions
                    size_bytes += removed.size_bytes
                    if len(shown) < limits.CLEANED:
                        shown.append(Group(one.session_id, one.sessions, one.tenant, one.trashed_us, one.id))
        return Cleaned(
            what=What.TRASH,
            dry_run=dry_run,
            sessions=count,
            groups=tuple(shown),
            size_bytes=size_bytes,
            more=more,
            problems=tuple(problems),
        )

    async def _ripe(self, older: Micros, tenant: str | None) -> AsyncGenerator[list[Trashing]]:
        """Yield what has waited for long enough, some at a time, oldest first."""
        after: tuple[Micros, str] = (-1, "")
        while True:
            now, page = await self._database.read(queries.waiting, tenant, after, limits.PAGE)
            ripe = [one for one in page if one.trashed_us + older + rules.delay(one.trashed_us, self._clocks) <= now]
            for start in range(0, len(ripe), limits.SWEEP_PURGES):
                yield ripe[start : start + limits.SWEEP_PURGES]
            if len(page) < limits.PAGE or page[-1].trashed_us + older > now:
                return
            after = (page[-1].trashed_us, page[-1].id)

    async def _purge(self, trash_id: str, by: By, problems: list[str]) -> Gone | None:
        try:
            return await self._trash.expire(trash_id, by)
        except AlcoveError as error:
            problems.append(error.message)
            return None
