"""Builds the grant of a run, once, before it starts: what is asked for, within everything that bounds it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeAlias

import msgspec

from alcove import limits
from alcove.audit.service import Audit
from alcove.clock import SECOND, Micros
from alcove.database.op import Database
from alcove.durations import ttl_us
from alcove.errors import InvalidError, NotPermittedError
from alcove.rights import rules
from alcove.rights.model import Cut, Rights
from alcove.rights.writing import checked
from alcove.runs import grant_queries
from alcove.runs.grant_queries import Standing
from alcove.runs.grants import Asked, Grant, check_asked, freeze, thaw
from alcove.runs.model import NewRun, RunStatus


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """What a resolver is shown.

    Attributes:
        agent: Who is to work.
        session_id: Where, `''` for nowhere.
        tenant: Whose run it will be.
        user_id: Which user's.
        parent_run: Which run hands its rights on, `''` for none.
        asked: What was asked for.
        rights: What is left of it within the bounds of agent, session and parent.
    """

    agent: str
    session_id: str
    tenant: str
    user_id: str
    parent_run: str
    asked: Asked
    rights: Rights


Resolver: TypeAlias = Callable[[Asking], Rights | Awaitable[Rights]]
"""Says within what a grant has to be, in the last place: `bound()` with no part set for no bound of its own."""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A grant to be.

    Attributes:
        grant: The grant.
        cuts: What was cut off it.
        root_run: The run at the top of its tree, `''` when that is the run itself.
        lifetime_s: Seconds until it expires; infinite when it ends with the run.
        by: Who asked for it.
    """

    grant: Grant
    cuts: tuple[Cut, ...]
    root_run: str
    lifetime_s: float
    by: str = "library"


class Granting:
    """Builds grants.

    Args:
        database: Knows what sessions allow and parents hold.
        audit: Is told when a grant is refused.
    """

    def __init__(self, database: Database, audit: Audit | None = None) -> None:
        self.resolver: Resolver | None = None
        self._database = database
        self._audit = audit

    async def build(
        self,
        asked: Asked,
        *,
        agent: str,
        declared: Rights,
        session_id: str,
        tenant: str,
        user_id: str,
        parent_run: str,
        by: str = "library",
    ) -> Built:
        """Return the grant of a run that is about to start; a refusal is audited.

        Raises:
            InvalidError: Something asked for is not valid.
            RunNotFoundError: There is no such parent.
            NotPermittedError: The parent has no authority to hand on, the resolver refuses, or `asked.exact` and
                something would be cut off.
        """
        try:
            built = await self._build(
                asked,
                agent=agent,
                declared=declared,
                session_id=session_id,
                tenant=tenant,
                user_id=user_id,
                parent_run=parent_run,
            )
        except NotPermittedError as error:
            if self._audit:
                self._audit.denied(
                    "grant.denied",
                    error.code,
                    subject=f"run:{parent_run}" if parent_run else "",
                    tenant=tenant,
                    user_id=user_id,
                    session_id=session_id,
                    who=by,
                    agent=agent,
                    reason=error.message,
                )
            raise
        return msgspec.structs.replace(built, by=by)

    async def _build(
        self,
        asked: Asked,
        *,
        agent: str,
        declared: Rights,
        session_id: str,
        tenant: str,
        user_id: str,
        parent_run: str,
    ) -> Built:
        check_asked(asked)
        lifetime = ttl_us(asked.ttl_s)
        wanted = checked(asked.rights, bound=False)
        basis = await self._database.read(grant_queries.basis, session_id, parent_run)
        bounds = [("agent", declared), *(("session", ceiling) for ceiling in basis.ceilings)]
        expires = basis.now + lifetime if lifetime else 0
        root_run = ""
        if basis.parent:
            held = handed_on(basis.parent)
            bounds.append(("parent", held.rights))
            expires = min(filter(None, (expires, held.expires_us)), default=0)
            root_run = basis.parent.root_id
        left, cuts = rules.bounded(rules.complete(wanted, declared), bounds)
        if self.resolver:
            asking = Asking(
                agent=agent,
                session_id=session_id,
                tenant=tenant,
                user_id=user_id,
                parent_run=parent_run,
                asked=asked,
                rights=left,
            )
            left, more = rules.bounded(left, [("resolver", await self._resolve(self.resolver, asking))])
            cuts += more
        if asked.exact and cuts:
            raise _refusal(cuts)
        grant = _grant(asked, left, agent=agent, parent=parent_run, expires=expires)
        return Built(
            grant=grant,
            cuts=tuple(cuts),
            root_run=root_run,
            lifetime_s=(expires - basis.now) / SECOND if expires else inf,
        )

    async def _resolve(self, resolver: Resolver, asking: Asking) -> Rights:
        try:
            found = resolver(asking)
            if inspect.isawaitable(found):
                found = await found
            return checked(found, bound=True)
        except NotPermittedError:
            raise
        except Exception as error:  # a bound that cannot be told permits nothing
            raise NotPermittedError(
                f"the resolver of grants failed: {type(error).__name__}", field="grant", remedy="see the server's log"
            ) from error


def handed_on(parent: Standing) -> Grant:
    """Return what a parent holds now.

    Raises:
        NotPermittedError: It holds nothing any more.
    """
    grant = effective(parent)
    refusal = (
        "has not begun"
        if parent.status == RunStatus.QUEUED
        else "has ended"
        if parent.ended
        else "was revoked"
        if revoked(parent)
        else "has expired"
        if grant.expires_us and grant.expires_us <= parent.now
        else ""
    )
    if refusal:
        raise NotPermittedError(
            f"run {parent.run_id} {refusal}: it hands nothing on",
            field="parent_run",
            remedy="name a run that is live",
            run_id=parent.run_id,
        )
    if len(parent.line) >= limits.RUN_DEPTH:
        raise InvalidError(
            f"run {parent.run_id} has {len(parent.line)} runs in its line",
            field="parent_run",
            limit=limits.RUN_DEPTH,
            remedy="start it from one higher up",
        )
    return grant


def new_run(
    grant: Grant, built: Built, *, run_id: str, session_id: str, holder: str, tenant: str, user_id: str
) -> NewRun:
    """Return a run that is to start with a frozen grant.

    Raises:
        TooLargeError: The grant is longer than `limits.GRANT_BYTES`.
    """
    body, digest = freeze(grant)
    return NewRun(
        id=run_id,
        session_id=session_id,
        agent=grant.agent,
        holder=holder,
        tenant=tenant,
        user_id=user_id,
        parent_run=grant.parent,
        root_run=built.root_run or run_id,
        grant_json=body,
        cuts_json=msgspec.json.encode(built.cuts).decode(),
        digest=digest,
    )


def revoked(standing: Standing) -> bool:
    """Return whether a run's authority was withdrawn: its own, or that of a run above it, or one of those is gone."""
    return standing.broken or any(change.kind == "revoke" for change in standing.changes)


def effective(standing: Standing) -> Grant:
    """Return a grant as it holds now: what was frozen, within every withdrawal since."""
    grant = thaw(standing.body or '{"agent":""}')
    rights = grant.rights
    for change in standing.changes:
        rights = rules.cut(rights, change.rights)
    return msgspec.structs.replace(grant, **msgspec.structs.asdict(rights)) if standing.changes else grant


def _grant(asked: Asked, rights: Rights, *, agent: str, parent: str, expires: Micros) -> Grant:
    return Grant(
        agent=agent,
        caller=asked.caller,
        parent=parent,
        labels=asked.labels,
        context=asked.context,
        expires_us=expires,
        **msgspec.structs.asdict(rights),
    )


def _refusal(cuts: list[Cut]) -> NotPermittedError:
    [first, *_] = cuts
    count = sum(cut.count for cut in cuts)
    return NotPermittedError(
        f"{count} of the rights asked for would be cut off; the first: {first.first[0]} (by the {first.by})",
        field="grant",
        remedy="ask for less, or without exact",
    )
