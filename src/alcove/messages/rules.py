"""What a message may be, and which turn it belongs to: plain functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from alcove import limits
from alcove.errors import InvalidError, TooLargeError
from alcove.messages import content as contents
from alcove.messages.model import Detail, Draft, Message, Span, Stored

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_encode = msgspec.json.Encoder().encode


def stored(draft: Draft) -> Stored:
    """Return a draft as it will be written, everything of it in the row.

    Raises:
        InvalidError: An unknown role, a part without a type, content that is not JSON, or a lone surrogate.
        TooLargeError: More than `limits.MESSAGE_BYTES` as UTF-8.
    """
    _check_role(draft)
    plain = isinstance(draft.content, str)
    content = draft.content if isinstance(draft.content, str) else _json(_parts(draft.content), "content")
    try:
        size = len(content.encode())
    except UnicodeEncodeError as error:
        raise _surrogate(error) from error
    return _sized(Stored(draft.role, contents.TEXT if plain else contents.PARTS, content, detail(draft)), size)


def packed(draft: Draft) -> tuple[Stored, Mapping[str, bytes]]:
    """Return a draft as it will be written, and what of it goes to the object store, by hash.

    Takes a while for large contents: it hashes and decodes them.

    Raises:
        InvalidError: What `stored` refuses.
        TooLargeError: More than `limits.MESSAGE_OBJECT_BYTES` in all, too.
    """
    _check_role(draft)
    content = draft.content if isinstance(draft.content, str) else _parts(draft.content)
    try:
        bundle = contents.pack(content)
        size = len(bundle.content.encode())
    except UnicodeEncodeError as error:
        raise _surrogate(error) from error
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidError(f"content is not JSON: {error}", field="content", remedy="use JSON values only") from error
    whole = sum(map(len, bundle.objects.values()))
    if whole > limits.MESSAGE_OBJECT_BYTES:
        raise TooLargeError(
            f"the message has {whole} bytes of images, files and long texts",
            field="content",
            limit=limits.MESSAGE_OBJECT_BYTES,
            remedy="split it, or write it to files of the workspace and append references",
        )
    return _sized(Stored(draft.role, bundle.format, bundle.content, detail(draft)), size), bundle.objects


def _check_role(draft: Draft) -> None:
    if draft.role not in _ROLES:
        raise InvalidError(
            f"role {draft.role!r} is unknown", field="role", remedy="use system, developer, user, assistant or tool"
        )


def _surrogate(error: UnicodeEncodeError) -> InvalidError:
    return InvalidError(
        f"content has a lone surrogate at character {error.start}", field="content", remedy="send valid Unicode"
    )


def detail(draft: Draft, *, summary_of: Span | None = None, repair_after: int | None = None) -> str:
    """Return the rarer fields of a message as they will be written, `''` when it has none.

    Raises:
        InvalidError: They are not JSON, or the usage has something else than counts.
    """
    if (
        summary_of is None
        and repair_after is None
        and not (draft.name or draft.tool_calls or draft.tool_call_id or draft.metadata or draft.usage)
    ):
        return ""
    for name, count in (draft.usage or {}).items():
        if type(count) is not int or count < 0:
            raise InvalidError(f"usage {name!r} is not a count", field="usage", remedy="use whole numbers from 0")
    rare = Detail(
        draft.name, draft.tool_calls, draft.tool_call_id, draft.metadata, draft.usage, summary_of, repair_after
    )
    return _json(rare, "message")


def _sized(message: Stored, size: int) -> Stored:
    size += len(message.detail)
    if size > limits.MESSAGE_BYTES:
        raise TooLargeError(
            f"the message is {size} bytes",
            field="content",
            limit=limits.MESSAGE_BYTES,
            remedy="write it to a file of the workspace and append a reference",
        )
    return message


def _parts(parts: object) -> list[contents.Part]:
    if not isinstance(parts, list) or not parts:
        raise InvalidError(
            "content is neither text nor a list of parts", field="content", remedy="give text, or at least one part"
        )
    for part in cast("list[object]", parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):  # pyright: ignore[reportUnknownMemberType]
            raise InvalidError(
                "a part of content is not an object with a type", field="content", remedy='e.g. {"type": "text"}'
            )
    known = cast("list[contents.Part]", parts)
    contents.check(known)
    return known


def _json(value: object, field: str) -> str:
    try:
        return _encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidError(f"{field} is not JSON: {error}", field=field, remedy="use JSON values only") from error


def check_count(drafts: Sequence[Draft]) -> None:
    """Refuse an append of none, or of more than `limits.APPEND_MESSAGES`. Raises InvalidError."""
    if not 0 < len(drafts) <= limits.APPEND_MESSAGES:
        raise InvalidError(
            f"{len(drafts)} messages in one append",
            field="messages",
            limit=limits.APPEND_MESSAGES,
            remedy=f"append 1 to {limits.APPEND_MESSAGES} at a time",
        )


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


def check_pin(message: Message, pinned: int) -> None:
    """Refuse to pin what could not stand alone in a window.

    Raises:
        InvalidError: A tool's message, one that calls tools, or one too many.
    """
    if message.role == "tool" or calls(message):
        raise InvalidError(
            f"message {message.seq} is a tool's, or calls one",
            field="seq",
            remedy="pin the message that says what the tool found; a call and its result stay with their round",
        )
    if pinned >= limits.PINNED_MESSAGES:
        raise InvalidError(
            f"{pinned} messages of this session are pinned",
            field="seq",
            limit=limits.PINNED_MESSAGES,
            remedy="unpin one: each goes into every window",
        )


def calls(message: Message) -> bool:
    """Return whether a message calls tools."""
    content = message.content
    return bool(message.detail.tool_calls) or (
        isinstance(content, list) and any(part["type"] in {"tool_call", "tool_use"} for part in content)
    )
