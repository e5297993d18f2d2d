"""Messages for sessions that are busy: what waits there, and what is put to the run that goes on."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from alcove import limits
from alcove.clock import seconds
from alcove.errors import (
    ConflictError,
    IdempotencyError,
    QueueFullError,
    RunEndedError,
    RunNotFoundError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    TooLargeError,
)
from alcove.runs.steering_queries import Steered
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import Name


class Steer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message for a run that goes on; it is needed.

    Attributes:
        message: What the user says.
    """

    message: str = ""


class SteerSession(Steer, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message for the newest run of a session that goes on.

    Attributes:
        agent: Only for one of this agent.
    """

    agent: Name = ""


class SteeredView(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was put to a run.

    Attributes:
        run_id: Which run.
        n: Its number among those that were put to that run.
        waiting: How many wait for the run now, this one included.
    """

    run_id: str
    n: int
    waiting: int


class Pull(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many messages to take.

    Attributes:
        limit: At most; 1 for one at a time.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.STEERING_MESSAGES)] = limits.STEERING_MESSAGES


class TakenView(msgspec.Struct, frozen=True, kw_only=True):
    """A message that the run has taken.

    Attributes:
        seq: Its place in the session's history; null for a run without a session.
        text: What it says.
    """

    seq: int | None
    text: str


class PulledView(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has taken.

    Attributes:
        messages: Oldest first.
        waiting: How many still wait.
    """

    messages: list[TakenView]
    waiting: int


class UnreadView(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was put to a run, which has not taken it.

    Attributes:
        n: Its number.
        text: What it says.
        made_by: Who put it.
        returned: Whether the run has ended without it: then it stands in no history.
        created_at: Epoch seconds.
    """

    n: int
    text: str
    made_by: str
    returned: bool
    created_at: float


class UnreadList(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that a run has not taken.

    Attributes:
        messages: Oldest first.
    """

    messages: list[UnreadView]


class QueuedView(msgspec.Struct, frozen=True, kw_only=True):
    """A message that waits until its session is free.

    Attributes:
        run_id: The run that is to answer it.
        position: Its place in the queue, from 1.
        message: What the user says.
        agent: Who is to answer.
        interrupts: Whether it came to interrupt: such ones go first.
        made_by: Who asked.
        created_at: Epoch seconds.
    """

    run_id: str
    position: int
    message: str
    agent: str
    interrupts: bool
    made_by: str
    created_at: float


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """What waits in a session.

    Attributes:
        queue: The next one first.
    """

    queue: list[QueuedView]


async def queue(call: Call) -> QueueView:
    """List what waits in a session, the next one first. To take a run out of it, cancel it."""
    await call.session()
    found = await call.hub.runs.queue(call.session_id)
    return QueueView(
        queue=[
            QueuedView(
                run_id=one.run_id,
                position=one.position,
                message=one.message,
                agent=one.agent,
                interrupts=one.interrupts,
                made_by=one.made_by,
                created_at=seconds(one.created_us),
            )
            for one in found
        ]
    )


async def steer(call: Call, body: Steer) -> SteeredView:
    """Put a message to a run that goes on, which takes it when it is ready for it."""
    run = await call.run()
    steered = await call.hub.runs.steer(
        body.message, run_id=run.id, idempotency_key=call.idempotency_key, by=call.principal.name
    )
    return _view(call, steered)


async def steer_session(call: Call, body: SteerSession) -> SteeredView:
    """Put a message to the newest run of a session that goes on."""
    await call.session()
    steered = await call.hub.runs.steer(
        body.message,
        session_id=call.session_id,
        agent=body.agent,
        idempotency_key=call.idempotency_key,
        by=call.principal.name,
    )
    return _view(call, steered)


async def pull(call: Call, body: Pull) -> PulledView:
    """Take the messages that wait for the run, oldest first. Each is in the session's history then, and told once."""
    pulled = await call.hub.runs.pull(await call.own_run(), limit=body.limit)
    return PulledView(
        messages=[TakenView(seq=one.seq or None, text=one.text) for one in pulled.messages], waiting=pulled.waiting
    )


async def unread(call: Call) -> UnreadList:
    """List the messages that were put to a run and that it has not taken, oldest first."""
    found = await call.hub.runs.unread(await call.own_run())
    return UnreadList(
        messages=[
            UnreadView(
                n=one.n,
                text=one.text,
                made_by=one.made_by,
                returned=one.returned,
                created_at=seconds(one.created_us),
            )
            for one in found
        ]
    )


def _view(call: Call, steered: Steered) -> SteeredView:
    call.note_replay(steered.replayed)
    return SteeredView(run_id=steered.run_id, n=steered.n, waiting=steered.waiting)


_RUN: Final = "/api/v1/runs/{run_id}"
_SESSION: Final = "/api/v1/sessions/{session_id}"
_STEER: Final = (RunNotFoundError, RunEndedError, ConflictError, QueueFullError, IdempotencyError, TooLargeError)
_KEY: Final = {"Idempotency-Key": "A repetition with the same key and body puts nothing."}

ROUTES: Final = (
    Route("GET", f"{_SESSION}/queue", queue, permission="runs.read", errors=(SessionNotFoundError,)),
    Route("POST", f"{_RUN}/steer", steer, permission="runs.start", status=202, errors=_STEER, headers=_KEY),
    Route(
        "POST",
        f"{_SESSION}/steer",
        steer_session,
        permission="runs.start",
        status=202,
        errors=(*_STEER, SessionNotFoundError),
        headers=_KEY,
    ),
    Route("GET", f"{_RUN}/steering", unread, permission="runs.read", errors=(RunNotFoundError,), run=True),
    Route(
        "POST",
        f"{_RUN}/pull",
        pull,
        permission="runs.report",
        errors=(RunNotFoundError, RunEndedError, ConflictError, SessionBusyError, SessionExpiredError),
        run=True,
    ),
)
