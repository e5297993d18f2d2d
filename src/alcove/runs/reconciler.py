"""Ends and removes what servers that died have left of runs: processes, folders, and what holds a leased uid."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import final

import msgspec

from alcove import limits
from alcove.database.op import Database
from alcove.errors import AlcoveError, ConflictError, LaunchError
from alcove.runs import holder, reconciling
from alcove.runs.place import RunFolder, folders, name_of
from alcove.runs.queries import Lost
from alcove.sandbox import leftovers
from alcove.sandbox.leftovers import Leftover
from alcove.workspaces.service import Workspaces

_log = logging.getLogger("alcove.runs")
Sure = Callable[[list[Leftover]], Awaitable[list[Leftover]]]
"""Of processes that were found, returns those that may be ended: what they belong to is looked up after them."""


class Reconciled(msgspec.Struct, frozen=True):
    """What was found of servers that died, and ended or removed.

    Attributes:
        processes: How many processes.
        folders: How many folders of runs.
        problems: What could not be done, a sentence each; it is tried again.
    """

    processes: int = 0
    folders: int = 0
    problems: tuple[str, ...] = ()


@final
class Reconciler:
    """Brings to an end what its server could not: after SIGKILL at any step, nothing of a run goes on.

    A process is ended only by pid and start time, and only when what it belongs to was found to have ended *after* it
    was seen: then a run that began meanwhile cannot be meant.

    Args:
        database: Tells which runs have ended, and to whom uids are leased.
        workspaces: Leases them; None for a hub without.
        home: `ALCOVE_HOME`.
    """

    def __init__(self, database: Database, *, workspaces: Workspaces | None, home: Path) -> None:
        self._database = database
        self._leases = workspaces is not None and workspaces.leases
        self._home = home

    async def clear(self, lost: Lost) -> None:
        """End what a lost run has left: its processes, then its folder.

        Raises:
            LaunchError: A process of it cannot be ended; nothing may start in its session.
        """
        gone = await asyncio.to_thread(holder.end, lost.tree)
        if not gone or await self._end(frozenset(), self._of_run(lost.run_id)):
            raise LaunchError(
                f"processes of run {lost.run_id} are still there",
                remedy="end them",
                step="takeover",
                run_id=lost.run_id,
            )
        await asyncio.to_thread(RunFolder(self._home, lost.run_id).remove)

    async def evict(self, session_ids: list[str]) -> None:
        """End whatever is left of programs of sessions in which nothing can start any more.

        Raises:
            ConflictError: A process is still there; neither its files nor its uid may be given away.
        """
        ran = await self._database.read(reconciling.ran, session_ids)
        if not ran:
            return
        uids = frozenset(await self._database.read(reconciling.uids_of, ran)) if self._leases else frozenset[int]()

        async def of_sessions(found: list[Leftover]) -> list[Leftover]:
            runs = await self._database.read(reconciling.runs_of, _names(found), ran)
            return [one for one in found if one.uid or one.run_id in runs]

        left = await self._end(uids, of_sessions, alone=True)
        if left:
            raise ConflictError(
                f"processes of a session that is to be removed are still there: {_pids(left)}",
                remedy="end them, and remove it again",
            )

    async def sweep(self) -> Reconciled:
        """End the processes and remove the folders of runs that have ended, whoever left them."""
        uids = frozenset(await self._database.read(reconciling.uids)) if self._leases else frozenset[int]()
        seen: set[tuple[int, int]] = set()

        async def of_ended(found: list[Leftover]) -> list[Leftover]:
            ended = await self._database.read(
                reconciling.ended, _names(found), sorted({one.uid for one in found} - {0})
            )
            going = [one for one in found if one.run_id in ended.runs or one.uid in ended.uids]
            seen.update((one.pid, one.started) for one in going)
            return going

        left = await self._end(uids, of_ended)
        problems = [f"processes of runs that have ended are still there: {_pids(left)}"] if left else []
        removed = 0
        try:
            removed = await self.remove_folders()
        except AlcoveError as error:
            problems.append(error.message)
        if seen or removed:
            _log.warning("left by a server that died", extra={"processes": len(seen), "folders": removed})
        return Reconciled(processes=len(seen), folders=removed, problems=tuple(problems))

    async def remove_folders(self) -> int:
        """Remove the folders of runs that no process holds and that have ended; return how many.

        Raises:
            ConflictError, StorageError: One cannot be removed; the others are.
        """
        found = await asyncio.to_thread(folders, self._home)
        if not found:
            return 0
        live = {name_of(run_id) for run_id in await self._database.read(reconciling.live)}
        removed, failure = 0, None
        for folder in found:
            # One of a run that has not ended is removed with it: its processes go first.
            if folder.name in live or not await asyncio.to_thread(folder.take):
                continue
            try:
                await asyncio.to_thread(folder.remove)
                removed += 1
            except AlcoveError as error:
                failure = error
            finally:
                folder.let_go()
        if failure:
            raise failure
        return removed

    def _of_run(self, run_id: str) -> Sure:
        async def of_run(found: list[Leftover]) -> list[Leftover]:
            return [one for one in found if one.run_id == run_id]

        return of_run

    async def _end(self, uids: frozenset[int], sure: Sure, *, alone: bool = False) -> list[Leftover]:
        """Kill until nobody is left; return who is left all the same.

        Args:
            uids: Leased uids to look for.
            sure: Picks those that may be ended.
            alone: Whether nobody else can have a uid of these: then all of it is killed in one stroke.
        """
        deadline = time.monotonic() + limits.RECONCILE_S
        while True:
            found = await sure(await asyncio.to_thread(leftovers.look, uids))
            if not found or time.monotonic() > deadline:
                return found
            for uid in {one.uid for one in found if one.uid} if alone else ():
                await asyncio.to_thread(leftovers.end_all_of, uid)
            await asyncio.to_thread(leftovers.end, found)


def _names(found: Iterable[Leftover]) -> list[str]:
    return sorted({one.run_id for one in found if one.run_id})


def _pids(left: list[Leftover]) -> str:
    return ", ".join(str(one.pid) for one in left[:20])
