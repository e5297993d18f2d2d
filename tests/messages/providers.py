"""What each provider takes, as its documentation says: validators that know nothing of how we convert.

The shapes are checked by the providers' own typed packages, the order by rules written down from their documentation.
"""

from __future__ import annotations

from typing import Any, cast

from anthropic.types import MessageParam, TextBlockParam
from openai.types.chat import ChatCompletionMessageParam
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter

_CHAT = TypeAdapter(list[ChatCompletionMessageParam])
_RESPONSES = TypeAdapter(list[ResponseInputItemParam])
_ANTHROPIC = TypeAdapter(list[MessageParam])
_SYSTEM = TypeAdapter(list[TextBlockParam])

Item = dict[str, Any]


def _used(value: object) -> object:
    """Go through everything: pydantic looks at an `Iterable` only when it is used."""
    if isinstance(value, dict):
        return {name: _used(one) for name, one in cast("Item", value).items()}
    if isinstance(value, str | bytes | int | float | bool) or value is None:
        return value
    return [_used(one) for one in cast("list[object]", value)]


def check_chat(messages: list[Item]) -> None:
    """Raise AssertionError or pydantic's error for what chat completions would refuse."""
    _used(_CHAT.validate_python(messages))
    waiting: list[str] = []
    for at, message in enumerate(messages):
        role = message["role"]
        if role == "tool":
            assert message["tool_call_id"] in waiting, "a tool's message answers a call of the assistant's just before"
            waiting.remove(message["tool_call_id"])
            assert message["content"]
            continue
        assert not waiting, "every call is answered before anybody else speaks"
        if role in {"system", "developer"}:
            assert at == 0, "one system message, the first"
        assert message.get("content") or message.get("tool_calls"), "nobody says nothing"
        if role == "user":
            assert str(message["content"]).strip()
        calls = [call["id"] for call in message.get("tool_calls", ())]
        assert all(calls)
        assert len(set(calls)) == len(calls)
        assert all((call.get("function") or call.get("custom"))["name"] for call in message.get("tool_calls", ()))
        waiting = calls
    assert not waiting


def check_responses(items: list[Item]) -> None:
    """Raise for what the responses API would refuse."""
    _used(_RESPONSES.validate_python(items))
    called: list[str] = []
    answered: list[str] = []
    for item in items:
        match item.get("type", "message"):
            case "message":
                assert item["content"]
                assert called == answered or not (set(called) - set(answered)), "calls are answered before a message"
            case "function_call":
                assert item["call_id"]
                assert item["name"]
                assert item["call_id"] not in called
                called.append(item["call_id"])
            case "function_call_output":
                assert item["call_id"] in called, "no output without a call before it"
                assert item["call_id"] not in answered
                answered.append(item["call_id"])
            case _:
                continue
    assert sorted(called) == sorted(answered), "no call without its output"


def check_anthropic(system: str | list[Item], messages: list[Item]) -> None:
    """Raise for what the messages API would refuse."""
    _used(_ANTHROPIC.validate_python(messages))
    if isinstance(system, list):
        _used(_SYSTEM.validate_python(system))
    waiting: list[str] = []
    used: list[str] = []
    for at, message in enumerate(messages):
        assert message["role"] == ("user", "assistant")[at % 2], "the user first, then by turns"
        content = message["content"]
        assert content
        if isinstance(content, str):
            assert content.strip(), "text is not blank"
            assert not waiting
            continue
        results = [block["tool_use_id"] for block in content if block["type"] == "tool_result"]
        kinds = [block["type"] == "tool_result" for block in content]
        assert kinds == sorted(kinds, reverse=True), "results come first"
        assert sorted(results) == sorted(waiting), "the calls of the message before are answered, and no others"
        for block in content:
            if block["type"] == "text":
                assert block["text"].strip()
        calls = [block["id"] for block in content if block["type"] == "tool_use"]
        assert all(calls)
        assert not set(calls) & set(used)
        assert len(set(calls)) == len(calls)
        assert not calls or message["role"] == "assistant"
        assert all(block["name"] for block in content if block["type"] == "tool_use")
        said = [block for block in content if block["type"] not in {"thinking", "redacted_thinking"}]
        assert said
        used += calls
        waiting = calls
    assert not waiting
