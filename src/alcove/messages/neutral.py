"""A message without any provider's accent: the parts that it has, however they are spelled. Plain functions.

Histories keep what they are given, and are given what providers send: tool calls in a field or in parts, images by a
dozen spellings. Formats, repair and search read them through `parts_of`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias, cast

import msgspec

from alcove.messages.content import Part
from alcove.values import Json

_DATA_URL: Final = re.compile(r"data:([^;,]*)(?:;[^,]*?)?;base64,(.*)", re.DOTALL)
_AUDIO: Final = {"mp3": "audio/mpeg", "wav": "audio/wav"}


Reader: TypeAlias = Callable[[Part], Part]


def parts_of(
    role: str, content: str | list[Part], calls: list[Part] | None = None, answers: str | None = None
) -> list[Part]:
    """Return the parts of a message in Alcove's spelling; those of unknown types as they are, empty texts left out.

    Args:
        role: Who speaks.
        content: Text or parts.
        calls: Its tool calls, as OpenAI's chat has them.
        answers: Which call it answers.
    """
    if isinstance(content, str):
        own: list[Part] = [{"type": "text", "text": content}] if content else []
    else:
        own = [one for part in content if (one := part_of(part)) != {"type": "text", "text": ""}]
    if role == "tool" and not any(part["type"] == "tool_result" for part in own):
        result: Json = content if isinstance(content, str) else cast("Json", own)
        own = [{"type": "tool_result", "tool_call_id": answers or "", "content": result}]
    own += [_call(one) for one in calls or ()]
    return own


def part_of(part: Part) -> Part:
    """Return a part in Alcove's spelling, or as it is."""
    kind = cast("str", part["type"])
    if kind in {"text", "input_text", "output_text"}:
        return {**part, "type": "text"} if kind != "text" else part
    read = _READERS.get(kind)
    return read(part) if read else part


def _call(one: Part) -> Part:
    """Read an entry of `tool_calls`."""
    if isinstance(function := one.get("function"), dict):
        return _kept(one, {"type": "tool_call", "id": one.get("id", ""), "name": function.get("name", "")}) | {
            "arguments": function.get("arguments", "{}")
        }
    if isinstance(custom := one.get("custom"), dict):
        return {
            "type": "tool_call",
            "id": one.get("id", ""),
            "name": custom.get("name", ""),
            "arguments": custom.get("input", ""),
            "custom": True,
        }
    return {"id": "", "name": "", "arguments": {}, **one, "type": "tool_call"}


def _kept(part: Part, known: Part) -> Part:
    return known | {name: value for name, value in part.items() if name not in {*known, "function", "index"}}


def _media(kind: str, value: Json, extra: Part) -> Part:
    """Return an image, audio or file by its URL: the bytes in it, when it is a data URL."""
    if isinstance(value, str) and (data := _DATA_URL.fullmatch(value)):
        return {"type": kind, "media_type": data[1], "data": data[2], **extra}
    return {"type": kind, "url": value, **extra}


def _some(part: Part, *names: str) -> Part:
    return {name: part[name] for name in names if part.get(name) is not None}


def _image_url(part: Part) -> Part:
    value = part.get("image_url")
    if isinstance(value, dict):
        return _media("image", value.get("url"), _some(value, "detail") | _some(part, "object", "size_bytes"))
    return _media("image", value, _some(part, "object", "size_bytes"))


def _input_image(part: Part) -> Part:
    extra = _some(part, "detail", "object", "size_bytes")
    if part.get("file_id"):
        return {"type": "image", "file_id": part["file_id"], **extra}
    return _media("image", part.get("image_url"), extra)


def _input_file(part: Part) -> Part:
    return _filed(part, part)


def _redacted(part: Part) -> Part:
    return {"type": "reasoning", "encrypted": part.get("data")}


def _sourced(kind: str) -> Reader:
    def read(part: Part) -> Part:
        source = part.get("source")
        if not isinstance(source, dict):
            return {**part, "type": kind}
        extra = {name: value for name, value in part.items() if name not in {"type", "source"}}
        if "title" in extra:
            extra["name"] = extra.pop("title")
        match source.get("type"):
            case "base64":
                found: Part = {"media_type": source.get("media_type"), "data": source.get("data")}
            case "url":
                found = {"url": source.get("url")}
            case "file":
                found = {"file_id": source.get("file_id")}
            case "text":
                found = {"media_type": "text/plain", "text": source.get("data")}
            case _:
                found = {"source": source}
        return {"type": kind, **found, **extra}

    return read


def _input_audio(part: Part) -> Part:
    value = part.get("input_audio")
    if not isinstance(value, dict):
        return {**part, "type": "audio"}
    form = value.get("format")
    return {
        "type": "audio",
        "media_type": _AUDIO.get(form, f"audio/{form}") if isinstance(form, str) else "audio/wav",
        **_some(value, "data"),
        **_some(part, "object", "size_bytes"),
    }


def _file(part: Part) -> Part:
    value = part.get("file")
    return _filed(value, part) if isinstance(value, dict) else part


def _filed(value: Part, part: Part) -> Part:
    extra = _some(part, "object", "size_bytes", "detail")
    if value.get("filename"):
        extra["name"] = value["filename"]
    if value.get("file_id"):
        return {"type": "file", "file_id": value["file_id"], **extra}
    return _media("file", value.get("file_data") or value.get("file_url"), extra)


def _tool_use(part: Part) -> Part:
    rest = {name: value for name, value in part.items() if name not in {"type", "id", "name", "input"}}
    return {
        "type": "tool_call",
        "id": part.get("id", ""),
        "name": part.get("name", ""),
        "arguments": part.get("input", {}),
        **rest,
    }


def _tool_result(part: Part) -> Part:
    found = {**part}
    if "tool_use_id" in found:
        found["tool_call_id"] = found.pop("tool_use_id")
    if isinstance(inner := found.get("content"), list):
        found["content"] = [
            part_of(one) if isinstance(one, dict) and isinstance(one.get("type"), str) else one for one in inner
        ]
    return found


def _thinking(part: Part) -> Part:
    return {"type": "reasoning", "text": part.get("thinking", ""), **_some(part, "signature")}


_READERS: Final[Mapping[str, Reader]] = {
    "image": _sourced("image"),
    "document": _sourced("file"),
    "image_url": _image_url,
    "input_image": _input_image,
    "input_audio": _input_audio,
    "file": _file,
    "input_file": _input_file,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "function": _call,
}


def says_something(part: Part) -> bool:
    """Return whether a provider takes a part for content: reasoning alone is none, and neither is a blank text."""
    if part["type"] == "text":
        text = part.get("text")
        return not isinstance(text, str) or bool(text.strip())
    return part["type"] != "reasoning"


def arguments_text(call: Part) -> str:
    """Return the arguments of a tool call as JSON text, as they came when they came so."""
    arguments = call.get("arguments", {})
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()


def arguments_value(call: Part) -> dict[str, Json]:
    """Return the arguments of a tool call as an object; what is none becomes one, under `arguments`."""
    arguments: Json = call.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = cast("Json", msgspec.json.decode(arguments or "{}"))
        except msgspec.DecodeError:
            return {"arguments": arguments}
    return arguments if isinstance(arguments, dict) else {"arguments": arguments}
