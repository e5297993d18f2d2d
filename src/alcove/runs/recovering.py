"""Runs whose process is gone: marked lost, ended, and what waits behind them taken over."""

from __future__ import annotations

import asyncio
import logging

from alcove import limits
from alcove.errors import ConflictError, DatabaseError, SandboxError, StorageError
from alcove.runs import holder, queries
from alcove.runs.model import Run
from alcove.runs.queries import Lost
from alcove.runs.reconciler import Reconciled
from alcove.runs.starting import Starting

_log = logging.getLogger("alcove.runs")


class Recovering(Starting):
    """Brings to an end what other processes could not.

    Attributes:
        adopts: Whether it looks after queues that nobody looks after; a command that is over soon leaves them.
    """

    adopts: bool = True

    async def lost(self) -> list[Run]:
        """Return the runs whose holder is gone, or whose host was not heard of: what a sweep would mark lost."""
        found: list[Run] = await self._database.read(queries.stale)
        after = ""
        while runs := await self._database.read(queries.all_live, after, limits.PAGE):
            after = runs[-1].id
            found += [run for run in runs if await self._is_gone(run)]
        return found

    async def recover(self) -> int:
        """Mark runs lost whose holder is gone, end what they left, and return how many. Done when Alcove opens.

        Those of host frameworks have no holder: see `sweep_stale`.
        """
        found, after = 0, ""
        while runs := await self._database.read(queries.all_live, after, limits.PAGE):
            after = runs[-1].id
            for run in runs:
                try:
                    found += await self._end_if_gone(run)
                except (SandboxError, StorageError, ConflictError):
                    _log.exception("a lost run could not be ended", extra={"run_id": run.id})
        try:
            await self._workshop.reconciler.remove_folders()
        except (StorageError, ConflictError):
            _log.exception("the folder of a run could not be removed")
        return found

    async def reconcile(self) -> Reconciled:
        """End and remove what servers that died have left of runs, by whatever it can be known."""
        return await self._workshop.reconciler.sweep()

    async def evict(self, session_ids: list[str]) -> None:
        """End what is left of programs of sessions in which nothing can start any more: see `Reconciler.evict`."""
        await self._workshop.reconciler.evict(session_ids)

    async def adopt(self, *, all_quiet: bool = True) -> None:
        """Look after queued runs that nobody looks after. Done again and again while it is open; by a server at once.

        Args:
            all_quiet: Also where nothing happens though the session is free, and not only where the process that
                queued them is known to be gone.
        """
        await self._queue.adopt(all_quiet=all_quiet)

    async def watch(self) -> None:
        """Recover again and again, so that the end of another process is noticed. Goes on until it is cancelled."""
        while True:
            await asyncio.sleep(limits.LEASE_S)
            try:
                if self.adopts:
                    await self.adopt()
                await self.sweep_stale()
                await self.sweep_expired()
                await self.recover()
            except DatabaseError:
                _log.exception("lost runs could not be looked for")

    async def _end_if_gone(self, run: Run) -> bool:
        """Mark a run lost when its lease has run out, or the process that looked after it on this machine is gone."""
        if not await self._is_gone(run):
            return False
        await self._workshop.reconciler.clear(Lost(run.id, run.tree))
        return await self._database.write(queries.lose, run.id, run.holder)

    async def _is_gone(self, run: Run) -> bool:
        return holder.gone(run.holder) or await self._database.read(queries.lapsed, run.session_id, run.id)
