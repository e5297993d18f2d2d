"""Runs that wait for a person: what they ask, and the answers."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import msgspec

from alcove import limits
from alcove.clock import seconds
from alcove.errors import (
    ApprovalDecidedError,
    ApprovalNotFoundError,
    ConflictError,
    IdempotencyError,
    RunEndedError,
    RunNotFoundError,
    SessionNotFoundError,
    TooLargeError,
)
from alcove.rights.approvals import Approval
from alcove.runs.approval_queries import ApprovalPage
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.grants import Reason
from alcove.server.routes.views import Name, Paging, Unset, given
from alcove.values import Json


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run wants to do; `type` and `id` are needed.

    Attributes:
        type: Of the resource, such as `tool`.
        id: Of the resource.
        operation: What is to be done with it, such as `call`.
        arguments: With which arguments: any JSON.
        message: What the run says to the person.
        expires_s: Seconds after which it is denied.
    """

    type: Name = ""
    id: Annotated[str, msgspec.Meta(max_length=limits.PATH_BYTES)] = ""
    operation: Name = ""
    arguments: Json = None
    message: Annotated[str, msgspec.Meta(max_length=limits.APPROVAL_MESSAGE_CHARS)] = ""
    expires_s: Annotated[float, msgspec.Meta(gt=0, le=limits.APPROVAL_S_MAX)] = limits.APPROVAL_S


class Answered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer to one request, which has to be named: what a person has seen is what is answered.

    Attributes:
        approval_id: Which request.
        reason: Why, for the run and for whoever looks later.
    """

    approval_id: Name = ""
    reason: Reason = ""


class ApprovalView(msgspec.Struct, frozen=True, kw_only=True):
    """What a run asked, and the answer.

    Attributes:
        approval_id: Its id.
        run_id: Who asked.
        session_id: Where that works; empty for nowhere.
        user_id: Which user's; empty for nobody's.
        agent: Who works.
        type: Of the resource.
        id: Of the resource.
        operation: What is to be done with it.
        arguments: With which arguments.
        digest: SHA-256, in hex, of run, type, id, operation and arguments: an answer is about these only.
        message: What the run says to the person.
        status: `waiting`, `approved`, `denied`, `expired` when nobody answered in time, `cancelled` when the run ended.
        reason: The person's.
        decided_by: Who answered; empty for nobody.
        created_at: Epoch seconds.
        expires_at: Epoch seconds; from then on it is denied.
        decided_at: Epoch seconds; null while it waits.
    """

    approval_id: str
    run_id: str
    session_id: str
    user_id: str
    agent: str
    type: str
    id: str
    operation: str
    arguments: Json
    digest: str
    message: str
    status: str
    reason: str
    decided_by: str
    created_at: float
    expires_at: float
    decided_at: float | None


class ApprovalList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of requests.

    Attributes:
        approvals: Newest first.
        next_cursor: Goes into `cursor` for the next page; null on the last.
    """

    approvals: list[ApprovalView]
    next_cursor: str | None


class OfRun(Paging, frozen=True, kw_only=True):
    """Which requests of a run.

    Attributes:
        waiting: Only those that nobody has answered.
    """

    waiting: bool = False


class OfAll(OfRun, frozen=True, kw_only=True):
    """Which requests.

    Attributes:
        session_id: Of this session.
        user_id: Of this user.
    """

    session_id: str | Unset = msgspec.UNSET
    user_id: str | Unset = msgspec.UNSET


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait.

    Attributes:
        wait_s: Seconds to wait for the answer; then the request is shown as it stands.
    """

    wait_s: Annotated[float, msgspec.Meta(ge=0, le=limits.APPROVAL_WAIT_S)] = 0


async def ask(call: Call, body: Question) -> ApprovalView:
    """Ask a person whether the run may do this; it is `waiting` from then on. What is still open is not asked twice."""
    asked = await call.hub.runs.ask(
        await call.own_run(),
        body.type,
        body.id,
        body.operation,
        body.arguments,
        message=body.message,
        expires_s=body.expires_s,
        idempotency_key=call.idempotency_key,
        by=call.principal.name,
    )
    call.note_replay(asked.replayed)
    call.headers.append((b"location", f"/api/v1/runs/{asked.run_id}/approvals/{asked.id}".encode()))
    return _view(asked)


async def list_of_run(call: Call, query: OfRun) -> ApprovalList:
    """List what a run asked, newest first."""
    run_id = await call.own_run()
    page = await call.hub.runs.approvals(run_id, waiting=query.waiting, limit=query.limit, cursor=given(query.cursor))
    return _list(page)


async def list_all(call: Call, query: OfAll) -> ApprovalList:
    """List what runs asked, newest first; every given filter must hold."""
    if isinstance(query.session_id, str):
        await call.reach(query.session_id)
    page = await call.hub.runs.approvals(
        tenant=None if call.is_admin else call.principal.tenant,
        user_id=call.user(given(query.user_id)),
        session_id=given(query.session_id),
        waiting=query.waiting,
        limit=query.limit,
        cursor=given(query.cursor),
    )
    return _list(page)


async def show(call: Call, query: Patience) -> ApprovalView:
    """Show a request, at once or when it is answered."""
    run_id, approval_id = await call.own_run(), call.path["approval_id"]
    answering = asyncio.create_task(call.hub.runs.answer(run_id, approval_id, wait_s=query.wait_s))
    stopping = asyncio.create_task(call.site.stopping.wait())
    try:
        await asyncio.wait((answering, stopping), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return _view(answering.result())
    finally:
        for task in (answering, stopping):
            task.cancel()
    return _view(await call.hub.runs.approval(run_id, approval_id))


async def approve(call: Call, body: Answered) -> ApprovalView:
    """Say yes to a request, for exactly what it says and this once. The same answer again is the first one."""
    run = await call.run()
    return _told(
        call, await call.hub.runs.approve(run.id, body.approval_id, reason=body.reason, by=call.principal.name)
    )


async def deny(call: Call, body: Answered) -> ApprovalView:
    """Say no to a request. The same answer again is the first one."""
    run = await call.run()
    return _told(call, await call.hub.runs.deny(run.id, body.approval_id, reason=body.reason, by=call.principal.name))


def _told(call: Call, answered: Approval) -> ApprovalView:
    call.note_replay(answered.replayed)
    return _view(answered)


def _list(page: ApprovalPage) -> ApprovalList:
    return ApprovalList(approvals=[_view(one) for one in page.approvals], next_cursor=page.next_cursor)


def _view(approval: Approval) -> ApprovalView:
    return ApprovalView(
        approval_id=approval.id,
        run_id=approval.run_id,
        session_id=approval.session_id,
        user_id=approval.user_id,
        agent=approval.agent,
        type=approval.kind,
        id=approval.name,
        operation=approval.operation,
        arguments=approval.arguments,
        digest=approval.digest,
        message=approval.message,
        status=approval.status,
        reason=approval.reason,
        decided_by=approval.decided_by,
        created_at=seconds(approval.created_us),
        expires_at=seconds(approval.expires_us),
        decided_at=seconds(approval.decided_us) if approval.decided_us else None,
    )


_RUN: Final = "/api/v1/runs/{run_id}"
_NONE: Final = (RunNotFoundError,)
_ANSWER: Final = (*_NONE, ApprovalNotFoundError, ApprovalDecidedError, TooLargeError)

ROUTES: Final = (
    Route(
        "POST",
        f"{_RUN}/approvals",
        ask,
        permission="runs.ask",
        status=201,
        errors=(*_NONE, RunEndedError, ConflictError, TooLargeError, IdempotencyError),
        run=True,
        headers={"Idempotency-Key": "A repetition with the same key and body gets the same request again."},
    ),
    Route("GET", f"{_RUN}/approvals", list_of_run, permission="runs.read", errors=_NONE, run=True),
    Route(
        "GET",
        f"{_RUN}/approvals/{{approval_id}}",
        show,
        permission="runs.read",
        errors=(*_NONE, ApprovalNotFoundError),
        run=True,
    ),
    Route("POST", f"{_RUN}/approve", approve, permission="runs.approve", errors=_ANSWER),
    Route("POST", f"{_RUN}/deny", deny, permission="runs.approve", errors=_ANSWER),
    Route("GET", "/api/v1/approvals", list_all, permission="runs.read", errors=(SessionNotFoundError,)),
)
