"""The ledger of runs: what stays of each of them, found and listed."""

from __future__ import annotations

from alcove import limits
from alcove.database.op import Database
from alcove.pages import page_limit
from alcove.runs import queries
from alcove.runs.model import Run, RunFilters, RunPage


class Ledger:
    """Reads runs.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, run_id: str) -> Run:
        """Return a run.

        Raises:
            RunNotFoundError: There is none of that id.
        """
        return await self._database.read(queries.get, run_id)

    async def list(
        self,
        session_id: str | None = None,
        *,
        tenant: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        status: str | None = None,
        parent_run: str | None = None,
        root_run: str | None = None,
        hosted: bool | None = None,
        active: bool | None = None,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
    ) -> RunPage:
        """List runs, newest first; every given filter must hold.

        Args:
            session_id: Of this session.
            tenant: Of this tenant.
            user_id: Of this user.
            agent: Of this agent.
            status: With this status.
            parent_run: Handed on by this run.
            root_run: Of the tree below this run.
            hosted: Whether a host framework executes them.
            active: Whether they have not ended.
            limit: 1 to `limits.PAGE`.
            cursor: `next_cursor` of the page before.
        """
        filters = RunFilters(
            session_id=session_id,
            tenant=tenant,
            user_id=user_id,
            agent=agent,
            status=status,
            parent_run=parent_run,
            root_run=root_run,
            hosted=None if hosted is None else int(hosted),
            active=active,
        )
        return await self._database.read(queries.page, filters, page_limit(limit), cursor)

    async def tree(self, run_id: str, *, limit: int = limits.TREE_SESSIONS) -> list[Run]:
        """Return a run and those that got their rights from it, nearest first, at most `limit` of them."""
        return await self._database.read(queries.tree, run_id, page_limit(limit, limits.TREE_SESSIONS))
