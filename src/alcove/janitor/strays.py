"""Folders that no session knows of, and sessions whose folder is gone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import final

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Database
from alcove.errors import AlcoveError
from alcove.janitor import queries
from alcove.janitor.model import Cleaned, Findings, What
from alcove.workspaces.model import Stray
from alcove.workspaces.service import Workspaces


@final
class Strays:
    """Looks for what does not belong together.

    Args:
        database: Where the rows are.
        workspaces: The folders; None for a hub without, where nothing is found.
    """

    def __init__(self, database: Database, workspaces: Workspaces | None) -> None:
        self._database = database
        self._workspaces = workspaces

    async def findings(self) -> Findings:
        """Look; nothing is changed."""
        strays = [one.path async for page in self._pages() for one in page]
        folderless: list[str] = []
        after = ""
        while self._workspaces:
            page = await self._database.read(queries.furnished, after, limits.SWEEP_PAGE)
            if not page:
                break
            after = page[-1]
            folderless += await self._workspaces.missing(page)
        return Findings(strays=tuple(strays[: limits.CLEANED]), folderless=tuple(folderless[: limits.CLEANED]))

    async def clean(self, older: Micros, *, dry_run: bool) -> Cleaned:
        """Remove for good what is a stray and was not changed for so long; with `dry_run`, tell what that is."""
        shown: list[str] = []
        problems: list[str] = []
        size_bytes = 0
        before = await self._database.read(queries.past, older)
        async for page in self._pages():
            for one in page:
                if one.changed_us > before:
                    continue
                if not dry_run:
                    if await self._database.read(queries.known, [one.name]):
                        continue  # somebody made a session of that name in the meantime
                    assert self._workspaces
                    try:
                        size_bytes += (await self._workspaces.remove_stray(one)).size_bytes
                    except AlcoveError as error:
                        problems.append(error.message)
                        continue
                shown.append(one.path)
        return Cleaned(
            what=What.STRAYS,
            dry_run=dry_run,
            strays=tuple(shown[: limits.CLEANED]),
            size_bytes=size_bytes,
            problems=tuple(problems),
        )

    async def _pages(self) -> AsyncGenerator[list[Stray]]:
        """Yield folders that belong to no session, some at a time."""
        if not self._workspaces:
            return
        found = await self._workspaces.places()
        for start in range(0, len(found), limits.KNOWN):
            page = found[start : start + limits.KNOWN]
            known = await self._database.read(queries.known, sorted({one.name for one in page}))
            yield [one for one in page if one.name not in known]
