"""The main job: a message in, what an agent did out."""

from __future__ import annotations

from typing import Final

import msgspec

from alcove.errors import (
    AgentNotFoundError,
    AgentUnavailableError,
    AlcoveError,
    IdempotencyError,
    QueueFullError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    TooLargeError,
)
from alcove.runs.model import Run, RunStatus
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.grants import asked_for
from alcove.server.routes.runs import Start, follow
from alcove.server.streaming import EventStream

_STATUSES: Final = {RunStatus.FAILED: 502, RunStatus.LOST: 502, RunStatus.TIMED_OUT: 504}


class Chat(Start, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to say, to whom and where.

    Attributes:
        session_id: Where; left out, in a new session.
    """

    session_id: str | None = None


class ChatAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        session_id: Where it was said.
        response: The answer; of a run that failed, what went wrong.
        run_id: The run that answered.
        status: How the run ended: `finished`, `failed`, `cancelled`, `interrupted`, `timed_out` or
            `lost`.
        exit_code: The program's, 128 + signal when a signal ended it; null for functions, and when no end was seen.
        agent: Who answered.
        error: Why it failed, empty otherwise.
        returned: Messages that were put to the run and that it has not taken: they stand in no history.
    """

    session_id: str
    response: str
    run_id: str
    status: str
    exit_code: int | None
    agent: str
    error: str
    returned: list[str]


async def chat(call: Call, body: Chat) -> ChatAnswer:
    """Send a message to an agent and wait for its answer.

    The status is 200 when the program ended by itself, with any exit code, or was cancelled; 502 when the agent failed;
    504 when it ran out of time. The body is the same. Leaving early does not cancel the run.
    """
    started = await _start(call, body)
    reply = await call.hub.runs.reply(started.id)
    run = reply.run
    call.status = _STATUSES.get(RunStatus(run.status), 200)
    return ChatAnswer(
        session_id=run.session_id,
        response=reply.text,
        run_id=run.id,
        status=run.status,
        exit_code=run.exit_code,
        agent=run.agent,
        error=run.error,
        returned=list(reply.returned),
    )


async def stream(call: Call, body: Chat) -> EventStream:
    """Send a message to an agent and hear what happens as Server-Sent Events (docs/events.md).

    A stream that broke goes on at `/api/v1/runs/{run_id}/events` with the last id that was heard. Leaving early does
    not cancel the run.
    """
    run = await _start(call, body)
    call.headers.append((b"location", f"/api/v1/runs/{run.id}/events".encode()))
    return follow(call, run.id, 0)


async def _start(call: Call, body: Chat) -> Run:
    """Start the run; a session that is made for it goes again when it cannot be started."""
    runs, key = call.hub.runs, call.idempotency_key
    grant = await asked_for(call, body.grant, body.parent_run)
    session_id = body.session_id
    if session_id is not None:
        await call.reach(session_id)
    else:
        made = await call.hub.sessions.create(
            user_id=call.user(None),
            tenant=call.principal.tenant,
            idempotency_key=None if key is None else f"chat {key}",
        )
        session_id = made.id
    try:
        run = await runs.start(
            session_id,
            body.message,
            agent=body.agent,
            language=body.language,
            timeout_s=body.timeout_s,
            idempotency_key=key,
            grant=grant,
            parent_run=body.parent_run or "",
            busy=body.busy,
            by=call.principal.name,
        )
    except AlcoveError:
        # With a key it stays: a repetition starts its run in it.
        if body.session_id is None and key is None:
            await call.hub.sessions.delete(session_id, purge=True)
        raise
    call.note_replay(run.replayed)
    return run


_ERRORS: Final = (
    SessionNotFoundError,
    SessionBusyError,
    QueueFullError,
    SessionExpiredError,
    AgentNotFoundError,
    AgentUnavailableError,
    IdempotencyError,
    TooLargeError,
)
_KEY: Final = {"Idempotency-Key": "A repetition with the same key and body gets the same run."}

ROUTES: Final = (
    Route("POST", "/api/v1/chat", chat, permission="runs.start", others=(502, 504), errors=_ERRORS, headers=_KEY),
    Route("POST", "/api/v1/chat/stream", stream, permission="runs.start", errors=_ERRORS, headers=_KEY),
)
