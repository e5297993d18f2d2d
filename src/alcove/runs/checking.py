"""Authority while a run goes on: checks, what a grant is now, and what withdraws of it.

A check is a plain call. What the database said holds for `limits.DECISION_S`; after that it is asked again, by one
short read, so that a revocation elsewhere is seen within that time and a restart decides the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from alcove import ids, limits
from alcove.audit.model import Witness
from alcove.audit.service import Audit
from alcove.clock import Clock, SystemClock
from alcove.database.op import Database
from alcove.errors import DatabaseError, TooLargeError
from alcove.rights import rules
from alcove.rights.model import NOTHING, Cut, Rights
from alcove.rights.writing import checked
from alcove.runs import grant_queries
from alcove.runs.deciding import ALLOWED, UNREACHABLE, Check, Decision, Known
from alcove.runs.grant_queries import Change, Standing
from alcove.runs.granting import Granting, Resolver, effective
from alcove.runs.grants import Grant, thaw
from alcove.runs.ledger import Ledger
from alcove.runs.model import RunStatus

_log = logging.getLogger("alcove.grants")


class Whose(NamedTuple):
    """Whose a run is."""

    tenant: str
    user_id: str
    session_id: str


class Denial(NamedTuple):
    """A check that was answered with no."""

    run_id: str
    check: Check
    decision: Decision


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A run's authority.

    Attributes:
        run_id: The run.
        digest: SHA-256 of the grant's canonical JSON, in hex.
        grant: As it was frozen when the run started.
        cuts: What was asked for and not granted.
        changes: Withdrawals since, its own and those of runs above it.
        rights: What is left of it now.
        refusal: Why nothing of it holds any more, `''` while something does: `finished`, `revoked`, `expired`.
    """

    run_id: str
    digest: str
    grant: Grant
    cuts: tuple[Cut, ...]
    changes: tuple[Change, ...]
    rights: Rights
    refusal: str


class Checks(Ledger):
    """Answers what runs may do.

    Args:
        database: Where grants are.
        clock: Measures how long what the database said holds.
        audit: Is told of every denial and of every withdrawal.
    """

    def __init__(self, database: Database, clock: Clock | None = None, *, audit: Audit | None = None) -> None:
        super().__init__(database)
        self._audit = audit
        self._granting = Granting(database, audit)
        self._monotonic = (clock or SystemClock()).monotonic
        self._known: dict[str, Known] = {}
        self._size = 0
        self._withdrawals = 0  # counted here, so that a look that began before one is not believed after it
        self._silent_until = float("-inf")
        self.on_denial: Callable[[Denial], None] = _tell

    # -- checks ----------------------------------------------------------------------------------------------------

    def check(
        self, run_id: str, kind: str, name: str, operation: str = "", caller: str = "", *, fresh: bool = False
    ) -> Decision:
        """Return whether a run may do something now. A plain call that never raises for what it is asked.

        Once a second for each run that is asked about, and for one that this process does not know, it waits for
        one short read of the database; `authorize` awaits that instead.

        Args:
            run_id: The run.
            kind: Type of resource; or `path`, `network`, `storage`, `state`.
            name: Id of the resource; the path, the host, the flag, the scope.
            operation: Such as `call`; `''` for whether it may do anything with it.
            caller: Who asks; has to be the grant's, when that names one.
            fresh: Ask the database whatever was known.
        """
        try:
            known = self._known[run_id]
            if (
                operation in known.allowed[kind][name]
                and (known.caller == caller or not known.caller)
                and self._monotonic() < known.until
                and not fresh
            ):
                return ALLOWED
        except KeyError:
            known = self._known.get(run_id)
        asked = Check(kind=kind, name=name, operation=operation, caller=caller)
        if known is None or fresh or self._monotonic() >= known.until:
            try:
                known = self._look_now(run_id)
            except DatabaseError:
                return self._told(run_id, asked, UNREACHABLE)
        return self._told(run_id, asked, decided(run_id, known, asked))

    async def authorize(self, run_id: str, checks: Sequence[Check], *, fresh: bool = False) -> list[Decision]:
        """Answer checks about one run, at one moment: see `check`.

        Raises:
            TooLargeError: More than `limits.CHECKS`.
        """
        if len(checks) > limits.CHECKS:
            raise TooLargeError(f"{len(checks)} checks", field="checks", limit=limits.CHECKS, remedy="ask in parts")
        try:
            known = await self._fresh(run_id) if fresh else await self._recent(run_id)
        except DatabaseError:
            return [self._told(run_id, one, UNREACHABLE) for one in checks]
        return [self._told(run_id, one, decided(run_id, known, one)) for one in checks]

    async def owner(self, run_id: str) -> Whose | None:
        """Return whose a run is, which never changes; None when there is none of that id."""
        known = self._known.get(run_id) or await self._fresh(run_id)
        return Whose(known.tenant, known.user_id, known.session_id) if known else None

    # -- grants ----------------------------------------------------------------------------------------------------

    @property
    def resolver(self) -> Resolver | None:
        """What has the last word on every grant that is built here, if anything has."""
        return self._granting.resolver

    @resolver.setter
    def resolver(self, resolver: Resolver | None) -> None:
        self._granting.resolver = resolver

    async def grant(self, run_id: str) -> Held:
        """Return a run's authority: as it was frozen, what was cut off and withdrawn, and what is left.

        Raises:
            RunNotFoundError: There is none of that id.
        """
        body, digest, cuts, standing = await self._database.read(grant_queries.held, run_id)
        known = Known(standing, 0)
        return Held(
            run_id=run_id,
            digest=digest,
            grant=thaw(body),
            cuts=msgspec.json.decode(cuts, type=tuple[Cut, ...]),
            changes=standing.changes,
            rights=NOTHING if known.refusal is not None else effective(standing).rights,
            refusal=known.refusal.code if known.refusal is not None else "",
        )

    async def revoke(self, run_id: str, *, reason: str = "", made_by: str = "local") -> Held:
        """Withdraw a run's whole grant, and with it those of the runs below it.

        It holds at once in this process and within `limits.DECISION_S` in every other. A run of ours is ended, because
        its files and network are among what is withdrawn. The record of the grant stays. Twice is fine.

        Raises:
            RunNotFoundError: There is none of that id.
        """
        return await self._withdraw(run_id, "revoke", NOTHING, reason, made_by)

    async def narrow(self, run_id: str, within: Rights, *, reason: str = "", made_by: str = "local") -> Held:
        """Keep of a run's grant, and of those below it, only what is within `within` (`alcove.bound`).

        A part that is not set stays as it is. When files or network are withdrawn, a run of ours is ended.

        Raises:
            RunNotFoundError: There is none of that id.
            InvalidError: The rights are not valid.
        """
        return await self._withdraw(run_id, "narrow", checked(within, bound=True), reason, made_by)

    async def ceiling(self, session_id: str) -> Rights | None:
        """Return what runs in a session may be granted at most, as set for the session itself; None for no bound."""
        return await self._database.read(grant_queries.ceiling, session_id)

    async def set_ceiling(self, session_id: str, rights: Rights | None, *, made_by: str = "local") -> None:
        """Set what runs in a session, and in those below it, may be granted at most; None takes the bound away.

        Runs that have started keep what they hold: `narrow` withdraws.

        Raises:
            SessionNotFoundError: There is no such session.
            InvalidError: The rights are not valid.
        """
        within = None if rights is None else checked(rights, bound=True)
        await self._database.write(grant_queries.set_ceiling, session_id, within, self._witness(made_by))

    async def _withdraw(self, run_id: str, kind: str, within: Rights, reason: str, made_by: str) -> Held:
        ids.name(reason[: limits.ID_CHARS], field="reason", empty=True)
        if len(reason) > limits.REASON_CHARS:
            raise TooLargeError(
                "the reason is too long", field="reason", limit=limits.REASON_CHARS, remedy="shorten it"
            )
        before = await self.grant(run_id)
        witness = self._witness(made_by)
        await self._database.write(grant_queries.withdraw, run_id, kind, within, reason, made_by, witness)
        self._forget_line(run_id)
        after = await self.grant(run_id)
        _log.info("grant withdrawn", extra={"run_id": run_id, "kind": kind, "by": made_by, "digest": after.digest})
        for one in await self._database.read(grant_queries.live_below, run_id):
            held = before.rights if one == run_id else (await self.grant(one)).grant.rights
            if kind == "revoke" or rules.touches_sandbox(held, rules.cut(held, within)):
                await self._end_withdrawn(one)
        return after

    async def _end_withdrawn(self, run_id: str) -> None:
        """End what the kernel was told it may touch what is withdrawn; for who adds to this class."""

    # -- what is known ---------------------------------------------------------------------------------------------

    def _forget_line(self, run_id: str) -> None:
        """Forget what is known of a run and of those below it."""
        self._withdrawals += 1
        for below in [one for one, known in self._known.items() if run_id in known.line]:
            self._size -= self._known.pop(below).size

    async def _recent(self, run_id: str) -> Known | None:
        known = self._known.get(run_id)
        return known if known is not None and self._monotonic() < known.until else await self._fresh(run_id)

    async def _fresh(self, run_id: str) -> Known | None:
        full = run_id not in self._known
        while True:
            asked_at, withdrawals = self._monotonic(), self._withdrawals
            standing = await self._database.read(grant_queries.standing, run_id, not full)
            if withdrawals != self._withdrawals:
                continue
            if self._fits(run_id, standing):
                return self._taken(run_id, standing, asked_at)
            full = True

    def _look_now(self, run_id: str) -> Known | None:
        """Ask the database and wait; one that was silent a moment ago is not asked, so that nobody waits twice."""
        asked_at = self._monotonic()
        if asked_at < self._silent_until:
            raise DatabaseError("the database did not answer a moment ago")
        try:
            standing = self._database.read_now(grant_queries.standing, run_id, run_id in self._known)
            if not self._fits(run_id, standing):
                standing = self._database.read_now(grant_queries.standing, run_id, False)
        except DatabaseError:
            self._silent_until = self._monotonic() + limits.DECISION_S
            raise
        return self._taken(run_id, standing, asked_at)

    def _fits(self, run_id: str, standing: Standing | None) -> bool:
        """Return whether a standing has the grant with it where that is needed."""
        if standing is None or standing.body is not None:
            return True
        known = self._known.get(run_id)
        return known is not None and known.changes == len(standing.changes)

    def _taken(self, run_id: str, standing: Standing | None, asked_at: float) -> Known | None:
        known = self._known.get(run_id)
        if standing is not None and standing.body is None and known is not None:
            known.renew(standing, asked_at)
            return known
        if known is not None:
            self._size -= self._known.pop(run_id).size
        if standing is None:
            return None
        known = Known(standing, asked_at)
        if standing.status == RunStatus.QUEUED:
            return known  # its grant is still to come
        self._known[run_id] = known
        self._size += known.size
        while len(self._known) > limits.GRANTS_KNOWN or (
            self._size > limits.GRANTS_KNOWN_RESOURCES and len(self._known) > 1
        ):
            self._size -= self._known.pop(next(iter(self._known))).size
        return known

    def _told(self, run_id: str, check: Check, decision: Decision) -> Decision:
        """Return a decision; the one place where a denial is told."""
        if not decision.allowed:
            if self._audit is not None:
                self._deny(self._audit, run_id, check, decision.code)
            self.on_denial(Denial(run_id, check, decision))
        return decision

    def _deny(self, audit: Audit, run_id: str, check: Check, code: str) -> None:
        known = self._known.get(run_id)
        audit.denied(
            "check.denied",
            code,
            subject=f"run:{run_id}",
            tenant=known.tenant if known else "",
            user_id=known.user_id if known else "",
            session_id=known.session_id if known else "",
            type=check.kind,
            id=check.name,
            operation=check.operation,
            caller=check.caller,
        )

    def _witness(self, by: str) -> Witness | None:
        return self._audit.witness(ids.name(by, field="by")) if self._audit else None


def decided(run_id: str, known: Known | None, check: Check) -> Decision:
    """Return the answer to a check by what is known of the run."""
    if known is None:
        return Decision(False, "unknown_run", f"there is no run {run_id[: limits.ID_CHARS]}")
    return known.decide(check)


def _tell(denial: Denial) -> None:
    check = denial.check
    _log.debug(
        "denied",
        extra={
            "run_id": denial.run_id,
            "code": denial.decision.code,
            "kind": check.kind,
            "name_asked": check.name,
            "operation": check.operation,
            "caller": check.caller,
        },
    )
