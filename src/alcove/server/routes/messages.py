"""Messages and turns."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from alcove import limits
from alcove.errors import (
    IdempotencyError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleSequenceError,
    TooLargeError,
)
from alcove.messages.model import Draft
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import (
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
    """

    after: int | Unset = UNSET
    before: int | Unset = UNSET
    limit: MessageLimit = limits.PAGE_DEFAULT
    hidden: bool = False


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


class Rounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the conversation.

    Attributes:
        rounds: How many of the last; a round is a user's message and what follows it.
        before: Only messages with a lower `seq`.
    """

    rounds: Annotated[int, msgspec.Meta(ge=1, le=limits.WINDOW_ROUNDS)] = 10
    before: int | Unset = UNSET


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
        call.session_id, after=given(query.after), before=given(query.before), limit=query.limit, hidden=query.hidden
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


async def window(call: Call, query: Rounds) -> MessageList:
    """Show the last rounds as a model is shown them: without failed and lost turns."""
    await call.session()
    shown = await call.hub.messages.window(call.session_id, rounds=query.rounds, before=given(query.before))
    return MessageList(messages=[message_view(one) for one in shown])


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
    Route("GET", f"{_AT}/turns", turns, permission="messages.read", errors=_NONE, run=True),
)
