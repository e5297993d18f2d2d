"""Anthropic's messages: `system` and `messages`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec

from alcove.messages.content import Part
from alcove.messages.formats.speech import SYSTEM, Item, Speech, drafted, missing, speeches, texts, value_text
from alcove.messages.model import Draft, Message
from alcove.messages.neutral import arguments_value, part_of

_BEGIN = "(continued)"


class Prompt(msgspec.Struct, frozen=True):
    """What goes into a request.

    Attributes:
        system: Text or blocks of text; `''` for none.
        messages: User and assistant in turn, the user first.
    """

    system: str | list[Item]
    messages: list[Item]

    def arguments(self) -> dict[str, Any]:
        """Return it as keyword arguments of `client.messages.create`: without an empty system."""
        return {"messages": self.messages} | ({"system": self.system} if self.system else {})


def to(messages: Iterable[Message | Draft]) -> Prompt:
    """Return messages as `system` and `messages`: neighbours of one role become one, results of tools come first."""
    said = speeches(messages)
    systems = [one for one in said if one.role in SYSTEM]
    found: list[Item] = []
    for speech in said:
        if speech.role in SYSTEM:
            continue
        role = "assistant" if speech.role == "assistant" else "user"
        content = _plain(speech) if speech.plain else _blocks(speech)
        if not content:
            continue
        if found and found[-1]["role"] == role:
            found[-1]["content"] = _as_blocks(found[-1]["content"]) + _as_blocks(content)
        else:
            found.append({"role": role, "content": content})
    if found and found[0]["role"] == "assistant":
        found.insert(0, {"role": "user", "content": _BEGIN})
    return Prompt(_system(systems), found)


def read(messages: Sequence[Item], system: str | Sequence[Mapping[str, Any]] | None = None) -> list[Draft]:
    """Return `messages`, or what was answered as one of them, as drafts; results of tools become messages of a tool."""
    found: list[Draft] = []
    if system:
        parts = system if isinstance(system, str) else [part_of(dict(one)) for one in system]
        found.append(Draft("system", cast("Any", parts)))
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            found.append(Draft(message["role"], content))
            continue
        parts = [part_of(dict(one)) for one in content]
        results = [one for one in parts if one["type"] == "tool_result"]
        others = [one for one in parts if one["type"] != "tool_result"]
        if results:
            found.append(Draft("tool", results))
        if others:
            found.append(drafted(message["role"], others, plain=False))
    return found


def _system(systems: Sequence[Speech]) -> str | list[Item]:
    if all(one.plain for one in systems):
        return "\n\n".join(text for one in systems if (text := texts(one.parts)))
    return [_text(part) for one in systems for part in one.parts if part["type"] == "text" and part.get("text")]


def _plain(speech: Speech) -> str | list[Item]:
    if any(part["type"] != "text" for part in speech.parts):
        return _blocks(speech)
    text = texts(speech.parts)
    return text if text.strip() else ""


def _as_blocks(content: str | list[Item]) -> list[Item]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _blocks(speech: Speech) -> list[Item]:
    blocks = [block for part in speech.parts if (block := _block(part, speech.role))]
    if speech.role == "assistant":
        # Thinking alone is not taken for an answer.
        said = any(block["type"] not in {"thinking", "redacted_thinking"} for block in blocks)
        # Nothing may come after a call but another.
        calls = [block for block in blocks if block["type"] == "tool_use"]
        return [block for block in blocks if block["type"] != "tool_use"] + calls if said else []
    return blocks


def _text(part: Part) -> Item:
    return {"type": "text", "text": part.get("text", ""), **_extra(part, "cache_control", "citations")}


def _extra(part: Part, *names: str) -> Item:
    return {name: part[name] for name in names if part.get(name) is not None}


def _block(part: Part, role: str) -> Item | None:
    match part["type"]:
        case "text":
            text = part.get("text")
            return _text(part) if isinstance(text, str) and text.strip() else None
        case "data":
            return {"type": "text", "text": value_text(part)}
        case "tool_call":
            return {
                "type": "tool_use",
                "id": part["id"],
                "name": part.get("name", ""),
                "input": arguments_value(part),
                **_extra(part, "cache_control", "caller"),
            }
        case "tool_result":
            return _result(part)
        case "reasoning":
            return _thinking(part) if role == "assistant" else None
        case "image" | "audio" | "file":
            return _media(part) if role != "assistant" else {"type": "text", "text": missing(part)}
        case _:
            return dict(part)


def _result(part: Part) -> Item:
    item: Item = {"type": "tool_result", "tool_use_id": part["tool_call_id"]}
    content = part.get("content")
    if isinstance(content, list):
        item["content"] = [block for one in cast("list[Part]", content) if (block := _block(one, "tool"))]
    elif content:
        item["content"] = content
    return item | _extra(part, "is_error", "cache_control")


def _thinking(part: Part) -> Item | None:
    if part.get("encrypted"):
        return {"type": "redacted_thinking", "data": part["encrypted"]}
    if part.get("signature"):
        return {"type": "thinking", "thinking": part.get("text", ""), "signature": part["signature"]}
    return None  # without a signature it is refused


def _media(part: Part) -> Item:
    kind = {"image": "image", "file": "document"}.get(cast("str", part["type"]))
    source: Item | None = None
    if isinstance(part.get("data"), str):
        source = {"type": "base64", "media_type": part.get("media_type") or "application/pdf", "data": part["data"]}
    elif isinstance(part.get("url"), str):
        source = {"type": "url", "url": part["url"]}
    elif part.get("file_id"):
        source = {"type": "file", "file_id": part["file_id"]}
    elif part["type"] == "file" and isinstance(part.get("text"), str):
        source = {"type": "text", "media_type": "text/plain", "data": part["text"]}
    elif isinstance(part.get("source"), dict):
        source = cast("Item", part["source"])
    if kind is None or source is None:
        return {"type": "text", "text": missing(part)}
    extra = _extra(part, "cache_control") | (_extra(part, "citations", "context") if kind == "document" else {})
    if kind == "document" and part.get("name"):
        extra["title"] = part["name"]
    return {"type": kind, "source": source, **extra}
