"""Runs that wait for a person: what is asked, who answered, and the wait itself.

An answer grants nothing: what a run may do stays within its frozen grant. It says that a person saw these very
parameters and said yes, and it says so about them only.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol, TypeAlias, final

import msgspec

from alcove import ids, limits
from alcove.audit.service import Audit
from alcove.clock import Clock
from alcove.database.idempotency import once, write_once
from alcove.database.op import Database
from alcove.errors import DatabaseError, NotPermittedError, TooLargeError
from alcove.events.model import NewEvent
from alcove.events.service import Events
from alcove.pages import page_limit
from alcove.rights.approvals import Approval, ApprovalStatus, Question, canonical, digest_of, question
from alcove.runs import approval_queries
from alcove.runs.approval_queries import ApprovalFilters, ApprovalPage, Place, Put
from alcove.runs.checking import Checks, decided
from alcove.runs.deciding import ALLOWED, UNREACHABLE, Check, Decision
from alcove.runs.steering_queries import Pulled
from alcove.values import Json

_log = logging.getLogger("alcove.approvals")

Write: TypeAlias = Callable[[Place | None], Awaitable[Put]]
Wait: TypeAlias = Callable[[str, float | None], Coroutine[Any, Any, Approval]]


class Desk(Protocol):
    """A run that is executed here: it writes its own journal, and its time stands still while it waits."""

    def cleaned(self, asked: Question) -> Question:
        """Return a question without the secrets that the run was given."""
        ...

    async def put(self, write: Write, wait: Wait) -> Put:
        """Have a question written in the run's journal, and look after it until it is answered."""
        ...

    async def say(self, entry: NewEvent) -> None:
        """Write an event in the run's journal, after all that was said before it."""
        ...

    async def pull(self, limit: int) -> Pulled:
        """Take messages that were put to the run into the open turn."""
        ...


class Approvals(Checks):
    """Lets runs wait for a person.

    Args:
        database: Where requests are.
        events: Carries what runs say, and wakes who waits for an answer.
        clock: Measures how long what the database said holds.
        audit: Is told of requests and answers.
    """

    def __init__(
        self, database: Database, *, events: Events, clock: Clock | None = None, audit: Audit | None = None
    ) -> None:
        super().__init__(database, clock, audit=audit)
        self._events = events

    async def ask(
        self,
        run_id: str,
        kind: str,
        name: str,
        operation: str = "",
        arguments: Json = None,
        *,
        message: str = "",
        expires_s: float = limits.APPROVAL_S,
        idempotency_key: str | None = None,
        by: str = "library",
    ) -> Approval:
        """Ask a person whether a run may do this, and return the request; the run is `waiting` from then on.

        The same question that is still open is not asked twice. What was answered answers no second question: the
        same one later is a new request, unless it comes with the same idempotency key.

        Args:
            run_id: Who asks: a hosted run, or one that this process looks after.
            kind: Type of resource, such as `tool`.
            name: Id of the resource.
            operation: What is to be done with it.
            arguments: With which arguments: JSON, at most `limits.APPROVAL_BYTES`.
            message: What the run says to the person.
            expires_s: Seconds after which it is denied, at most `limits.APPROVAL_S_MAX`.
            idempotency_key: With it, a repetition gets the same request again.
            by: Who asks; the audit keeps it.

        Raises:
            RunNotFoundError, RunEndedError: There is no such run any more.
            ConflictError: The run is to be cancelled, or another process looks after it.
            InvalidError, TooLargeError: A parameter is not valid, or the run asks too much.
        """
        asked = question(run_id, kind, name, operation, arguments, message=message, expires_s=expires_s)
        desk = self._desk(run_id)
        if desk:
            asked = desk.cleaned(asked)
        request = None
        if idempotency_key is not None:
            body = msgspec.msgpack.encode((asked.digest, message, expires_s))
            request = once(f"approval:{run_id}", idempotency_key, body)
        witness = self._witness(by)

        async def write(place: Place | None) -> Put:
            put, replayed = await write_once(
                self._database, request, Put, approval_queries.ask, asked, place, request, witness
            )
            return Put(put.approval_id, new=put.new and not replayed, replayed=replayed)

        async def wait(approval_id: str, wait_s: float | None) -> Approval:
            return await self.answer(run_id, approval_id, wait_s=wait_s)

        put = await (desk.put(write, wait) if desk else write(None))
        self._events.wake(run_id)
        _log.info("approval asked", extra={"run_id": run_id, "approval_id": put.approval_id})
        return msgspec.structs.replace(await self.approval(run_id, put.approval_id), replayed=put.replayed)

    async def approve(self, run_id: str, approval_id: str, *, reason: str = "", by: str = "local") -> Approval:
        """Say yes to a request of a run, for these parameters and this once. Twice is the first answer again.

        Args:
            run_id: Who asked.
            approval_id: What.
            reason: Why, for whoever looks later.
            by: Who answers: never a run.

        Raises:
            ApprovalNotFoundError: That run has not asked that.
            ApprovalDecidedError: It was answered otherwise, nobody did in time, or the run has ended.
            NotPermittedError: A run answers.
        """
        return await self._decide(run_id, approval_id, ApprovalStatus.APPROVED, reason, by)

    async def deny(self, run_id: str, approval_id: str, *, reason: str = "", by: str = "local") -> Approval:
        """Say no to a request of a run: see `approve`."""
        return await self._decide(run_id, approval_id, ApprovalStatus.DENIED, reason, by)

    async def _decide(self, run_id: str, approval_id: str, status: str, reason: str, by: str) -> Approval:
        ids.name(reason[: limits.ID_CHARS], field="reason", empty=True)
        if len(reason) > limits.REASON_CHARS:
            raise TooLargeError(
                "the reason is too long", field="reason", limit=limits.REASON_CHARS, remedy="shorten it"
            )
        witness = self._witness(by)
        if by.startswith("run:"):
            if self._audit:
                self._audit.denied("approval.refused", "not_permitted", subject=f"run:{run_id}", who=by)
            raise NotPermittedError("no run answers a request", field="by", remedy="let a person do so")
        found, replayed = await self._database.write(
            approval_queries.decide, run_id, approval_id, status, reason, by, witness
        )
        self._events.wake(run_id)
        _log.info("approval decided", extra={"run_id": run_id, "approval_id": approval_id, "status": status, "by": by})
        return msgspec.structs.replace(found, replayed=replayed)

    async def approval(self, run_id: str, approval_id: str) -> Approval:
        """Return a request of a run as it stands.

        Raises:
            ApprovalNotFoundError: That run has not asked that.
        """
        return await self._database.read(approval_queries.get, run_id, approval_id)

    async def approvals(
        self,
        run_id: str | None = None,
        *,
        tenant: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        waiting: bool = False,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
    ) -> ApprovalPage:
        """List requests, newest first; every given filter must hold.

        Args:
            run_id: Of this run.
            tenant: Of this tenant.
            user_id: Of this user.
            session_id: Of this session.
            waiting: Only those that nobody has answered.
            limit: 1 to `limits.PAGE`.
            cursor: `next_cursor` of the page before.
        """
        filters = ApprovalFilters(run_id=run_id, tenant=tenant, user_id=user_id, session_id=session_id, waiting=waiting)
        return await self._database.read(approval_queries.page, filters, page_limit(limit), cursor)

    async def answer(self, run_id: str, approval_id: str, *, wait_s: float | None = None) -> Approval:
        """Wait until a request is answered, its time has run out or its run has ended, and return it.

        An answer in this process is heard at once, one of another process within `limits.EVENT_POLL_S`.

        Args:
            run_id: Who asked.
            approval_id: What.
            wait_s: Seconds after which it is returned as it stands; None for as long as it takes.

        Raises:
            ApprovalNotFoundError: That run has not asked that.
        """
        async with aclosing(self._events.looks(run_id, wait_s)) as looks:
            async for _ in looks:
                found = await self.approval(run_id, approval_id)
                if found.status == ApprovalStatus.EXPIRED and not found.decided_us:
                    await self._expire(approval_id)
                    found = await self.approval(run_id, approval_id)
                if not found.waiting:
                    return found
        return await self.approval(run_id, approval_id)

    async def redeem(
        self,
        run_id: str,
        approval_id: str,
        kind: str,
        name: str,
        operation: str = "",
        arguments: Json = None,
        *,
        caller: str = "",
    ) -> Decision:
        """Answer a check of something that needs approval, by an approval of exactly that: yes once, then no more.

        The grant is asked first, and now: what it does not have no approval gives, and what it has without approval
        uses none up.

        Args:
            run_id: The run.
            approval_id: The request that was approved.
            kind: Type of resource.
            name: Id of the resource.
            operation: What is to be done with it.
            arguments: With which arguments: those that were approved.
            caller: Who asks; has to be the grant's, when that names one.

        Raises:
            InvalidError, TooLargeError: The arguments are not JSON, or too long.
        """
        digest = digest_of(run_id, kind, name, operation, canonical(arguments))
        check = Check(kind=kind, name=name, operation=operation, caller=caller)
        try:
            known = await self._fresh(run_id)
        except DatabaseError:
            return self._told(run_id, check, UNREACHABLE)
        decision = decided(run_id, known, check)
        if decision.code == "needs_approval":
            witness = self._witness(f"run:{run_id}")
            why = await self._database.write(approval_queries.use, run_id, approval_id, digest, witness)
            decision = Decision(False, "needs_approval", f"{decision.message}: {why}") if why else ALLOWED
        return self._told(run_id, check, decision)

    async def sweep_expired(self) -> int:
        """Write that requests were not answered in time; return how many. Done again and again while it is open.

        They are denied from that time on, whether this has run or not.
        """
        found = 0
        while due := await self._database.read(approval_queries.due, limits.PAGE):
            for approval_id in due:
                await self._expire(approval_id)
            found += len(due)
        return found

    async def _expire(self, approval_id: str) -> None:
        expired = await self._database.write(approval_queries.expire, approval_id, self._witness("expiry"))
        if expired:
            self._events.wake(expired.run_id)

    def _desk(self, run_id: str) -> Desk | None:
        """Return the run when this process executes it; for who adds to this class."""
        del run_id
        return None


@final
class Asking:
    """What a function agent asks a person with.

    Args:
        approvals: Where requests are.
        run_id: Who asks.
    """

    def __init__(self, approvals: Approvals, run_id: str) -> None:
        self._approvals = approvals
        self._run_id = run_id

    async def __call__(
        self,
        kind: str,
        name: str,
        operation: str = "",
        arguments: Json = None,
        *,
        message: str = "",
        expires_s: float = limits.APPROVAL_S,
    ) -> Approval:
        """Ask, wait for the answer and return it: see `Approvals.ask`, which says what may go wrong."""
        asked = await self._approvals.ask(
            self._run_id,
            kind,
            name,
            operation,
            arguments,
            message=message,
            expires_s=expires_s,
            by=f"run:{self._run_id}",
        )
        return await self._approvals.answer(self._run_id, asked.id)
