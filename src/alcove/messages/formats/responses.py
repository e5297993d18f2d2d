"""OpenAI's responses: `input`, and the `output` that becomes input in the next turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from alcove.messages.content import Part
from alcove.messages.formats.speech import Item, Speech, data_url, drafted, missing, speeches, texts, value_text
from alcove.messages.model import Draft, Message
from alcove.messages.neutral import arguments_text, part_of

_ASSISTANT = frozenset({"text", "refusal"})


def to(messages: Iterable[Message | Draft]) -> list[Item]:
    """Return messages as `input` of a response: messages, reasoning, calls and their outputs, in order."""
    found: list[Item] = []
    for speech in speeches(messages):
        if speech.role == "assistant":
            found += _assistant(speech)
        elif speech.role == "tool":
            found += [_output(part) for part in speech.parts if part["type"] == "tool_result"]
        else:
            said = [one for one in speech.parts if one["type"] not in {"reasoning", "tool_call", "tool_result"}]
            content: Any = texts(said) if speech.plain else [_part(one) for one in said]
            if content:
                found.append({"role": speech.role, "content": content})
    return found


def read(items: Sequence[Item]) -> list[Draft]:
    """Return items of `input` or `output` as drafts; an assistant's that follow each other become one."""
    found: list[Draft] = []
    own: list[Part] = []  # what the assistant has said since another spoke
    for item in items:
        if (parts := _assistant_parts(item)) is not None:
            own += parts
            continue
        if own:
            found.append(drafted("assistant", own))
            own = []
        found.append(_draft(item))
    if own:
        found.append(drafted("assistant", own))
    return found


def _assistant_parts(item: Item) -> list[Part] | None:
    """Return the parts of an item that is the assistant's, None for another's."""
    match item.get("type", "message"):
        case "message":
            if item["role"] != "assistant":
                return None
            content: Any = item["content"]
            if isinstance(content, str):
                content = [{"type": "text", "text": content}]
            parts = [part_of(one) for one in cast("list[Part]", content)]
            marks = {name: item[name] for name in ("id", "status", "phase") if item.get(name) is not None}
            return [{**one, "item": marks} for one in parts] if marks else parts
        case "function_call":
            rest = {
                name: value
                for name, value in item.items()
                if name not in {"type", "call_id", "name", "arguments", "id"}
            }
            call: Part = {
                "type": "tool_call",
                "id": item["call_id"],
                "name": item["name"],
                "arguments": item["arguments"],
                **rest,
            }
            return [{**call, "item_id": item["id"]} if item.get("id") else call]
        case "reasoning":
            return [{**item, "type": "reasoning", "text": texts(item.get("summary") or ())}]
        case "function_call_output":
            return None
        case _:
            return [dict(item)]


def _draft(item: Item) -> Draft:
    if item.get("type") == "function_call_output":
        output = item["output"]
        content = output if isinstance(output, str) else [part_of(one) for one in output]
        result: Part = {"type": "tool_result", "tool_call_id": item["call_id"], "content": cast("Any", content)}
        rest = {name: value for name, value in item.items() if name in {"id", "status"} and value is not None}
        return Draft("tool", [{**result, "item": rest} if rest else result])
    content = item["content"]
    if isinstance(content, str):
        return Draft(item["role"], content)
    return drafted(item["role"], [part_of(one) for one in content], plain=False)


def _assistant(speech: Speech) -> list[Item]:
    found: list[Item] = []
    # Texts first: between a call and its output nothing may be said.
    for part in sorted(speech.parts, key=_is_call) if any(map(_is_call, speech.parts)) else speech.parts:
        kind = part["type"]
        if kind == "tool_call":
            found.append(_call(part))
        elif kind == "reasoning":
            # Only reasoning of this very form means anything to the provider.
            if "summary" in part:
                found.append({name: value for name, value in part.items() if name != "text"})
        elif kind in _ASSISTANT:
            _say(found, part)
        elif kind in {"image", "audio", "file", "data"}:
            _say(found, {"type": "text", "text": value_text(part) if kind == "data" else missing(part)})
        else:
            found.append(dict(part))
    return found


def _is_call(part: Part) -> bool:
    return part["type"] == "tool_call"


def _say(found: list[Item], part: Part) -> None:
    """Add a text to the assistant's last message, or begin one."""
    marks = cast("Item", part.get("item") or {})
    said: Item = {name: value for name, value in part.items() if name != "item"}
    if said["type"] == "text":
        said = {"annotations": [], **said, "type": "output_text"}
    last: Item = found[-1] if found else {}
    if not marks.get("id"):
        # Only an output that the provider gave has an id, and only with one it has parts.
        found.append({"role": "assistant", "content": said.get("text") or said.get("refusal") or ""})
    elif last.get("role") == "assistant" and last.get("id") == marks["id"]:
        content = cast("list[Item]", last["content"])
        content.append(said)
    else:
        found.append({"type": "message", "role": "assistant", "status": "completed", **marks, "content": [said]})


def _call(part: Part) -> Item:
    item: Item = {
        "type": "function_call",
        "call_id": part["id"],
        "name": part.get("name", ""),
        "arguments": arguments_text(part),
    }
    if part.get("item_id"):
        item["id"] = part["item_id"]
    if part.get("status"):
        item["status"] = part["status"]
    return item


def _output(part: Part) -> Item:
    content = part.get("content", "")
    output: Any = [_part(one) for one in cast("list[Part]", content)] if isinstance(content, list) else content
    marks = cast("Item", part.get("item") or {})
    return {"type": "function_call_output", "call_id": part["tool_call_id"], "output": output or "(no output)", **marks}


def _part(part: Part) -> Item:  # noqa: PLR0911 - one line for each kind of part
    url = data_url(part)
    match part["type"]:
        case "text":
            return {"type": "input_text", "text": part.get("text", "")}
        case "data":
            return {"type": "input_text", "text": value_text(part)}
        case "image" if url or part.get("file_id"):
            place = {"file_id": part["file_id"]} if part.get("file_id") else {"image_url": url}
            return {"type": "input_image", "detail": part.get("detail", "auto"), **place}
        case "file" if part.get("file_id"):
            return {"type": "input_file", "file_id": part["file_id"]}
        case "file" if isinstance(part.get("data"), str):
            name = {"filename": part["name"]} if part.get("name") else {}
            return {"type": "input_file", **name, "file_data": url}
        case "file" if url:
            return {"type": "input_file", "file_url": url}
        case "file" if isinstance(part.get("text"), str):
            return {"type": "input_text", "text": part["text"]}
        case "image" | "audio" | "file":
            return {"type": "input_text", "text": missing(part)}
        case _:
            return dict(part)
