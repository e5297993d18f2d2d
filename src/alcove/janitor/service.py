"""The janitor: what goes to the trash by itself, what leaves it for good, and what is only reported."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from alcove import ids, limits
from alcove.audit.model import Act
from alcove.audit.service import Audit
from alcove.clock import SECOND, Micros
from alcove.database.op import Database, Steps
from alcove.durations import ttl_us
from alcove.errors import AlcoveError, InvalidError
from alcove.janitor import queries, rules
from alcove.janitor.emptying import Emptying
from alcove.janitor.leaving import Leaving
from alcove.janitor.model import Choice, Cleaned, Disk, Findings, Span, Swept, What
from alcove.janitor.strays import Strays
from alcove.lifecycle.model import By, Why
from alcove.lifecycle.trash import Trash
from alcove.runs import holder
from alcove.runs.service import Runs
from alcove.state.service import State
from alcove.values import Json
from alcove.workspaces.service import Workspaces

_log = logging.getLogger("alcove.janitor")
_OWN = "janitor"
_WHY = {What.EXPIRED: Why.EXPIRED, What.OLD: Why.OLD, What.EMPTY: Why.EMPTY}
_DAY: Micros = 86400 * SECOND


class Janitor:
    """Cleans up: by itself in a server (`watch`), and when it is asked.

    Nothing that is held, pinned or was used within its time goes, nor what has such a descendant; what goes by its age
    goes to the trash first. Several processes may clean up at once: each session goes once. What is killed half-way is
    gone on with by the next sweep.

    Args:
        database: Where the rows are.
        trash: Moves and removes.
        runs: Finds those that are lost.
        workspaces: The folders; None for a hub without.
        grace_s: How long the trash keeps what is in it; None for ever.
        places: What lies where, for the report on disks.
        steady: Seconds on a clock that never jumps.
        audit: Where it is recorded that somebody asked for a clean-up; old rows of it are removed by sweeps.
    """

    def __init__(
        self,
        database: Database,
        *,
        trash: Trash,
        runs: Runs,
        workspaces: Workspaces | None,
        grace_s: float | None,
        places: Mapping[str, Path],
        steady: Callable[[], float],
        audit: Audit | None = None,
    ) -> None:
        self._audit = audit
        self._database = database
        self._trash = trash
        self._runs = runs
        self._workspaces = workspaces
        self._grace_s = grace_s
        self._places = places
        self._steady = steady
        self._state = State(database)
        self._strays = Strays(database, workspaces)

    async def sweep(self, *, dry_run: bool = False, by: str = _OWN) -> Swept:
        """Do all that is to be done by itself; with `dry_run`, tell what that would be.

        Moves what has expired to the trash, removes what was in the trash for longer than its grace, forgets the output
        of runs after `limits.JOURNAL_DAYS`, removes runs that belonged to no session after `limits.LEDGER_DAYS` and
        values of state that have expired or whose run has ended, ends what lost runs have left, and finishes what was
        interrupted.

        Args:
            dry_run: Only look.
            by: Who asks for it; the audit keeps it.
        """
        await self._asked("sweep", ids.name(by, field="by"), dry_run=dry_run)
        expired = await self.clean(What.EXPIRED, dry_run=dry_run, by=_OWN)
        trash = Cleaned(what=What.TRASH, dry_run=dry_run)
        if self._grace_s is not None:
            trash = await self.clean(What.TRASH, dry_run=dry_run, by=_OWN)
        journals = await self._forget(limits.JOURNAL_DAYS, queries.old_journals, queries.forget_journals, dry_run)
        runs = await self._forget(limits.LEDGER_DAYS, queries.old_runs, queries.forget_runs, dry_run)
        values = await self._state.sweep(dry_run=dry_run)
        if self._audit and not dry_run:
            await self._audit.sweep()
        # Last, so that nothing is due that was not when this began: a preview could not know.
        interrupted: list[AlcoveError] = []
        left: tuple[str, ...] = ()
        if dry_run:
            lost = len(await self._runs.lost())
        else:
            lost = await self._runs.recover() + await self._runs.sweep_stale()
            interrupted = await self._trash.resume()
            left = (await self._runs.reconcile()).problems
        disks = await self.disks()
        problems = [*(error.message for error in interrupted), *left]
        problems += [*expired.problems, *trash.problems]
        problems += [f"the disk of the {one.holds} is low: {one.free_bytes} bytes are free" for one in disks if one.low]
        return Swept(
            dry_run=dry_run,
            expired=expired,
            trash=trash,
            lost_runs=lost,
            journals=journals,
            values=values,
            runs=runs,
            disks=disks,
            problems=tuple(problems),
        )

    async def clean(
        self,
        what: What | str,
        *,
        older_s: float | None = None,
        tenant: str | None = None,
        limit: int | None = None,
        dry_run: bool = False,
        by: str = "library",
    ) -> Cleaned:
        """Clean up one kind of things; with `dry_run`, tell what would go.

        Args:
            what: One of `What`.
            older_s: For `old`: idle for longer than this many seconds. For `empty` and `strays`: older than this, an
                hour by default. For `trash`: in it for longer than this, the grace of the installation by default.
            tenant: Only what is this one's; None for all.
            limit: Stop after about so many sessions; `more` says whether there are more.
            dry_run: Only look.
            by: Who asks; the log keeps it.

        Raises:
            InvalidError: There is no such kind, or `older_s` is missing or out of range.
        """
        kind = _what(what)
        who = ids.name(by, field="by")
        older = self._older(kind, older_s)
        await self._asked(kind, who, dry_run=dry_run, older_s=older_s, of=tenant)
        clocks = await self._clocks()
        match kind:
            case What.TRASH:
                emptying = Emptying(self._database, self._trash, clocks)
                return await emptying.run(
                    older, tenant, limit, By(Why.GRACE_OVER if older_s is None else Why.ASKED, who), dry_run=dry_run
                )
            case What.STRAYS:
                return await self._strays.clean(older, dry_run=dry_run)
            case _:
                choice = Choice(what=kind, older_us=older, tenant=tenant)
                leaving = Leaving(self._database, self._trash, self._workspaces, choice, clocks)
                return await leaving.run(limit, By(_WHY[kind], who), dry_run=dry_run)

    async def findings(self) -> Findings:
        """Look for folders without a session and sessions without a folder; nothing is changed."""
        return await self._strays.findings()

    async def disks(self) -> tuple[Disk, ...]:
        """Tell how full the disks are that hold something of the installation."""
        return await asyncio.to_thread(_disks, self._places)

    async def watch(self) -> None:
        """Sweep again and again. Goes on until it is cancelled."""
        while True:
            await asyncio.sleep(limits.SWEEP_S)
            try:
                swept = await self.sweep()
            except AlcoveError:
                _log.exception("the sweep failed")
                continue
            for problem in swept.problems:
                _log.warning(problem)
            if swept.expired.sessions or swept.trash.sessions or swept.journals or swept.values or swept.runs:
                counts = {"expired": swept.expired.sessions, "purged": swept.trash.sessions}
                _log.info(
                    "swept", extra={**counts, "journals": swept.journals, "values": swept.values, "runs": swept.runs}
                )

    async def _asked(self, what: str, who: str, *, dry_run: bool, **words: Json) -> None:
        """Audit that somebody asked for a clean-up, before it begins; what goes has rows of its own."""
        if self._audit and not dry_run and who != _OWN:
            await self._audit.done(Act(act="cleanup.run", who=who, words={"what": what, **words}))

    def _older(self, kind: What, older_s: float | None) -> Micros:
        if kind is What.EXPIRED:
            if older_s is not None:
                raise InvalidError("what has expired is not chosen by age", field="older_s", remedy="leave it out")
            return 0
        if older_s is None:
            if kind is What.OLD or (kind is What.TRASH and self._grace_s is None):
                raise InvalidError(
                    "how old it has to be is not said", field="older_s", remedy="give seconds; 0 for everything"
                )
            older_s = self._grace_s if kind is What.TRASH else limits.UNUSED_S
        return 0 if older_s == 0 else ttl_us(older_s, field="older_s")

    async def _clocks(self) -> rules.Periods:
        """Look whether the clock here has jumped, and return how those of all machines have."""
        place = holder.here().partition(":")[0]
        jump = await self._database.write(queries.look, place, round(self._steady() * SECOND))
        if jump:
            _log.warning("the clock has jumped; no idle time is counted from that", extra={"seconds": jump / SECOND})
        found = await self._database.read(queries.jumps)
        return [rules.periods(jumps) for jumps in found.values()]

    async def _forget(
        self,
        days: int,
        counting: Callable[[Micros, Span], Steps[int]],
        forgetting: Callable[[Micros, Span, int], Steps[tuple[int, bool]]],
        dry_run: bool,
    ) -> int:
        """Forget what ended so many days ago, some at a time; return how much."""
        before = await self._database.read(queries.past, days * _DAY)
        count = 0
        for span in rules.ripe(before, await self._clocks()):
            more = not dry_run
            if dry_run:
                count += await self._database.read(counting, span)
            while more:
                done, more = await self._database.write(forgetting, span, limits.PURGE_ROWS)
                count += done
        return count


def _what(what: str) -> What:
    try:
        return What(what)
    except ValueError:
        raise InvalidError(
            f"there is nothing {what!r} to clean up", field="what", remedy=f"use one of {', '.join(What)}"
        ) from None


def _disks(places: Mapping[str, Path]) -> tuple[Disk, ...]:
    found: dict[int, Disk] = {}
    for holds, path in places.items():
        try:
            device, disk = path.stat().st_dev, os.statvfs(path)
        except OSError:
            continue  # what is not there fills no disk
        size, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
        low = free < limits.DISK_LOW_BYTES or free < limits.DISK_LOW * size
        found.setdefault(device, Disk(holds=holds, size_bytes=size, free_bytes=free, low=low))
    return tuple(found.values())
