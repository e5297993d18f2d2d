"""Runs that a host framework executes itself: it registers them, keeps them alive, says what they say, ends them."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from alcove import limits
from alcove.errors import (
    AlreadyExistsError,
    ConflictError,
    IdempotencyError,
    NotPermittedError,
    RunEndedError,
    RunNotFoundError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    TooLargeError,
)
from alcove.messages.model import Draft
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.grants import GrantBody, asked_for
from alcove.server.routes.views import Name, RunView, run_view


class Registration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run that the caller executes itself.

    Attributes:
        agent: Who works: the host's own name for it; one of Alcove's agents bounds the grant.
        run_id: The host's own id for the run; left out, a new one.
        session_id: Where; left out, nowhere.
        user_id: Which user's, without a session.
        parent_run: The run that hands its rights on: this one gets no more than that holds.
        grant: What the run is to be allowed.
        stale_s: Seconds without a heartbeat or report after which it is lost.
    """

    agent: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.ID_CHARS)]
    run_id: str | None = None
    session_id: str | None = None
    user_id: Name | None = None
    parent_run: str | None = None
    grant: GrantBody | None = None
    stale_s: Annotated[float, msgspec.Meta(gt=0, le=limits.STALE_S_MAX)] = limits.STALE_S


class RegisteredView(RunView, frozen=True, kw_only=True):
    """A run that a host executes.

    Attributes:
        token: What the run itself sends as `Authorization: Bearer`; told now, and never again.
    """

    token: str


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run said. With nothing in it, it is a heartbeat.

    Attributes:
        text: Output, for its journal and whoever listens.
        stream: Which of the two it was.
        messages: For its journal and, when it has a session, for that session's history.
    """

    text: str = ""
    stream: Literal["stdout", "stderr"] = "stdout"
    messages: Annotated[list[Draft], msgspec.Meta(max_length=limits.APPEND_MESSAGES)] = []


class ReportedView(msgspec.Struct, frozen=True, kw_only=True):
    """What a report added.

    Attributes:
        last_event: The number of the run's last event.
        last_seq: The `seq` of the last message that was appended to its session; null for none.
    """

    last_event: int
    last_seq: int | None


class Finish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a run ended.

    Attributes:
        status: How.
        text: Its answer: a message of the session, when it has one.
        error: Why it failed.
        exit_code: Of a program.
    """

    status: Literal["finished", "failed", "cancelled", "interrupted", "timed_out"] = "finished"
    text: str = ""
    error: str = ""
    exit_code: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)] | None = None


async def register(call: Call, body: Registration) -> RegisteredView:
    """Register a run that the caller executes itself. Its token is told in this answer, and never again."""
    if body.session_id is not None:
        await call.reach(body.session_id)
    registered = await call.hub.runs.register(
        body.agent,
        run_id=body.run_id,
        session_id=body.session_id or "",
        tenant=call.principal.tenant,
        user_id=call.user(body.user_id) or "",
        parent_run=body.parent_run or "",
        by=call.principal.name,
        grant=await asked_for(call, body.grant, body.parent_run),
        stale_s=body.stale_s,
    )
    call.headers.append((b"location", f"/api/v1/runs/{registered.run.id}".encode()))
    return RegisteredView(**msgspec.structs.asdict(run_view(registered.run)), token=registered.token)


async def heartbeat(call: Call) -> RunView:
    """Say that a hosted run goes on; `cancelling` in the answer tells that somebody asked to cancel it."""
    return run_view(await call.hub.runs.heartbeat(await call.own_run()))


async def report(call: Call, body: Report) -> ReportedView:
    """Write what a hosted run said, all or nothing; it goes on, by that."""
    reported = await call.hub.runs.report(
        await call.own_run(),
        text=body.text,
        stream=body.stream,
        messages=body.messages,
        idempotency_key=call.idempotency_key,
    )
    return ReportedView(last_event=reported.last_n, last_seq=reported.last_seq or None)


async def finish(call: Call, body: Finish) -> RunView:
    """End a hosted run, and with it its authority. Its records stay. A second end is refused."""
    run = await call.hub.runs.finish(
        await call.own_run(), status=body.status, text=body.text, error=body.error, exit_code=body.exit_code
    )
    return run_view(run)


_RUN: Final = "/api/v1/runs/{run_id}"
_GONE: Final = (RunNotFoundError, RunEndedError, ConflictError)
_SAYING: Final = (*_GONE, SessionBusyError, SessionExpiredError, SessionNotFoundError, TooLargeError)

ROUTES: Final = (
    Route(
        "POST",
        "/api/v1/runs",
        register,
        permission="runs.register",
        status=201,
        errors=(AlreadyExistsError, SessionNotFoundError, SessionExpiredError, RunNotFoundError, NotPermittedError),
    ),
    Route("POST", f"{_RUN}/heartbeat", heartbeat, permission="runs.report", errors=_GONE, run=True),
    Route(
        "POST",
        f"{_RUN}/report",
        report,
        permission="runs.report",
        errors=(*_SAYING, IdempotencyError),
        run=True,
        headers={"Idempotency-Key": "A repetition with the same key and body changes nothing."},
    ),
    Route("POST", f"{_RUN}/finish", finish, permission="runs.report", errors=_SAYING, run=True),
)
