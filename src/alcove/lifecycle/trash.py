"""The trash: what goes there, comes back, or goes for good, with rows, processes, folders and homes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from alcove import ids, limits
from alcove.audit.model import Witness
from alcove.audit.service import Audit
from alcove.database.op import Database
from alcove.errors import AlcoveError, StorageError
from alcove.lifecycle import queries, trashing
from alcove.lifecycle.model import By, Gone, Receipt, Restored, Step, Trashing
from alcove.runs import holder
from alcove.runs.service import Runs
from alcove.workspaces.service import Workspaces

_log = logging.getLogger("alcove.sessions")
_EVERY = 2**31  # of the members of a trashing: two words a row


class Trash:
    """Moves, restores and purges whole trashings. What a crash leaves half done, `resume` finishes.

    Args:
        database: Where the rows are.
        runs: What is ended before a folder goes.
        workspaces: The folders; None for a hub without.
        forget: Removes what is kept elsewhere of a session that is purged; may be called again.
        audit: Where each of these is recorded, in the transaction that does it.
    """

    def __init__(
        self,
        database: Database,
        runs: Runs,
        workspaces: Workspaces | None,
        forget: Callable[[str], Awaitable[None]] | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._database = database
        self._audit = audit
        self._runs = runs
        self._workspaces = workspaces
        self._forget = forget

    async def put(self, session_id: str, by: By, version: int | None = None) -> Receipt | None:
        """Move a session and its descendants to the trash; None when it was not outside it.

        From the first step on nothing new starts in them; what runs is cancelled, and only then do the folders go.
        """
        trash_id, claim = ids.new_id(), new_claim()
        async with self._holding(trash_id, claim):
            went = await self._put_rows(session_id, trash_id, by, claim, version)
            if not went:
                return None
            await self._move(trash_id, claim)
        _log.info("session trashed", extra={"session_id": session_id, "trash_id": trash_id, "sessions": len(went)})
        return Receipt(trash_id=trash_id, sessions=tuple(went), purged=False)

    async def restore(self, session_id: str, by: By, *, without_keys: bool = False, as_root: bool = False) -> Restored:
        """Bring back the trashing that a session is in, whole: see `Lifecycle.restore`."""
        claim = new_claim()
        await self._go_on(session_id)
        begun = await self._database.write(
            trashing.begin_restore, session_id, claim, by, without_keys=without_keys, as_root=as_root
        )
        async with self._holding(begun.trashing.id, claim):
            back = await self._bring_back(begun.trashing, claim, by)
        _log.info("session restored", extra={"session_id": session_id, "sessions": len(back)})
        return Restored(
            trash_id=begun.trashing.id,
            session_id=begun.trashing.session_id,
            sessions=tuple(back),
            keyless=tuple(begun.keyless),
        )

    async def purge(self, session_id: str, by: By, version: int | None = None) -> Receipt:
        """Remove a session and what is below it for good, from the trash or from outside it: see `Lifecycle.delete`."""
        trash_id, claim = ids.new_id(), new_claim()
        await self._go_on(session_id)
        async with self._holding(trash_id, claim):
            await self._put_rows(session_id, trash_id, by, claim, version)
            begun = await self._database.write(trashing.begin_purge, session_id, claim, by)
        async with self._holding(begun.id, claim):
            gone, went = await self._purge(begun, claim, by)
        _log.info("session purged", extra={"trash_id": begun.id, "sessions": len(went), "files": gone.files})
        removed = {name: getattr(gone, name) for name in Gone.__struct_fields__}
        return Receipt(trash_id=begun.id, sessions=tuple(reversed(went)), purged=True, **removed)

    async def settle(self, going: dict[str, str], claim: str) -> dict[str, AlcoveError]:
        """Let the folders of many trashings follow at once, in whose sessions nothing runs: the janitor's way.

        Args:
            going: Session ids, each with its trashing.
            claim: Of all these trashings.

        Returns:
            What could not be moved; those trashings are let go, and are tried again by `resume`.
        """
        failed = await self._workspaces.trash(going.items()) if self._workspaces else {}
        unfinished = {going[session_id] for session_id in failed}
        await self._database.write(trashing.kept, sorted({*going.values()} - unfinished), claim)
        for trash_id in unfinished:
            await self._database.write(trashing.let_go, trash_id, claim)
        return failed

    async def expire(self, trash_id: str, by: By) -> Gone | None:
        """Purge a whole trashing; None when it is no longer there, or another call works on it."""
        claim = new_claim()
        begun = await self._database.write(trashing.begin_expiry, trash_id, claim, by)
        if not begun:
            return None
        async with self._holding(trash_id, claim):
            gone, went = await self._purge(begun, claim, by)
        _log.info("session purged", extra={"trash_id": trash_id, "sessions": len(went), "files": gone.files})
        return gone

    async def resume(self) -> list[AlcoveError]:
        """Finish what calls that are dead have left half done, here or in another process; return what went wrong."""
        problems: list[AlcoveError] = []
        after = ""
        while found := await self._database.read(trashing.unfinished, after, limits.PAGE):
            after = found[-1][0].id
            for one, lapsed in found:
                if not _dead(one, lapsed):
                    continue
                claim = new_claim()
                taken = await self._database.write(trashing.take_over, one, claim)
                if not taken:
                    continue
                try:
                    await self.finish(taken, claim)
                except AlcoveError as error:
                    _log.warning("a trashing cannot be finished", exc_info=True, extra={"trash_id": one.id})
                    problems.append(error)
        return problems

    async def finish(self, taken: Trashing, claim: str) -> None:
        """Go on with a trashing that this call has claimed, from the step at which it is."""
        by = By(taken.step_why, taken.step_who)
        async with self._holding(taken.id, claim):
            match taken.step:
                case Step.MOVING:
                    await self._put_rows(taken.session_id, taken.id, by, claim)
                    await self._move(taken.id, claim)
                case Step.RESTORING:
                    await self._bring_back(taken, claim, by)
                case _:
                    await self._purge(taken, claim, by)

    async def _put_rows(
        self, session_id: str, trash_id: str, by: By, claim: str, version: int | None = None
    ) -> list[str]:
        went: list[str] = []
        limit = limits.TREE_SESSIONS
        wit = self.witness(by)
        while step := await self._database.write(trashing.trash, session_id, trash_id, limit, by, claim, version, wit):
            went += step
        return went

    async def _move(self, trash_id: str, claim: str) -> None:
        going = await self._database.read(trashing.members, trash_id, _EVERY)
        for gone in going:
            await self._runs.cancel_session(gone)
        await self._folders(going, trash_id, back=False)
        await self._database.write(trashing.kept, [trash_id], claim)

    async def _folders(self, sessions: Iterable[str], trash_id: str, *, back: bool) -> None:
        if self._workspaces:
            move = self._workspaces.untrash if back else self._workspaces.trash
            for error in (await move((one, trash_id) for one in sessions)).values():
                raise error

    async def _go_on(self, session_id: str) -> None:
        """Free the trashing of a session from a call that is dead: it is taken up where that one stopped."""
        found = await self._database.read(trashing.of_session, session_id)
        if not found or found[0].step == Step.KEPT or not _dead(*found):
            return
        claim = new_claim()
        taken = await self._database.write(trashing.take_over, found[0], claim)
        if taken and taken.step == Step.MOVING:
            await self.finish(taken, claim)
        elif taken:
            await self._database.write(trashing.let_go, taken.id, claim)

    async def _bring_back(self, coming: Trashing, claim: str, by: By) -> list[str]:
        """Folders first: whoever finds the session finds its files. What cannot come back stays, whole."""
        sessions = await self._database.read(trashing.members, coming.id, _EVERY)
        back: list[str] = []
        try:
            await self._folders(sessions, coming.id, back=True)
            limit, witness = limits.TREE_SESSIONS, self.witness(by)
            while step := await self._database.write(trashing.bring_back, coming, claim, limit, by, witness):
                back += step
        except AlcoveError:
            if not back:
                await self._stay(coming.id, claim, sessions)
            raise
        return back

    async def _stay(self, trash_id: str, claim: str, sessions: list[str]) -> None:
        """Put back into the trash what could not leave it whole. What a bad disk keeps outside follows later."""
        await self._database.write(trashing.stay, trash_id, claim)
        if self._workspaces:
            failed = await self._workspaces.trash((one, trash_id) for one in sessions)
            if any(isinstance(error, StorageError) for error in failed.values()):
                return
        await self._database.write(trashing.kept, [trash_id], claim)

    async def _purge(self, going: Trashing, claim: str, by: By) -> tuple[Gone, list[str]]:
        """Remove what is marked, the lowest first: whoever has to go on finds the rest below what is still there."""
        total, went = Gone(), list[str]()
        if self._audit:
            await self._audit.flush(everything=True)  # so that the words of denials in it go with it
        while True:
            while await self._database.write(trashing.mark_below, going.id, limits.TREE_SESSIONS):
                pass
            found = await self._database.read(trashing.members, going.id, limits.TREE_SESSIONS, marked=True)
            if not found:
                break
            for one in found:
                await self._runs.cancel_session(one)
            await self._runs.evict(found)  # nobody else may get their uids while a process has one
            for one in found:
                total += await self._purge_one(one, going.id, by)
            went += found
        await self._database.write(trashing.end_purge, going.id, claim)
        return total, went

    async def _purge_one(self, session_id: str, trash_id: str, by: By) -> Gone:
        gone, witness = Gone(), self.witness(by)  # before a file goes: what cannot be audited stays
        if self._workspaces:
            removed = await self._workspaces.purge(session_id, trash_id)
            gone = Gone(files=removed.files, folders=removed.folders, size_bytes=removed.size_bytes)
        if self._forget:
            await self._forget(session_id)
        more = True
        while more:
            step, more = await self._database.write(queries.purge, session_id, limits.PURGE_ROWS, by, gone, witness)
            gone += step
        return gone

    def witness(self, by: By) -> Witness | None:
        """Return what writes the row of the audit, None for a trash that was built without one."""
        return self._audit.witness(by.who) if self._audit else None

    @asynccontextmanager
    async def _holding(self, trash_id: str, claim: str) -> AsyncGenerator[None]:
        """Keep the claim while the work lasts; give it back when that ends early, so that the call may be repeated."""
        keeping = asyncio.create_task(self._keep(trash_id, claim))
        try:
            yield
        except BaseException:
            try:
                await asyncio.shield(self._database.write(trashing.let_go, trash_id, claim))
            except AlcoveError:
                _log.warning("a claim was not given back", exc_info=True, extra={"trash_id": trash_id})
            raise
        finally:
            keeping.cancel()

    async def _keep(self, trash_id: str, claim: str) -> None:
        while True:
            await asyncio.sleep(limits.CLAIM_S / 5)
            try:
                await self._database.write(trashing.renew, trash_id, claim)
            except AlcoveError:
                _log.warning("a claim was not renewed", exc_info=True, extra={"trash_id": trash_id})


def new_claim() -> str:
    """Return a name for one call of this process, which tells whether the process is still there."""
    return f"{holder.here()}/{ids.new_id()}"


def _dead(found: Trashing, lapsed: bool) -> bool:
    """Return whether the call that works on a trashing has ended without having finished."""
    return lapsed or not found.claim or holder.gone(found.claim.partition("/")[0])
