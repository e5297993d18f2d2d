"""Sessions that leave for the trash: who, and how they go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import final

from alcove import ids, limits
from alcove.clock import Micros
from alcove.database.op import Database
from alcove.errors import ConflictError
from alcove.janitor import queries, rules
from alcove.janitor.model import Candidate, Choice, Cleaned, Group, What
from alcove.lifecycle.model import By
from alcove.lifecycle.trash import Trash, new_claim
from alcove.sessions.heads import NEVER
from alcove.workspaces.service import Workspaces


@final
class Leaving:
    """Moves to the trash what a choice concerns. A preview and a sweep go through the same plan.

    Args:
        database: Where the rows are.
        trash: Moves the folders.
        workspaces: Says whether a folder is empty; None for a hub without.
        choice: Which sessions.
        clocks: How the clocks have jumped.
    """

    def __init__(
        self, database: Database, trash: Trash, workspaces: Workspaces | None, choice: Choice, clocks: rules.Periods
    ) -> None:
        self._database = database
        self._trash = trash
        self._workspaces = workspaces
        self._choice = choice
        self._clocks = clocks

    async def run(self, limit: int | None, by: By, *, dry_run: bool) -> Cleaned:
        """Move what is to leave, until about `limit` sessions went; with `dry_run`, tell what would."""
        shown: list[Group] = []
        problems: list[str] = []
        count = 0
        more = False
        async for now, going, staying in self._planned():
            for batch in _batches(going):
                more = limit is not None and count >= limit
                if more:
                    break
                if dry_run:
                    went = [("", group) for group in batch]
                else:
                    went = await self._take(batch, by, problems)
                    await asyncio.sleep(limits.SWEEP_PAUSE_S)
                count += sum(len(group) for _, group in went)
                shown += [_shown(*one) for one in went[: limits.CLEANED - len(shown)]]
            if more:
                break
            if staying and not dry_run:
                await self._look_later(staying, now)
        return Cleaned(
            what=self._choice.what,
            dry_run=dry_run,
            sessions=count,
            groups=tuple(shown),
            more=more,
            problems=tuple(problems),
        )

    async def _planned(self) -> AsyncGenerator[tuple[Micros, list[list[Candidate]], list[Candidate]]]:
        """Yield, page by page, `now`, what goes together, and what was looked at and stays."""
        after: Candidate | None = None
        seen: set[str] = set()
        while True:
            now, page = await self._database.read(queries.candidates, self._choice, after, limits.SWEEP_PAGE)
            if not page:
                return
            after = page[-1]
            going: list[list[Candidate]] = []
            staying: list[Candidate] = []
            for one in page:
                if self._alone(one):
                    if rules.goes(one, self._choice, now, self._clocks):
                        going.append([one])
                    else:
                        staying.append(one)
                elif one.root_id not in seen:
                    seen.add(one.root_id)
                    await self._plan_tree(one.root_id, now, going, staying)
            if self._choice.what is What.EMPTY and self._workspaces:
                vacant = await self._workspaces.vacant([one.id for [one] in going])
                going = [group for group in going if group[0].id in vacant]
            yield now, going, staying

    def _alone(self, one: Candidate) -> bool:
        """Return whether nobody else has a say in whether it goes. What is empty has no children."""
        return self._choice.what is What.EMPTY or not (one.parent_id or one.child_count)

    async def _plan_tree(
        self, root_id: str, now: Micros, going: list[list[Candidate]], staying: list[Candidate]
    ) -> None:
        tree = await self._database.read(queries.tree, root_id)
        found = rules.groups(tree, lambda one: rules.goes(one, self._choice, now, self._clocks), limits.TREE_SESSIONS)
        gone = {one.id for group in found for one in group}
        going += found
        staying += [one for one in tree if one.id not in gone and 0 < one.due_at <= now]

    async def _take(
        self, batch: list[list[Candidate]], by: By, problems: list[str]
    ) -> list[tuple[str, list[Candidate]]]:
        claim = new_claim()
        going = {ids.new_id(): group for group in batch}
        try:
            witness = self._trash.witness(by)
            went = await self._database.write(queries.take, list(going.items()), by, claim, witness)
        except ConflictError:
            return []  # somebody came back to one of them, so that all of them stay
        moving = {one.id: trash_id for trash_id in went for one in going[trash_id]}
        problems += [error.message for error in (await self._trash.settle(moving, claim)).values()]
        return [(trash_id, going[trash_id]) for trash_id in went]

    async def _look_later(self, staying: list[Candidate], now: Micros) -> None:
        """Note when to look again: at those that others keep here, after a while, and never at what never expires."""
        if self._choice.what is not What.EXPIRED:
            return
        later: list[tuple[str, Micros, Micros]] = []
        for one in staying:
            due = rules.due(one, self._choice, self._clocks)
            again = 0 if due == NEVER else due if due > now else now + limits.SWEEP_AGAIN_S * 1_000_000
            later.append((one.id, one.due_at, again))
        await self._database.write(queries.postpone, later)


def _batches(going: Iterable[list[Candidate]]) -> Iterator[list[list[Candidate]]]:
    """Yield what goes in one transaction each: single sessions together, a tree alone."""
    batch: list[list[Candidate]] = []
    for group in going:
        if len(group) > 1:
            yield [group]
            continue
        batch.append(group)
        if len(batch) == limits.SWEEP_SESSIONS:
            yield batch
            batch = []
    if batch:
        yield batch


def _shown(trash_id: str, group: list[Candidate]) -> Group:
    top = group[0]
    return Group(top.id, len(group), top.tenant, top.last_activity, trash_id or None)
