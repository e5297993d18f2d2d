"""Runs: start, follow, cancel, list."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Final, Literal

import msgspec
from starlette.responses import Response

from alcove import limits
from alcove.errors import (
    AgentNotFoundError,
    AgentUnavailableError,
    IdempotencyError,
    QueueFullError,
    RunNotFoundError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    TooLargeError,
)
from alcove.events.model import Event
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.grants import GrantBody, asked_for
from alcove.server.routes.views import Paging, RunView, Unset, given, run_view
from alcove.server.streaming import EventStream, resumes_after


class Start(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message for an agent.

    Attributes:
        message: What the user says.
        agent: Who answers; by default the session's agent, else the installation's.
        language: Language to reply in, for agents that are asked to.
        timeout_s: Seconds of wall time until it is ended; the agent's own by default.
        grant: What the run is to be allowed; as much as the agent declares by default.
        parent_run: The run that hands its rights on: the new one gets no more than that holds.
        busy: What becomes of it while another run goes on: it is refused, answered next, taken by that run, or that run
            gives way to it.
    """

    message: Annotated[str, msgspec.Meta(min_length=1)]
    agent: str | None = None
    language: Annotated[str, msgspec.Meta(max_length=limits.LANGUAGE_CHARS)] | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=limits.RUN_TIMEOUT_S_MAX)] | None = None
    grant: GrantBody | None = None
    parent_run: str | None = None
    busy: Literal["reject", "queue", "steer", "interrupt"] = "reject"


class RunList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs.

    Attributes:
        runs: Newest first.
        next_cursor: Goes into `cursor` for the next page; null on the last.
    """

    runs: list[RunView]
    next_cursor: str | None


class RunTree(msgspec.Struct, frozen=True, kw_only=True):
    """A run and those below it.

    Attributes:
        runs: Nearest first.
    """

    runs: list[RunView]


class RunQuery(Paging, frozen=True, kw_only=True):
    """Which runs.

    Attributes:
        session_id: Of this session.
        user_id: Of this user.
        agent: Of this agent.
        status: With this status.
        parent_run: Handed on by this run.
        root_run: Of the tree below this run.
        hosted: Whether a host framework executes them.
        active: Whether they have not ended.
    """

    session_id: str | Unset = msgspec.UNSET
    user_id: str | Unset = msgspec.UNSET
    agent: str | Unset = msgspec.UNSET
    status: str | Unset = msgspec.UNSET
    parent_run: str | Unset = msgspec.UNSET
    root_run: str | Unset = msgspec.UNSET
    hosted: bool | Unset = msgspec.UNSET
    active: bool | Unset = msgspec.UNSET


class After(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go on.

    Attributes:
        after: The last number that was heard; 0 for the beginning.
        follow: Whether to wait for what is still to come.
    """

    after: Annotated[int, msgspec.Meta(ge=0)] = 0
    follow: bool = True


async def start(call: Call, body: Start) -> RunView:
    """Start a run and do not wait for it: it is `running`, or `queued`; `steered` tells that a run took it that was."""
    run = await call.hub.runs.start(
        call.session_id,
        body.message,
        agent=body.agent,
        language=body.language,
        timeout_s=body.timeout_s,
        idempotency_key=call.idempotency_key,
        grant=await asked_for(call, body.grant, body.parent_run),
        parent_run=body.parent_run or "",
        busy=body.busy,
        by=call.principal.name,
    )
    call.note_replay(run.replayed)
    call.headers.append((b"location", f"/api/v1/runs/{run.id}".encode()))
    return run_view(run)


async def list_of_session(call: Call, query: Paging) -> RunList:
    """List the runs of a session, newest first."""
    await call.session()
    page = await call.hub.runs.list(call.session_id, limit=query.limit, cursor=given(query.cursor))
    return RunList(runs=[run_view(run) for run in page.runs], next_cursor=page.next_cursor)


async def list_all(call: Call, query: RunQuery) -> RunList:
    """List runs, newest first; every given filter must hold."""
    if isinstance(query.session_id, str):
        await call.reach(query.session_id)
    page = await call.hub.runs.list(
        given(query.session_id),
        tenant=None if call.is_admin else call.principal.tenant,
        user_id=call.user(given(query.user_id)),
        agent=given(query.agent),
        status=given(query.status),
        parent_run=given(query.parent_run),
        root_run=given(query.root_run),
        hosted=given(query.hosted),
        active=given(query.active),
        limit=query.limit,
        cursor=given(query.cursor),
    )
    return RunList(runs=[run_view(run) for run in page.runs], next_cursor=page.next_cursor)


async def tree(call: Call) -> RunTree:
    """Show a run and those that got their rights from it, nearest first, at most 1,000."""
    run = await call.run()
    found = await call.hub.runs.tree(run.id)
    user_id = call.user(None)
    seen = [one for one in found if one.tenant == run.tenant and user_id in {None, one.user_id}]
    return RunTree(runs=[run_view(one) for one in seen])


async def get(call: Call) -> RunView:
    """Show a run."""
    return run_view(await call.run())


async def events(call: Call, query: After) -> EventStream:
    """Follow a run as Server-Sent Events, from the beginning or after the last number that was heard.

    204 says that the run has ended and there is nothing more to come.
    """
    run = await call.run()
    after = resumes_after(call, query.after)
    if run.ended and not await call.hub.events.read(run.id, after, 1):
        return Response(status_code=204)  # type: ignore[return-value]
    return follow(call, run.id, after) if query.follow else EventStream(call.site, _so_far(call, run.id, after))


async def cancel(call: Call) -> RunView:
    """Cancel a run. Its whole process tree is gone when this answers; 202 when another server looks after it."""
    await call.run()
    run = await call.hub.runs.cancel(call.path["run_id"], by=call.principal.name)
    call.status = 200 if run.ended else 202
    return run_view(run)


def follow(call: Call, run_id: str, after: int) -> EventStream:
    """Return the events of a run as a stream."""
    return EventStream(call.site, _events(call, run_id, after))


async def _events(call: Call, run_id: str, after: int) -> AsyncGenerator[Event]:
    async for event in call.hub.runs.events(run_id, after):
        yield event


async def _so_far(call: Call, run_id: str, after: int) -> AsyncGenerator[Event]:
    while found := await call.hub.events.read(run_id, after):
        for event in found:
            yield event
        after = found[-1].n


_NONE: Final = (RunNotFoundError,)

ROUTES: Final = (
    Route(
        "POST",
        "/api/v1/sessions/{session_id}/runs",
        start,
        permission="runs.start",
        status=202,
        errors=(
            SessionNotFoundError,
            SessionBusyError,
            QueueFullError,
            SessionExpiredError,
            AgentNotFoundError,
            AgentUnavailableError,
            IdempotencyError,
            TooLargeError,
        ),
        headers={
            "Idempotency-Key": "A repetition with the same key and body gets the same answer: the run, as it started."
        },
    ),
    Route(
        "GET",
        "/api/v1/sessions/{session_id}/runs",
        list_of_session,
        permission="runs.read",
        errors=(SessionNotFoundError,),
        run=True,
    ),
    Route("GET", "/api/v1/runs", list_all, permission="runs.read", errors=(SessionNotFoundError,)),
    Route("GET", "/api/v1/runs/{run_id}/tree", tree, permission="runs.read", errors=_NONE),
    Route("GET", "/api/v1/runs/{run_id}", get, permission="runs.read", errors=_NONE, run=True),
    Route(
        "GET",
        "/api/v1/runs/{run_id}/events",
        events,
        permission="runs.read",
        others=(204,),
        errors=_NONE,
        run=True,
        headers={"Last-Event-ID": "The last number that was heard; wins over `after`."},
    ),
    Route("POST", "/api/v1/runs/{run_id}/cancel", cancel, permission="runs.cancel", others=(202,), errors=_NONE),
)
