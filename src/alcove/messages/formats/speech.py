"""What every form starts from: who says which parts, neighbours of one speaker together. Plain functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, cast

import msgspec

from alcove.messages.content import Part
from alcove.messages.model import Draft, Message
from alcove.messages.neutral import parts_of, says_something
from alcove.values import Json

Item: TypeAlias = dict[str, Any]
"""One element of a provider's list."""

SYSTEM = frozenset({"system", "developer"})


class Speech(msgspec.Struct):
    """What one speaker says at once.

    Attributes:
        role: `system`, `developer`, `user`, `assistant` or `tool`.
        parts: In Alcove's spelling.
        name: The speaker's name.
        plain: Whether it was text and no list of parts.
    """

    role: str
    parts: list[Part]
    name: str | None = None
    plain: bool = False


def speeches(messages: Iterable[Message | Draft]) -> list[Speech]:
    """Return messages as speeches; an assistant's that follow each other as one, as are results of tools."""
    found: list[Speech] = []
    for message in messages:
        detail = message.detail if isinstance(message, Message) else message
        content = message.content
        parts = parts_of(message.role, content, detail.tool_calls, detail.tool_call_id)
        role = message.role
        # Only an assistant calls, and only others answer: `repair` finds those that do not.
        alien = "tool_result" if role == "assistant" else "tool_call"
        parts = [part for part in parts if part["type"] != alien]
        if role == "user" and any(part["type"] == "tool_result" for part in parts):
            found.append(Speech("tool", [part for part in parts if part["type"] == "tool_result"]))
            parts = [part for part in parts if part["type"] != "tool_result"]
        # What is blank is refused everywhere.
        if not parts or (role != "assistant" and not any(map(says_something, parts))):
            continue
        last = found[-1] if found else None
        if last and last.role == role and role in {"assistant", "tool"} and last.name == detail.name:
            last.parts += parts
            last.plain = False
        else:
            found.append(Speech(role, parts, detail.name, plain=isinstance(content, str)))
    return found


def texts(parts: Iterable[Json]) -> str:
    """Return the texts of parts, one after the other."""
    return "".join(text for part in parts if isinstance(part, dict) and isinstance(text := part.get("text"), str))


def value_text(part: Part) -> str:
    """Return a data part as JSON text, for a model."""
    return msgspec.json.encode(part.get("value", part.get("data"))).decode()


def data_url(part: Part) -> str | None:
    """Return where the bytes of an image, audio or file are, as a URL; None when only an id or a reference is known."""
    if isinstance(data := part.get("data"), str):
        return f"data:{part.get('media_type') or 'application/octet-stream'};base64,{data}"
    url = part.get("url")
    return url if isinstance(url, str) else None


def missing(part: Part) -> str:
    """Return in words what stands for a part whose bytes are not here."""
    name = part.get("name")
    return f"[{part['type']}{f' {name}' if isinstance(name, str) else ''}, not shown here]"


def drafted(role: str, parts: Sequence[Part], *, plain: bool = True, name: str | None = None) -> Draft:
    """Return a draft; as text, when its parts are one text and nothing else."""
    if plain and len(parts) == 1 and parts[0].keys() == {"type", "text"} and parts[0]["type"] == "text":
        return Draft(cast("Any", role), cast("str", parts[0]["text"]), name=name)
    return Draft(cast("Any", role), list(parts), name=name)
