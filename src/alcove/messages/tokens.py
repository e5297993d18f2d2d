"""How many tokens a message is: as the provider reported it, or an estimate. Plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from alcove.messages import content as contents
from alcove.messages.model import Message

Counter: TypeAlias = Callable[[Message], int]
"""Returns the tokens of a message for one model."""

_OVERHEAD: Final = 4  # role and separators of a message, as providers count them
_MEDIA: Final = 1600  # an image of the largest size that providers do not shrink
_MEDIA_BYTES: Final = 64  # of a file or an audio for a token, beyond that


def estimate(message: Message) -> int:
    """Return about how many tokens a message is: four ASCII characters to one, others one each. On the high side."""
    if message.format == contents.TEXT:
        tokens = _of_text(message.raw)
    else:
        tokens = sum(_of_part(part) for part in _parts(message))
    if message.detail_json:
        if (reported := _reported(message)) is not None:
            return reported
        if "tool_calls" in message.detail_json:
            tokens += _of_text(msgspec.json.encode(message.detail.tool_calls).decode())
    return tokens + _OVERHEAD


def is_reported(message: Message) -> bool:
    """Return whether the provider said how many tokens a message is."""
    return "usage" in message.detail_json and _reported(message) is not None


def _reported(message: Message) -> int | None:
    usage = message.detail.usage
    return usage.get("output_tokens") if usage and message.role == "assistant" else None


def _parts(message: Message) -> list[contents.Part]:
    content = message.content
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _of_part(part: contents.Part) -> int:
    kind = contents.media_of(part)
    if kind:
        size = contents.media_bytes(part)
        return _MEDIA if kind == "image" else max(_MEDIA, size // _MEDIA_BYTES)
    size = part.get("size_bytes")
    if "object" in part and isinstance(size, int):
        return size // 3
    text = part.get("text")
    return _of_text(text if isinstance(text, str) and len(part) <= 2 else msgspec.json.encode(part).decode())


def _of_text(text: str) -> int:
    if text.isascii():
        return (len(text) + 3) // 4
    ascii_count = len(text.encode("ascii", "ignore"))
    return (ascii_count + 3) // 4 + len(text) - ascii_count
