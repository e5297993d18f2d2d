"""Messages and turns."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from starlette.responses import Response

from alcove import limits
from alcove.errors import (
    IdempotencyError,
    NotFoundError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleSequenceError,
    TooLargeError,
)
from alcove.messages.model import Draft, Window
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import (
    JsonObject,
    MessageLimit,
    MessageList,
    MessageView,
    TurnView,
    Unset,
    given,
    message_view,
    turn_view,
)

UNSET = msgspec.UNSET
_SEQ_DIGITS: Final = 18


class Append(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Messages to append, all or none.

    Attributes:
        messages: In order.
        expected_seq: When given, append only if this is the session's last `seq` (0: it is empty).
    """

    messages: Annotated[list[Draft], msgspec.Meta(min_length=1, max_length=limits.APPEND_MESSAGES)]
    expected_seq: int | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where an append went.

    Attributes:
        session_id: The session.
        first_seq: The `seq` of the first message.
        last_seq: The `seq` of the last one.
        turn: The turn of the last one.
    """

    session_id: str
    first_seq: int
    last_seq: int
    turn: int


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages.

    Attributes:
        after: Those with a higher `seq`; from the beginning otherwise.
        before: The last ones with a lower `seq`; not together with `after`.
        limit: How many at most; a page of long messages may be shorter.
        hidden: Show popped and cleared messages too.
        objects: `inline`: large parts whole; `reference`: their `object` and `size_bytes` instead.
    """

    after: int | Unset = UNSET
    before: int | Unset = UNSET
    limit: MessageLimit = limits.PAGE_DEFAULT
    hidden: bool = False
    objects: Literal["inline", "reference"] = "inline"


class MessagesPage(msgspec.Struct, frozen=True, kw_only=True):
    """Messages, oldest first, and where to go on.

    Attributes:
        messages: Oldest first.
        next_after: Goes into `after` for the next page; null at the end, and with `before`.
        next_before: Goes into `before` for the page before; null at the beginning, and without `before`.
    """

    messages: list[MessageView]
    next_after: int | None
    next_before: int | None


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the conversation. Every bound that is given holds.

    Attributes:
        rounds: How many of the last; a round is a user's message and what follows it. 10 when no other bound is given.
        before: Only messages with a lower `seq`.
        messages: How many messages at most.
        size_bytes: How many bytes of content at most, images and files included.
        tokens: How many tokens at most.
        media: How many images, audios and files at most, the newest; 0 for none.
        media_bytes: How many bytes of those together at most, the newest.
        over: What becomes of the others: a `reference` in words, or `drop`.
        failed: Show failed and lost turns too.
        objects: `inline`: large parts whole; `reference`: their `object` and `size_bytes` instead.
        format: `alcove`, or as a provider takes it: `chat` and `responses` (OpenAI), `anthropic`.
    """

    rounds: Annotated[int, msgspec.Meta(ge=1, le=limits.WINDOW_ROUNDS)] | Unset = UNSET
    before: int | Unset = UNSET
    messages: Annotated[int, msgspec.Meta(ge=1, le=limits.WINDOW_MESSAGES)] | Unset = UNSET
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=limits.MESSAGE_PAGE_BYTES)] | Unset = UNSET
    tokens: Annotated[int, msgspec.Meta(ge=1, le=limits.WINDOW_TOKENS)] | Unset = UNSET
    media: Annotated[int, msgspec.Meta(ge=0, le=limits.WINDOW_MESSAGES)] | Unset = UNSET
    media_bytes: Annotated[int, msgspec.Meta(ge=0, le=limits.MESSAGE_PAGE_BYTES)] | Unset = UNSET
    over: Literal["reference", "drop"] = "reference"
    failed: bool = False
    objects: Literal["inline", "reference"] = "inline"
    format: Literal["alcove", "chat", "responses", "anthropic"] = "alcove"


class WindowView(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is shown.

    Attributes:
        messages: System messages, a summary and pinned messages first, then rounds, oldest first.
        tokens: How many they are; null when nothing was counted.
        estimated: Whether `tokens` is at least in part an estimate.
        left_out: Whether there are earlier messages that are neither here nor in a summary that is.
        prompt: The same as a provider takes it: for `chat` `{"messages"}`, for `responses` `{"input"}`, for `anthropic`
            `{"system", "messages"}`.
    """

    messages: list[MessageView]
    tokens: int | None
    estimated: bool
    left_out: bool
    prompt: JsonObject | Unset = UNSET


class Pinned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a message goes into every window.

    Attributes:
        pinned: Pin it, or let it go.
    """

    pinned: bool


class FaultView(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a provider would refuse.

    Attributes:
        kind: `orphan_call`, `orphan_result`, `bad_call`, `empty_content`, `wrong_order` or `two_systems`.
        seq: The message.
        detail: A sentence about it.
    """

    kind: str
    seq: int
    detail: str


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider would refuse of a history.

    Attributes:
        faults: Oldest first; empty when it is in order.
    """

    faults: list[FaultView]


class Count(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much to take away.

    Attributes:
        count: How many of the last visible messages.
    """

    count: Annotated[int, msgspec.Meta(ge=1, le=limits.POP_MESSAGES)] = 1


class Cleared(msgspec.Struct, frozen=True, kw_only=True):
    """What a clearing did.

    Attributes:
        hidden: How many messages were visible before.
    """

    hidden: int


class TurnRange(msgspec.Struct, frozen=True, kw_only=True):
    """Which turns.

    Attributes:
        before: Those with a lower `number`: for the next page, the lowest one seen.
        limit: How many at most.
    """

    before: int | Unset = UNSET
    limit: MessageLimit = limits.PAGE_DEFAULT


class Turns(msgspec.Struct, frozen=True, kw_only=True):
    """Turns.

    Attributes:
        turns: Newest first.
    """

    turns: list[TurnView]


async def append(call: Call, body: Append) -> Place:
    """Append messages. They are on the disk when this answers."""
    appended = await call.hub.messages.append(
        call.session_id, body.messages, expected_seq=body.expected_seq, idempotency_key=call.idempotency_key
    )
    call.note_replay(appended.replayed)
    return Place(
        session_id=call.session_id, first_seq=appended.first_seq, last_seq=appended.last_seq, turn=appended.turn
    )


async def list_messages(call: Call, query: Range) -> MessagesPage:
    """List messages, oldest first, from the beginning or backwards from the end (`before`)."""
    await call.session()
    page = await call.hub.messages.page(
        call.session_id,
        after=given(query.after),
        before=given(query.before),
        limit=query.limit,
        hidden=query.hidden,
        objects=query.objects == "inline",
    )
    return MessagesPage(
        messages=[message_view(one) for one in page.messages],
        next_after=page.next_after,
        next_before=page.next_before,
    )


async def clear(call: Call) -> Cleared:
    """Hide every message so far. They stay in the history, hidden; `seq` goes on."""
    return Cleared(hidden=await call.hub.messages.clear(call.session_id))


async def pop(call: Call, body: Count) -> MessageList:
    """Hide the last visible messages and return them."""
    popped = await call.hub.messages.pop(call.session_id, body.count)
    return MessageList(messages=[message_view(one) for one in popped])


async def window(call: Call, query: Room) -> WindowView:
    """Show the newest part that fits, as a model is shown it: whole rounds, without failed and lost turns."""
    await call.session()
    shown = await call.hub.messages.window(
        call.session_id,
        rounds=given(query.rounds),
        before=given(query.before),
        messages=given(query.messages),
        size_bytes=given(query.size_bytes),
        tokens=given(query.tokens),
        media=given(query.media),
        media_bytes=given(query.media_bytes),
        over=query.over,
        failed=query.failed,
        objects=query.objects == "inline",
    )
    return WindowView(
        # Said once: in the form that was asked for.
        messages=[message_view(one) for one in shown] if query.format == "alcove" else [],
        tokens=shown.tokens,
        estimated=shown.estimated,
        left_out=shown.left_out,
        prompt=_prompt(shown, query.format),
    )


def _prompt(shown: Window, form: str) -> msgspec.Raw | Unset:
    from alcove.messages.formats import anthropic, chat, responses

    match form:
        case "chat":
            prompt: object = {"messages": chat.to(shown)}
        case "responses":
            prompt = {"input": responses.to(shown)}
        case "anthropic":
            prompt = anthropic.to(shown).arguments()
        case _:
            return UNSET
    return msgspec.Raw(msgspec.json.encode(prompt))


async def get_object(call: Call) -> Response:
    """Return the bytes of a large part of a message, by its hash."""
    await call.session()
    data = await call.hub.objects.read_of(call.session_id, call.path["hash"])
    head = {"etag": f'"{call.path["hash"]}"', "cache-control": "private, max-age=31536000, immutable"}
    return Response(data, media_type="application/octet-stream", headers=head)


async def pin(call: Call, body: Pinned) -> MessageView:
    """Pin a message, so that it goes into every window, or let it go."""
    messages, seq = call.hub.messages, _seq(call)
    return message_view(
        await (messages.pin(call.session_id, seq) if body.pinned else messages.unpin(call.session_id, seq))
    )


def _seq(call: Call) -> int:
    written = call.path["seq"]
    if not written.isascii() or not written.isdigit() or len(written) > _SEQ_DIGITS:
        raise NotFoundError(f"there is no message {written[:40]!r}", field="seq")
    return int(written)


async def check(call: Call) -> Faults:
    """Find what a provider would refuse of the history."""
    await call.session()
    found = await call.hub.messages.check(call.session_id)
    return Faults(faults=[FaultView(kind=one.kind, seq=one.seq, detail=one.detail) for one in found])


async def repair(call: Call) -> Faults:
    """Make the history acceptable to every provider; answers what was wrong. Nothing is deleted."""
    found = await call.hub.messages.repair(call.session_id)
    return Faults(faults=[FaultView(kind=one.kind, seq=one.seq, detail=one.detail) for one in found])


async def turns(call: Call, query: TurnRange) -> Turns:
    """List turns, newest first."""
    await call.session()
    found = await call.hub.messages.turns(call.session_id, before=given(query.before), limit=query.limit)
    return Turns(turns=[turn_view(one) for one in found])


_AT: Final = "/api/v1/sessions/{session_id}"
_NONE: Final = (SessionNotFoundError,)
_CHANGE: Final = (SessionNotFoundError, SessionBusyError, SessionExpiredError)

ROUTES: Final = (
    Route(
        "POST",
        f"{_AT}/messages",
        append,
        permission="messages.append",
        status=201,
        errors=(*_CHANGE, StaleSequenceError, IdempotencyError, TooLargeError),
        headers={"Idempotency-Key": "A repetition with the same key and body gets the first answer again."},
    ),
    Route("GET", f"{_AT}/messages", list_messages, permission="messages.read", errors=_NONE, run=True),
    Route("DELETE", f"{_AT}/messages", clear, permission="messages.delete", errors=_CHANGE),
    Route("POST", f"{_AT}/messages/pop", pop, permission="messages.delete", errors=_CHANGE),
    Route("GET", f"{_AT}/window", window, permission="messages.read", errors=_NONE, run=True),
    Route(
        "GET",
        f"{_AT}/objects/{{hash}}",
        get_object,
        permission="messages.read",
        errors=(*_NONE, NotFoundError),
        run=True,
        media="application/octet-stream",
    ),
    Route("PATCH", f"{_AT}/messages/{{seq}}", pin, permission="messages.update", errors=(*_CHANGE, NotFoundError)),
    Route("GET", f"{_AT}/check", check, permission="messages.read", errors=_NONE),
    Route("POST", f"{_AT}/repair", repair, permission="messages.append", errors=(*_CHANGE, StaleSequenceError)),
    Route("GET", f"{_AT}/turns", turns, permission="messages.read", errors=_NONE, run=True),
)
