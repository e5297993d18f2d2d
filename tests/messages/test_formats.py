"""Histories go to each provider's form and come back the same; the shapes are the providers' own."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types import Message as AnthropicMessage
from hypothesis import given, settings, strategies as st
from openai.types.chat import ChatCompletionMessage
from openai.types.responses import Response

from alcove.messages.formats import anthropic, chat, responses
from alcove.messages.model import Draft
from messages.providers import check_anthropic, check_chat, check_responses

Item = dict[str, Any]
PNG = "iVBORw0KGgo="
PDF: Item = {"type": "base64", "media_type": "application/pdf", "data": PNG}
_TEXTS = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
_VALUES = st.dictionaries(st.sampled_from(["path", "n"]), st.one_of(st.integers(0, 9), _TEXTS), max_size=2)


def _text(text: str) -> Item:
    return {"type": "text", "text": text}


def _input_text(text: str) -> Item:
    return {"type": "input_text", "text": text}


def _user(content: str | list[Item]) -> Item:
    return {"role": "user", "content": content}


def _anthropic(drafts: list[Draft]) -> list[Item]:
    return anthropic.to(drafts).messages


def _read_prompt(prompt: tuple[str, list[Item]]) -> list[Draft]:
    return anthropic.read(prompt[1], prompt[0])


def _chat_user() -> st.SearchStrategy[Item]:
    parts = st.one_of(
        st.builds(_text, _TEXTS),
        st.just({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}),
        st.just({"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}),
        st.just({"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}),
        st.just({"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PNG}"}}),
        st.just({"type": "file", "file": {"file_id": "file-1"}}),
    )
    return st.builds(_user, st.one_of(_TEXTS, st.lists(parts, min_size=1, max_size=3)))


@st.composite
def chats(draw: st.DrawFn) -> list[Item]:
    """Chat completions as they are sent: what a model said, and what tools answered."""
    found: list[Item] = [{"role": draw(st.sampled_from(["system", "developer"])), "content": draw(_TEXTS)}]
    for turn in range(draw(st.integers(1, 3))):
        found.append(draw(_chat_user()))
        calls = [
            {
                "id": f"c{turn}_{at}",
                "type": "function",
                "function": {"name": "look", "arguments": draw(st.sampled_from(["{}", '{"a":  1}', "not json"]))},
            }
            for at in range(draw(st.integers(0, 2)))
        ]
        if calls:
            said = {"content": draw(_TEXTS)} if draw(st.booleans()) else {}
            found.append({"role": "assistant", **said, "tool_calls": calls})
            found += [{"role": "tool", "tool_call_id": call["id"], "content": draw(_TEXTS)} for call in calls]
        found.append({"role": "assistant", "content": draw(_TEXTS)})
    return found


@st.composite
def inputs(draw: st.DrawFn) -> list[Item]:
    """Input of responses: messages, reasoning, calls and outputs."""
    found: list[Item] = []
    for turn in range(draw(st.integers(1, 3))):
        parts = st.one_of(
            st.builds(_input_text, _TEXTS),
            st.just({"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PNG}"}),
            st.just({"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PNG}"}),
        )
        found.append({"role": "user", "content": draw(st.one_of(_TEXTS, st.lists(parts, min_size=1, max_size=3)))})
        if draw(st.booleans()):
            summary = [{"type": "summary_text", "text": "hm"}]
            found.append({"type": "reasoning", "id": f"rs_{turn}", "summary": summary, "encrypted_content": "gAAA"})
        if draw(st.booleans()):
            found.append(
                {"type": "function_call", "call_id": f"c{turn}", "name": "look", "arguments": "{}", "id": f"fc_{turn}"}
            )
            found.append({"type": "function_call_output", "call_id": f"c{turn}", "output": draw(_TEXTS)})
        text = {"type": "output_text", "text": draw(_TEXTS), "annotations": []}
        found.append(
            {"type": "message", "role": "assistant", "id": f"msg_{turn}", "status": "completed", "content": [text]}
        )
    return found


@st.composite
def prompts(draw: st.DrawFn) -> tuple[str, list[Item]]:
    """Anthropic's system and messages."""
    found: list[Item] = []
    results: list[Item] = []
    for turn in range(draw(st.integers(1, 3))):
        parts = st.one_of(
            st.builds(_text, _TEXTS),
            st.just({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}),
            st.just({"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}),
            st.just({"type": "document", "title": "a", "source": PDF}),
            st.just({"type": "text", "text": "kept", "cache_control": {"type": "ephemeral"}}),
        )  # fmt: skip
        blocks = draw(st.lists(parts, min_size=1, max_size=2))
        found.append(
            {"role": "user", "content": draw(_TEXTS) if not results and draw(st.booleans()) else results + blocks}
        )
        thinking = [{"type": "thinking", "thinking": "hm", "signature": "s"}] if draw(st.booleans()) else []
        hidden = [{"type": "redacted_thinking", "data": "xx"}] if draw(st.booleans()) else []
        calls = [
            {"type": "tool_use", "id": f"t{turn}_{at}", "name": "look", "input": draw(_VALUES)}
            for at in range(draw(st.integers(0, 2)))
        ]
        text = [{"type": "text", "text": draw(_TEXTS)}]
        found.append({"role": "assistant", "content": [*thinking, *hidden, *text, *calls]})
        results = [
            {"type": "tool_result", "tool_use_id": call["id"], "content": draw(_TEXTS), "is_error": draw(st.booleans())}
            for call in calls
        ]
    if results:
        found.append({"role": "user", "content": results})
    return draw(_TEXTS), found


@given(chats())
@settings(max_examples=150)
def test_chat_completions_come_back_the_same(messages: list[Item]) -> None:
    check_chat(messages)
    assert chat.to(chat.read(messages)) == messages


@given(inputs())
@settings(max_examples=150)
def test_responses_come_back_the_same(items: list[Item]) -> None:
    check_responses(items)
    assert responses.to(responses.read(items)) == items


@given(prompts())
@settings(max_examples=150)
def test_anthropic_prompts_come_back_the_same(prompt: tuple[str, list[Item]]) -> None:
    system, messages = prompt
    check_anthropic(system, messages)
    found = anthropic.to(anthropic.read(messages, system))
    assert (found.system, found.messages) == (system, messages)


@given(st.one_of(chats().map(chat.read), inputs().map(responses.read), prompts().map(_read_prompt)))
@settings(max_examples=150)  # fmt: skip
def test_what_one_provider_said_another_takes(drafts: list[Draft]) -> None:
    check_chat(chat.to(drafts))
    check_responses(responses.to(drafts))
    prompt = anthropic.to(drafts)
    check_anthropic(prompt.system, prompt.messages)


def test_what_a_client_gets_is_read_as_it_is() -> None:
    """Answers of the providers' typed packages, dumped as they dump them."""
    answer = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
        }
    )
    [draft] = chat.read([answer.model_dump(exclude_none=True)])
    assert chat.to([draft]) == [{"role": "assistant", "tool_calls": answer.model_dump()["tool_calls"]}]
    said = AnthropicMessage.model_validate(
        {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": "x",
            "content": [
                {"type": "text", "text": "hello"},
                {"type": "tool_use", "id": "t", "name": "look", "input": {}},
            ],
            "stop_reason": "tool_use",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    [draft] = anthropic.read([{"role": "assistant", "content": said.model_dump(exclude_none=True)["content"]}])
    assert [part["type"] for part in draft.content if isinstance(part, dict)] == ["text", "tool_call"]
    assert Response.model_fields["output"]


def test_parts_of_types_from_the_future_are_passed_through() -> None:
    part: Item = {"type": "hologram", "depth": 3}
    draft = Draft("user", [{"type": "text", "text": "see"}, part])
    assert chat.to([draft])[0]["content"][1] == part
    assert responses.to([draft])[0]["content"][1] == part
    assert anthropic.to([draft]).messages[0]["content"][1] == part
    [read] = chat.read([{"role": "user", "content": [part]}])
    assert read.content == [part]


@pytest.mark.parametrize("form", [chat.to, responses.to, _anthropic], ids=["chat", "responses", "anthropic"])
def test_what_cannot_be_said_is_put_into_words(form: Any) -> None:
    drafts = [
        Draft("user", [{"type": "image", "object": "0" * 64, "size_bytes": 9, "name": "a.png"}]),
        Draft("assistant", [{"type": "image", "data": PNG}, {"type": "data", "value": {"a": 1}}]),
    ]
    said = str(form(drafts))
    assert "a.png, not shown here" in said
    assert '{"a":1}' in said
