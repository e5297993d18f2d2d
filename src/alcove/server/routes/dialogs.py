"""The dialog of a session."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated, Final

import msgspec

from alcove import limits
from alcove.clock import seconds
from alcove.dialogs.model import FREE_FORM, Dialog, Step
from alcove.errors import (
    AlreadyExistsError,
    ConflictError,
    DefinitionError,
    DialogNotFoundError,
    EventRefusedError,
    IdempotencyError,
    InvalidError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    TooLargeError,
    VersionMismatchError,
)
from alcove.events.model import Event
from alcove.messages.model import Draft
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import Name, PageLimit
from alcove.server.streaming import EventStream, resumes_after
from alcove.values import Json, Metadata

DialogName = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.DIALOG_NAME_CHARS)]
StateName = Annotated[str, msgspec.Meta(max_length=limits.DIALOG_NAME_CHARS)]
Drafts = Annotated[list[Draft], msgspec.Meta(max_length=limits.APPEND_MESSAGES)]


class Beginning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dialog: a definition, the name of a kept one, or free-form with state and slots.

    Attributes:
        definition: A definition as JSON (docs/dialogs.md); it is kept under its name and version.
        name: The newest kept definition of that name, or `free-form`: any state, any slots.
        restart: Begin at the start, whatever dialog the session is in.
        state: For `free-form` only: the state to set.
        slots: For `free-form` only: the slots to set, with `state`.
        expected_version: For `free-form` only: set them only if the dialog is at exactly that version.
    """

    definition: Metadata | None = None
    name: DialogName | None = None
    restart: bool = False
    state: StateName | None = None
    slots: Metadata | None = None
    expected_version: int | None = None


class Happening(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event for a dialog.

    Attributes:
        event: What happened.
        slots: What it brings.
        messages: Appended together with the step, all or nothing.
        expected_version: When given, step only if the dialog is at exactly that version.
    """

    event: DialogName
    slots: Metadata = {}
    messages: Drafts = []
    expected_version: int | None = None


class Resetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far back.

    Attributes:
        clear: Hide the history too.
    """

    clear: bool = False


class DialogView(msgspec.Struct, frozen=True, kw_only=True):
    """The dialog of a session.

    Attributes:
        session_id: Whose.
        name: Of the definition; `free-form` for none.
        number: The version of the definition; 0 for free-form.
        version: Counts what happened in it; what `expected_version` is compared with.
        state: Its state.
        slots: What it has collected.
        takes: Events that it takes now; empty at the end, and for free-form.
        final: Whether it has ended.
        due_at: When the state times out, epoch seconds; null for never.
        changed_at: When something last happened in it, epoch seconds.
    """

    session_id: str
    name: str
    number: int
    version: int
    state: str
    slots: dict[str, Json]
    takes: list[str]
    final: bool
    due_at: float | None
    changed_at: float


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened in a dialog.

    Attributes:
        session_id: Where.
        version: Its number, dense from 1.
        cause: `start`, `event`, `timeout`, `reset`, `set`; `restore` by a rewind, `leave` by one to before it began.
        event: The event; empty where none was taken.
        before: The state before; empty for a start.
        state: The state after.
        slots: The slots after.
        message: What a time-out told the user; empty for nothing.
        first_seq: The first message that was appended with it; null for none.
        last_seq: The session's last message after it.
        due_at: When the new state times out, epoch seconds; null for never.
        created_at: Epoch seconds.
    """

    session_id: str
    version: int
    cause: str
    event: str
    before: str
    state: str
    slots: dict[str, Json]
    message: str
    first_seq: int | None
    last_seq: int
    due_at: float | None
    created_at: float


class StepRange(msgspec.Struct, frozen=True, kw_only=True):
    """Which steps.

    Attributes:
        after: Those with a higher `version`.
        limit: How many at most.
    """

    after: int = 0
    limit: PageLimit = limits.PAGE_DEFAULT


class StepList(msgspec.Struct, frozen=True, kw_only=True):
    """What happened.

    Attributes:
        steps: Oldest first; go on with `after` set to the last `version`.
    """

    steps: list[StepView]


class DefinitionView(msgspec.Struct, frozen=True, kw_only=True):
    """What a dialog was declared as.

    Attributes:
        name: What it is called.
        number: Its version.
        digest: SHA-256 of its canonical JSON, in hex.
        definition: The declaration (docs/dialogs.md).
    """

    name: str
    number: int
    digest: str
    definition: Metadata


async def show(call: Call) -> DialogView:
    """Show the dialog of a session. A state that has timed out is shown as it is after that."""
    await call.session()
    return dialog_view(await call.hub.dialogs.get(call.session_id))


async def attach(call: Call, body: Beginning) -> DialogView:
    """Begin a dialog (201); a session that is in it already goes on as it is. Free-form: sets state and slots too."""
    tenant = (await call.session()).tenant
    dialogs = call.hub.dialogs
    if (body.definition is None) == (body.name is None):
        raise InvalidError("give either name or definition", field="name", remedy="one of them says which dialog")
    if body.state is None and (body.slots is not None or body.expected_version is not None):
        raise InvalidError("slots are set together with a state", field="state", remedy="give the state too")
    if body.state is not None and body.name != FREE_FORM:
        raise InvalidError(
            "a declared dialog moves by events only", field="state", remedy="POST to /dialog/events, or say free-form"
        )
    which = body.name or ""
    if body.definition is not None:
        which = (await dialogs.define(body.definition, tenant=tenant)).name
    dialog, began = await dialogs.start(call.session_id, which, restart=body.restart, tenant=tenant)
    if body.state is not None:
        await dialogs.put(call.session_id, body.state, body.slots, expected_version=body.expected_version)
        dialog = await dialogs.get(call.session_id)
    call.status = 201 if began else 200
    return dialog_view(dialog)


async def happen(call: Call, body: Happening) -> StepView:
    """Take an event: state, slots and messages are stored together. An event that is not taken says which would be."""
    await call.session()
    step = await call.hub.dialogs.step(
        call.session_id,
        body.event,
        body.slots,
        messages=body.messages,
        expected_version=body.expected_version,
        idempotency_key=call.idempotency_key,
    )
    call.note_replay(step.replayed)
    return step_view(step)


async def list_steps(call: Call, query: StepRange) -> StepList:
    """List what happened in a dialog, oldest first: events, time-outs, resets."""
    await call.session()
    steps = await call.hub.dialogs.steps(call.session_id, after=query.after, limit=query.limit)
    return StepList(steps=[step_view(step) for step in steps])


class After(msgspec.Struct, frozen=True, kw_only=True):
    """Where to begin.

    Attributes:
        after: The last `version` that was heard; `Last-Event-ID` wins.
    """

    after: int = 0


async def follow(call: Call, query: After) -> EventStream:
    """Follow a dialog as Server-Sent Events: what has happened after a version, and what does from now on.

    `id` is the version, `event` is `state`, `data` is a step as the list has it. It ends when the caller leaves.
    """
    await call.session()
    await call.hub.dialogs.get(call.session_id)
    return EventStream(call.site, _happening(call, resumes_after(call, query.after)))


async def _happening(call: Call, after: int) -> AsyncGenerator[Event]:
    with suppress(SessionNotFoundError):
        async with aclosing(call.hub.dialogs.subscribe(call.session_id, after=after)) as steps:
            async for step in steps:
                yield Event(step.version, "state", msgspec.to_builtins(step_view(step)), step.created_us)


class OfApp(msgspec.Struct, frozen=True, kw_only=True):
    """Whose time-outs.

    Attributes:
        app: Only of sessions of this application; empty for those of none; all when left out.
        follow: Whether to wait for those that are still to come.
    """

    app: Name | None = None
    follow: bool = True


async def follow_timeouts(call: Call, query: OfApp) -> EventStream:
    """Follow the time-outs of all sessions as Server-Sent Events, so that somebody can tell the users.

    `event` is `state`, `data` is a step as the list has it, with the session's `user_id`, `app` and `key`. Each goes to
    one listener, however many there are; to another one a minute later if the connection ends while it is sent.
    """
    return EventStream(call.site, _timing_out(call, query))


async def _timing_out(call: Call, query: OfApp) -> AsyncGenerator[Event]:
    told = call.hub.dialogs.timeouts(app=query.app, tenant=call.principal.tenant, follow=query.follow)
    async with aclosing(told) as steps:
        async for step in steps:
            session = await call.hub.sessions.find(step.session_id)
            if session is not None:  # it may have been purged just now
                whose = {"user_id": session.user_id, "app": session.app, "key": session.key}
                data = {**msgspec.to_builtins(step_view(step)), **whose}
                yield Event(step.version, "state", data, step.created_us)


async def show_definition(call: Call) -> DefinitionView:
    """Show the definition that the session follows now, whichever version that is."""
    await call.session()
    found = await call.hub.dialogs.followed(call.session_id)
    return DefinitionView(
        name=found.name, number=found.number, digest=found.digest, definition=msgspec.json.decode(found.source)
    )


async def reset(call: Call, body: Resetting) -> DialogView:
    """Bring the dialog back to its start with what its definition keeps. The history stays unless it is cleared too."""
    await call.session()
    await call.hub.dialogs.reset(call.session_id, clear=body.clear)
    return dialog_view(await call.hub.dialogs.get(call.session_id))


def dialog_view(dialog: Dialog) -> DialogView:
    """Return a dialog as it is shown."""
    return DialogView(
        session_id=dialog.session_id,
        name=dialog.name,
        number=dialog.number,
        version=dialog.version,
        state=dialog.state,
        slots=dialog.slots,
        takes=list(dialog.takes),
        final=dialog.final,
        due_at=seconds(dialog.due_us) if dialog.due_us else None,
        changed_at=seconds(dialog.changed_us),
    )


def step_view(step: Step) -> StepView:
    """Return a step as it is shown."""
    return StepView(
        session_id=step.session_id,
        version=step.version,
        cause=step.cause,
        event=step.event,
        before=step.before,
        state=step.state,
        slots=step.slots,
        message=step.message,
        first_seq=step.first_seq or None,
        last_seq=step.last_seq,
        due_at=seconds(step.due_us) if step.due_us else None,
        created_at=seconds(step.created_us),
    )


_AT: Final = "/api/v1/sessions/{session_id}/dialog"
_NONE: Final = (SessionNotFoundError, DialogNotFoundError)
_CHANGE: Final = (*_NONE, SessionBusyError, SessionExpiredError, ConflictError, TooLargeError, VersionMismatchError)

ROUTES: Final = (
    Route("GET", _AT, show, permission="dialogs.read", errors=_NONE, run=True),
    Route(
        "PUT",
        _AT,
        attach,
        permission="dialogs.write",
        others=(201,),
        errors=(*_CHANGE, DefinitionError, AlreadyExistsError),
    ),
    Route(
        "POST",
        f"{_AT}/events",
        happen,
        permission="dialogs.write",
        errors=(*_CHANGE, EventRefusedError, IdempotencyError),
        headers={"Idempotency-Key": "A repetition with the same key and body gets the first answer again."},
    ),
    Route("GET", f"{_AT}/events", list_steps, permission="dialogs.read", errors=(SessionNotFoundError,), run=True),
    Route("GET", f"{_AT}/stream", follow, permission="dialogs.read", errors=_NONE, run=True),
    Route("GET", "/api/v1/dialogs/timeouts", follow_timeouts, permission="dialogs.write"),
    Route("GET", f"{_AT}/definition", show_definition, permission="dialogs.read", errors=_NONE, run=True),
    Route("POST", f"{_AT}/reset", reset, permission="dialogs.write", errors=_CHANGE),
)
