"""What a message may be, and which turn it belongs to: plain functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from alcove import limits
from alcove.errors import InvalidError, TooLargeError
from alcove.messages.model import Detail, Draft, Stored

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_encode = msgspec.json.Encoder().encode


def stored(draft: Draft) -> Stored:
    """Return a draft as it will be written.

    Raises:
        InvalidError: An unknown role, a part without a type, content that is not JSON, or a lone surrogate.
        TooLargeError: More than `limits.MESSAGE_BYTES` as UTF-8.
    """
    if draft.role not in _ROLES:
        raise InvalidError(
            f"role {draft.role!r} is unknown", field="role", remedy="use system, developer, user, assistant or tool"
        )
    plain = isinstance(draft.content, str)
    content = draft.content if isinstance(draft.content, str) else _parts(draft.content)
    try:
        size = len(content.encode())
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"content has a lone surrogate at character {error.start}", field="content", remedy="send valid Unicode"
        ) from error
    detail = ""
    if draft.name or draft.tool_calls or draft.tool_call_id or draft.metadata:
        rare = Detail(draft.name, draft.tool_calls, draft.tool_call_id, draft.metadata)
        detail = _json(rare, "message")
        size += len(detail)
    if size > limits.MESSAGE_BYTES:
        raise TooLargeError(
            f"the message is {size} bytes",
            field="content",
            limit=limits.MESSAGE_BYTES,
            remedy="write it to a file of the workspace and append a reference",
        )
    return Stored(draft.role, 0 if plain else 1, content, detail)


def _parts(parts: object) -> str:
    if not isinstance(parts, list) or not parts:
        raise InvalidError(
            "content is neither text nor a list of parts", field="content", remedy="give text, or at least one part"
        )
    for part in cast("list[object]", parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):  # pyright: ignore[reportUnknownMemberType]
            raise InvalidError(
                "a part of content is not an object with a type", field="content", remedy='e.g. {"type": "text"}'
            )
    return _json(cast("object", parts), "content")


def _json(value: object, field: str) -> str:
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidError(f"{field} is not JSON: {error}", field=field, remedy="use JSON values only") from error


def check_drafts(drafts: Sequence[Draft]) -> list[Stored]:
    """Return drafts as they will be written.

    Raises:
        InvalidError: None, or more than `limits.APPEND_MESSAGES`, or one that may not be stored.
    """
    if not 0 < len(drafts) <= limits.APPEND_MESSAGES:
        raise InvalidError(
            f"{len(drafts)} messages in one append",
            field="messages",
            limit=limits.APPEND_MESSAGES,
            remedy=f"append 1 to {limits.APPEND_MESSAGES} at a time",
        )
    return [stored(draft) for draft in drafts]


def turns_opened(messages: Sequence[Stored]) -> int:
    """Return how many turns an append opens: each user message opens one."""
    return sum(1 for message in messages if message.role == "user")


def placed(messages: Sequence[Stored], turn: int) -> list[int]:
    """Return the turn of each message, when `turn` is the last one before them: a user message starts the next."""
    places: list[int] = []
    for message in messages:
        turn += message.role == "user"
        places.append(turn)
    return places
