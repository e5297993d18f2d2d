"""The audit, as callers use it: denials told, acts witnessed, rows listed, verified, exported and erased."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import final

from alcove import ids, limits
from alcove.audit import queries, rules
from alcove.audit.denials import Denials, Denied
from alcove.audit.keeping import Checkpoint, Kept, KeyFile
from alcove.audit.model import (
    Act,
    AuditFilters,
    Chain,
    Erased,
    Place,
    Recorded,
    RecordedPage,
    Verified,
    Witness,
)
from alcove.audit.seals import Seals
from alcove.audit.verifying import Verifying
from alcove.clock import SECOND, Clock, Micros, SystemClock
from alcove.database.op import Database
from alcove.errors import AlcoveError, InvalidError
from alcove.pages import page_limit

_log = logging.getLogger("alcove.audit")


@final
class Audit:
    """What was denied, and what was done with authority, keys and sessions.

    An act is written in its own transaction (`queries.record` with a `witness`): what cannot be audited does not
    happen. Denials are counted and written in groups (`denied`): what was denied stays denied, whether that can be
    written now or only later. A crash takes at most the denials of the last `limits.AUDIT_FLUSH_S`.

    Args:
        database: Where the rows are.
        installation: Whose.
        files: Where this node keeps its key and its checkpoint; by default in memory.
        clock: Says when denials were.
    """

    def __init__(
        self,
        database: Database,
        installation: str = "",
        *,
        files: KeyFile | None = None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._database = database
        self._installation = installation
        self._kept = Kept(files or KeyFile(None))
        self._seals: Seals | None = None
        self._verifying = Verifying(database, installation)
        self._denials = Denials(clock.now, clock.monotonic)
        self._monotonic = clock.monotonic
        self._flushing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._kept_at = float("-inf")
        self._failing = False

    # -- telling ---------------------------------------------------------------------------------------------------

    def witness(self, who: str) -> Witness:
        """Return what `queries.record` needs to write the row of an act.

        Raises:
            StorageError, ConfigurationError: The key cannot be read or made, so nothing may happen that has to be
                audited.
        """
        return Witness(self._own(), who)

    def denied(
        self,
        act: str,
        code: str,
        *,
        subject: str = "",
        tenant: str = "",
        user_id: str = "",
        session_id: str = "",
        who: str = "",
        **words: str,
    ) -> None:
        """Tell that something was denied. A plain call for any thread; it waits for nothing and never raises.

        Args:
            act: What was tried, as `noun.verb`: `check.denied`, `request.denied`.
            code: Why not.
            subject: What it was about: `run:…`, `session:…`, `key:…`.
            tenant: Whose.
            user_id: Which user's.
            session_id: In which session.
            who: Who tried: the name of a principal, as far as that is known.
            words: What else a person may want to know.
        """
        told = Denied(act, code, subject, tenant, user_id, session_id, who, tuple(words.items()))
        if self._denials.add(told) and self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                return  # the event loop is closed: `close` has written what there was

    async def done(self, act: Act) -> None:
        """Write the row of an act that is no single transaction, before it begins.

        Raises:
            AlcoveError: It could not be written, so the act must not begin.
        """
        await self._append([act])

    # -- writing denials -------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Write denials as they come. Goes on until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        if self._denials.waiting:
            self._wake.set()
        while True:
            try:
                async with asyncio.timeout(self._denials.next_s()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await asyncio.sleep(limits.AUDIT_RETRY_S if self._failing else limits.AUDIT_FLUSH_S)
            try:
                await self.flush()
            except AlcoveError as error:
                self._wake.set()
                if not self._failing:
                    _log.error("denials cannot be written", extra={"error": str(error)})
                self._failing = True

    async def flush(self, *, everything: bool = False) -> None:
        """Write the denials that wait.

        Args:
            everything: Those too that are counted until their window is over.

        Raises:
            AlcoveError: They could not be written; they wait on, in memory.
        """
        async with self._flushing:
            while taken := self._denials.take(limits.AUDIT_BATCH, everything=everything):
                try:
                    await self._append([act for _, act in taken])
                except BaseException:
                    self._denials.put_back(taken)
                    raise
            self._failing = False

    async def close(self) -> None:
        """Write what waits."""
        self._loop = None
        try:
            await self.flush(everything=True)
        except AlcoveError:
            _log.exception("denials were lost", extra={"rows": self._denials.waiting})
            return
        with suppress(AlcoveError):  # an older checkpoint is true too
            await self.checkpoint()

    @property
    def failing(self) -> bool:
        """Whether denials cannot be written at present."""
        return self._failing

    @property
    def waiting(self) -> int:
        """How many rows of denials wait to be written."""
        return self._denials.waiting

    async def _append(self, acts: list[Act]) -> Chain:
        chain = await self._database.write(queries.append, self._own(), acts)
        self._keep(chain)
        return chain

    def _keep(self, chain: Chain) -> None:
        """Note beside the database how far its chain has come, so that an older copy of it is found out."""
        now = self._monotonic()
        if now - self._kept_at < limits.AUDIT_CHECKPOINT_S:
            return
        self._kept_at = now
        seal = self._own().seal("checkpoint", f"{self._installation} {chain.n} {chain.hash}")
        try:
            self._kept.keep(Checkpoint(self._installation, chain.node, chain.n, chain.hash, seal))
        except OSError:
            _log.warning("the checkpoint beside the database could not be written", exc_info=True)

    async def checkpoint(self) -> None:
        """Note beside the database how far this node's chain has come: done when it is opened, swept and closed.

        When the one that was noted before is not in the chain, the database is an older copy: that is audited.
        """
        before = self._kept.checkpoint()
        seals = self._found()
        if seals is None:
            return
        found = {one.node: one for one in await self._database.read(queries.chains)}
        for finding in await self._verifying.judge_kept(before, seals):
            _log.error(finding.message)
            words: dict[str, str | int] = {"n": finding.n, "message": finding.message}
            chain = await self._append([Act(act="audit.rewound", subject=f"node:{seals.node}", words=words)])
            found[seals.node] = chain
            self._kept_at = float("-inf")
        chain = found.get(seals.node)
        if chain and (before is None or (before.n, before.hash) != (chain.n, chain.hash)):
            self._kept_at = float("-inf")
            self._keep(chain)

    # -- reading ---------------------------------------------------------------------------------------------------

    async def list(
        self, filters: AuditFilters | None = None, *, limit: int = limits.PAGE_DEFAULT, cursor: str | None = None
    ) -> RecordedPage:
        """List rows, newest first.

        Args:
            filters: Which; all by default.
            limit: 1 to `limits.PAGE`.
            cursor: `next_cursor` of the page before.

        Raises:
            InvalidError: The cursor or the limit is not valid.
        """
        filters = filters or AuditFilters()
        seals = self._found()
        digests: dict[str, str] = {}
        for name in ("subject", "who"):
            asked = getattr(filters, name)
            if seals and asked:
                digests[name] = seals.digest(rules.clean(asked))
        return await self._database.read(queries.page, filters, digests, page_limit(limit), cursor)

    async def records(self, *, after_us: Micros = 0) -> AsyncIterator[Recorded]:
        """Yield every row, node by node in the order of its chain; of those since an instant, when that is given."""
        for chain in await self._database.read(queries.chains):
            async for _, rows in self._verifying.rows(chain):
                for row in rows:
                    if row.chained.created_us >= after_us:
                        yield row

    async def chains(self) -> list[Chain]:
        """Return where each node's chain begins and ends."""
        return await self._database.read(queries.chains)

    async def verify(self) -> Verified:
        """Look through the whole audit: whether a row was altered, lost, moved or forged; each finding names its row.

        What was written with another node's key is checked as far as that can be done without it.
        """
        return await self._verifying.run(self._found(), self._kept.checkpoint())

    # -- erasing ---------------------------------------------------------------------------------------------------

    async def erase(
        self,
        *,
        subject: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        before_us: Micros | None = None,
        by: str = "library",
    ) -> Erased:
        """Erase the words of rows: of a subject, a session, a user, or of all before an instant. One of these.

        The rows stay, with their codes, times and digests, and so does the chain. That it was done is audited.

        Raises:
            InvalidError: Not exactly one of these is given.
        """
        given = {"subject": subject, "session_id": session_id, "user_id": user_id, "before_us": before_us}
        chosen = [(name, value) for name, value in given.items() if value]
        if len(chosen) != 1:
            raise InvalidError(
                "what is to be erased is not said", field="subject", remedy="give one: subject, session, user or before"
            )
        await self.flush(everything=True)
        [(name, value)] = chosen
        seals = self._own()
        # By its digest: the name itself is what is to go.
        what = f"{name}:{value if isinstance(value, int) else seals.digest(value)}"
        await self.done(Act(act="audit.erased", subject=what, who=ids.name(by, field="by")))
        return Erased(
            await self._erase_before(seals, value) if isinstance(value, int) else await self._erase(name, value)
        )

    async def _erase(self, column: str, value: str | None) -> int:
        assert value is not None
        count = 0
        while found := await self._database.write(queries.erase, self._own(), column, value, limits.AUDIT_BATCH):
            count += found
        return count

    async def _erase_before(self, seals: Seals, before: Micros) -> int:
        count, place = 0, (0, Place("", 0))
        while True:
            found, after = await self._database.write(queries.erase_before, seals, place, before, limits.AUDIT_BATCH)
            count += found
            if after is None:
                return count
            place = after

    async def sweep(self, *, days: int = limits.AUDIT_DAYS, rows: int = limits.AUDIT_ROWS) -> int:
        """Remove what is older or more than is kept of this node's chain; return how many rows went.

        The janitor calls it. That it was done is audited.
        """
        seals = self._found()
        if seals is None:
            return 0
        gone = 0
        chain = next((one for one in await self._database.read(queries.chains) if one.node == seals.node), None)
        if chain and chain.n - chain.removed <= rows + limits.AUDIT_REMOVED:
            rows = chain.n  # a few too many wait, or each sweep would remove the row on the one before
        older = days * 86400 * SECOND
        while found := await self._database.write(queries.remove, seals, older, rows, limits.AUDIT_REMOVED):
            gone += found
        if gone:
            await self.done(Act(act="audit.removed", subject=f"node:{seals.node}", who="janitor", times=gone))
        await self.checkpoint()
        return gone

    # -- the key ---------------------------------------------------------------------------------------------------

    @property
    def node(self) -> str:
        """The name of this node, `''` while it has audited nothing."""
        seals = self._found()
        return seals.node if seals else ""

    def _own(self) -> Seals:
        if self._seals is None:
            key = self._kept.key(make=True)
            assert key is not None
            self._seals = Seals(key, self._installation)
        return self._seals

    def _found(self) -> Seals | None:
        if self._seals is None and (key := self._kept.key(make=False)) is not None:
            self._seals = Seals(key, self._installation)
        return self._seals
