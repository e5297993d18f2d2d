"""OpenAI's chat completions, and the many that speak it: `messages`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from alcove.messages.content import Part
from alcove.messages.formats.speech import SYSTEM, Item, Speech, data_url, missing, speeches, texts, value_text
from alcove.messages.model import Draft, Message
from alcove.messages.neutral import arguments_text, part_of

_AUDIO = {"audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/wav": "wav", "audio/x-wav": "wav"}


def to(messages: Iterable[Message | Draft]) -> list[Item]:
    """Return messages as `messages` of a chat completion. System messages at the beginning become one."""
    found: list[Item] = []
    for speech in speeches(messages):
        if speech.role in SYSTEM and found and len(found) == 1 and found[0]["role"] in SYSTEM:
            found[0]["content"] = _joined(found[0]["content"], _system(speech))
            continue
        found += _items(speech)
    return found


def read(messages: Sequence[Item]) -> list[Draft]:
    """Return `messages` of a chat completion, or what it answered, as drafts."""
    return [_draft(message) for message in messages]


def _draft(message: Item) -> Draft:
    content = message.get("content")
    parts: list[Part] | str = content if isinstance(content, str) else [part_of(one) for one in content or ()]
    if refusal := message.get("refusal"):
        own: list[Part] = [{"type": "text", "text": parts}] if isinstance(parts, str) and parts else list(parts or ())
        parts = [*own, {"type": "refusal", "refusal": refusal}]
    return Draft(
        "tool" if message["role"] == "function" else message["role"],
        parts or "",
        name=message.get("name"),
        tool_calls=list(message["tool_calls"]) if message.get("tool_calls") else None,
        tool_call_id=message.get("tool_call_id"),
    )


def _items(speech: Speech) -> list[Item]:
    match speech.role:
        case "assistant":
            item = _assistant(speech)
            return [item] if item else []
        case "tool":
            return [_result(part) for part in speech.parts if part["type"] == "tool_result"]
        case "user":
            content: Any = texts(speech.parts) if speech.plain else [_part(one) for one in speech.parts if _said(one)]
            return [_named(speech, {"role": "user", "content": content})] if content else []
        case _:
            content = _system(speech)
            return [_named(speech, {"role": speech.role, "content": content})] if content else []


def _named(speech: Speech, item: Item) -> Item:
    return {**item, "name": speech.name} if speech.name else item


def _said(part: Part) -> bool:
    return part["type"] not in {"reasoning", "tool_call", "tool_result"}


def _system(speech: Speech) -> Any:
    return texts(speech.parts) if speech.plain else [_text(one) for one in speech.parts if part_says(one)]


def part_says(part: Part) -> bool:
    """Return whether a part is a text with something in it."""
    return part["type"] == "text" and bool(part.get("text"))


def _text(part: Part) -> Item:
    return {"type": "text", "text": part.get("text", "")}


def _joined(first: Any, second: Any) -> Any:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [
        *([{"type": "text", "text": first}] if isinstance(first, str) else first),
        *([{"type": "text", "text": second}] if isinstance(second, str) else second),
    ]


def _assistant(speech: Speech) -> Item | None:
    said = [one for one in speech.parts if _said(one)]
    calls = [_call(one) for one in speech.parts if one["type"] == "tool_call"]
    plain = all(one["type"] == "text" and one.keys() == {"type", "text"} for one in said)
    content: Any
    if plain and (speech.plain or len(said) <= 1):
        content = texts(said) or None
    else:
        content = [_assistant_part(one) for one in said]
    if not content and not calls:
        return None
    item: Item = {"role": "assistant"}
    if content:
        item["content"] = content
    if calls:
        item["tool_calls"] = calls
    return _named(speech, item)


def _assistant_part(part: Part) -> Item:
    match part["type"]:
        case "text":
            return _text(part)
        case "image" | "audio" | "file":
            return {"type": "text", "text": missing(part)}  # an assistant's message takes none
        case "data":
            return {"type": "text", "text": value_text(part)}
        case _:
            return part


def _call(part: Part) -> Item:
    if part.get("custom"):
        return {
            "id": part["id"],
            "type": "custom",
            "custom": {"name": part.get("name", ""), "input": part.get("arguments", "")},
        }
    return {
        "id": part["id"],
        "type": "function",
        "function": {"name": part.get("name", ""), "arguments": arguments_text(part)},
    }


def _result(part: Part) -> Item:
    content = part.get("content", "")
    if isinstance(content, list):
        said = cast("list[Part]", content)
        # A tool's message takes text only.
        content = cast(
            "Any", [_text(one) if one["type"] == "text" else {"type": "text", "text": _words(one)} for one in said]
        )
    return {"role": "tool", "tool_call_id": part["tool_call_id"], "content": content or "(no output)"}


def _words(part: Part) -> str:
    return value_text(part) if part["type"] == "data" else missing(part)


def _part(part: Part) -> Item:  # noqa: PLR0911 - one line for each kind of part
    url = data_url(part)
    match part["type"]:
        case "text":
            return _text(part)
        case "data":
            return {"type": "text", "text": value_text(part)}
        case "image" if url:
            detail = {"detail": part["detail"]} if "detail" in part else {}
            return {"type": "image_url", "image_url": {"url": url, **detail}}
        case "audio" if isinstance(part.get("data"), str):
            form = _AUDIO.get(str(part.get("media_type")), str(part.get("media_type")).rpartition("/")[2])
            return {"type": "input_audio", "input_audio": {"data": part["data"], "format": form}}
        case "file" if part.get("file_id"):
            return {"type": "file", "file": {"file_id": part["file_id"]}}
        case "file" if isinstance(part.get("data"), str):
            name = {"filename": part["name"]} if part.get("name") else {}
            return {"type": "file", "file": {**name, "file_data": url}}
        case "file" if isinstance(part.get("text"), str):
            return _text(part)
        case "image" | "audio" | "file":
            return {"type": "text", "text": missing(part)}
        case _:
            return part
