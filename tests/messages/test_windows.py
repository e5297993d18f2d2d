"""Windows keep every bound, begin at a user's message and part no call from its result, whatever the history."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from alcove import limits
from alcove.database.op import Database
from alcove.errors import InvalidError, NotFoundError, StaleSequenceError
from alcove.messages.model import Draft, Message, Role
from alcove.messages.neutral import parts_of
from alcove.messages.service import Messages
from alcove.messages.tokens import estimate
from alcove.messages.windows import Bounds, Picker
from alcove.objects.service import Objects
from alcove.sessions.service import Sessions

Part = dict[str, Any]


def _said(seq: int, role: str, text: str, detail: str = "", kept: int = 0) -> Message:
    return Message(seq, 1, role, 0, text, detail, 0, 0, kept)


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """A history in order: system messages, rounds with calls and their results, some pinned."""
    found: list[Message] = []

    def say(role: str, detail: str = "", kept: int = 0) -> None:
        found.append(_said(len(found) + 1, role, "x" * draw(st.integers(1, 60)), detail, kept))

    for _ in range(draw(st.integers(0, 2))):
        say("system")
    for _ in range(draw(st.integers(0, 6))):
        say("user", kept=draw(st.sampled_from([0, 0, 0, 1])))
        for _ in range(draw(st.integers(0, 3))):
            own = [f"c{len(found)}_{at}" for at in range(draw(st.integers(0, 2)))]
            calls = ",".join(f'{{"id":"{one}","function":{{"name":"f","arguments":"{{}}"}}}}' for one in own)
            say("assistant", f'{{"tool_calls":[{calls}]}}' if own else "")
            for one in own:
                say("tool", f'{{"tool_call_id":"{one}"}}')
    return found


def _picked(history: list[Message], bounds: Bounds) -> list[Message]:
    kept = [one for one in history if one.role == "system" or one.kept]
    picker = Picker(bounds, kept)
    for one in reversed(history):
        if not picker.offer(one, "done"):
            break
    return picker.window().messages


@given(
    histories(),
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(1, 20)),
    st.one_of(st.none(), st.integers(1, 400)),
    st.one_of(st.none(), st.integers(1, 120)),
)
@settings(max_examples=400)
def test_every_bound_holds_and_nothing_is_parted(
    history: list[Message], rounds: int, messages: int | None, size_bytes: int | None, tokens: int | None
) -> None:
    bounds = Bounds(rounds=rounds, messages=messages, size_bytes=size_bytes, tokens=tokens)
    always = {one.seq for one in history if one.role == "system" or one.kept}
    try:
        window = _picked(history, bounds)
    except InvalidError:
        assert sum(one.size_bytes for one in history if one.seq in always) or messages is not None
        return
    assert len(window) <= (messages or len(history))
    assert sum(one.size_bytes for one in window) <= (size_bytes or limits.MESSAGE_PAGE_BYTES)
    assert sum(map(estimate, window)) <= (tokens or limits.WINDOW_TOKENS)
    assert always <= {one.seq for one in window}
    body = [one for one in window if one.role != "system"]
    while body and body[0].kept:
        body.pop(0)
    assert not body or body[0].role == "user" or body[0].seq > min(one.seq for one in window if one.kept)
    assert sum(one.role == "user" and one.seq not in always for one in body) <= rounds
    called: set[str] = set()
    answered: set[str] = set()
    for one in window:
        for part in parts_of(one.role, one.content, one.detail.tool_calls, one.detail.tool_call_id):
            if part["type"] == "tool_call":
                called.add(str(part["id"]))
            if part["type"] == "tool_result":
                assert part["tool_call_id"] in called
                answered.add(str(part["tool_call_id"]))
    assert called == answered


@given(histories(), st.integers(1, 8))
def test_without_other_bounds_there_are_as_many_rounds_as_asked_for(history: list[Message], rounds: int) -> None:
    window = _picked(history, Bounds(rounds=rounds))
    starts = [at for at, one in enumerate(history) if one.role == "user"]
    tail = history[starts[-rounds:][0] :] if starts else []
    front = [one for one in history if (one.role == "system" or one.kept) and one not in tail]
    assert sorted(one.seq for one in window) == sorted(one.seq for one in front + tail)


@pytest.fixture
async def session_id(database: Database) -> str:
    return (await Sessions(database).create()).id


@pytest.fixture
def messages(database: Database, tmp_path: Path) -> Messages:
    return Messages(database, Objects(database, tmp_path / "objects"))


async def test_a_counter_counts_and_the_estimate_says_that_it_is_one(messages: Messages, session_id: str) -> None:
    for i in range(20):
        await messages.append_turn(session_id, f"question {i}", f"answer {i}")
    guessed = await messages.window(session_id, tokens=60)
    assert guessed.estimated
    assert guessed.tokens is not None
    assert 30 < guessed.tokens <= 60
    assert guessed.left_out
    counted = await messages.window(session_id, tokens=7, count=lambda _: 1)
    assert (len(counted), counted.tokens, counted.estimated) == (6, 6, False)
    messages.counter = lambda message: len(message.text.split())
    assert len(await messages.window(session_id, tokens=8)) == 4
    assert (await messages.window(session_id)).tokens == 40


async def test_what_a_provider_reported_is_kept_and_counted(messages: Messages, session_id: str) -> None:
    usage = {"input_tokens": 900, "output_tokens": 50}
    await messages.append(session_id, [Draft("user", "a"), Draft("assistant", "b", usage=usage)])
    [_, answer] = await messages.last(session_id)
    assert answer.detail.usage == usage
    assert (await messages.window(session_id, tokens=100)).tokens == 55
    assert len(await messages.window(session_id, tokens=54)) == 1
    with pytest.raises(InvalidError):
        await messages.append(session_id, [Draft("assistant", "b", usage={"output_tokens": -1})])


async def test_a_long_round_keeps_its_question_and_its_newest_exchanges(messages: Messages, session_id: str) -> None:
    drafts = [Draft("user", "look at everything")]
    for i in range(20):
        call: Part = {"id": f"c{i}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        drafts += [Draft("assistant", "", tool_calls=[call]), Draft("tool", "y" * 400, tool_call_id=f"c{i}")]
    await messages.append(session_id, drafts)
    window = await messages.window(session_id, tokens=500)
    assert [one.seq for one in window][:1] == [1]
    assert [one.seq for one in window][1:] == list(range(42 - len(window) + 1, 42))
    assert window[1].role == "assistant"
    assert window.left_out


async def test_system_and_pinned_messages_are_in_every_window(messages: Messages, session_id: str) -> None:
    await messages.append(session_id, [Draft("system", "be kind"), Draft("user", "the plan"), Draft("assistant", "ok")])
    for i in range(10):
        await messages.append_turn(session_id, f"q{i}", f"a{i}")
    assert (await messages.pin(session_id, 2)).kept
    assert [one.seq for one in await messages.window(session_id, rounds=1)] == [1, 2, 22, 23]
    assert [one.seq for one in await messages.window(session_id, rounds=11)] == list(range(1, 24))
    await messages.unpin(session_id, 2)
    assert [one.seq for one in await messages.window(session_id, rounds=1)] == [1, 22, 23]
    with pytest.raises(NotFoundError):
        await messages.pin(session_id, 99)
    with pytest.raises(InvalidError, match="do not fit"):
        await messages.window(session_id, tokens=2)


async def test_what_cannot_stand_alone_cannot_be_pinned(
    messages: Messages, session_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call: Part = {"type": "tool_call", "id": "c", "name": "look", "arguments": {}}
    await messages.append(
        session_id, [Draft("user", "a"), Draft("assistant", [call]), Draft("tool", "b", tool_call_id="c")]
    )
    for seq in (2, 3):
        with pytest.raises(InvalidError):
            await messages.pin(session_id, seq)
    monkeypatch.setattr(limits, "PINNED_MESSAGES", 1)
    await messages.pin(session_id, 1)
    await messages.append_turn(session_id, "c", "d")
    with pytest.raises(InvalidError):
        await messages.pin(session_id, 4)


async def test_the_newest_images_stay_and_the_others_are_said_in_words(messages: Messages, session_id: str) -> None:
    def image(size: int) -> Part:
        data = base64.b64encode(os.urandom(size)).decode()
        return {"type": "image", "media_type": "image/png", "data": data, "name": f"{size}.png"}

    sizes = [3000, 200_000, 5000, 100_000]
    images = [image(size) for size in sizes]
    for one in images:
        await messages.append(
            session_id, [Draft("user", [{"type": "text", "text": "see"}, one]), Draft("assistant", "ok")]
        )
    window = await messages.window(session_id, media=2)
    shown = [one.content for one in window if one.role == "user"]
    assert [content[1] in images for content in shown if isinstance(content, list)] == [False, False, True, True]
    assert "3000.png, image/png, 3,000 bytes, not shown here; in message 1" in window[0].text
    by_size = await messages.window(session_id, media_bytes=150_000)
    kept = [one.content[1] in images for one in by_size if isinstance(one.content, list)]
    assert kept == [True, False, True, True]
    dropped = await messages.window(session_id, media=0, over="drop")
    assert [one.content for one in dropped if one.role == "user"] == [[{"type": "text", "text": "see"}]] * 4
    alone = await messages.append(session_id, [Draft("user", [images[0]])])
    [only] = await messages.window(session_id, rounds=1, media=0, over="drop")
    assert (only.seq, only.content) == (alone.last_seq, "[left out]")


async def test_images_in_the_results_of_tools_count_too(messages: Messages, session_id: str) -> None:
    picture: Part = {"type": "image", "media_type": "image/png", "data": base64.b64encode(os.urandom(90_000)).decode()}
    result: Part = {"type": "tool_result", "tool_call_id": "c", "content": [picture, {"type": "text", "text": "seen"}]}
    call: Part = {"type": "tool_call", "id": "c", "name": "look", "arguments": {}}
    await messages.append(session_id, [Draft("user", "a"), Draft("assistant", [call]), Draft("tool", [result])])
    assert (await messages.window(session_id))[2].content == [result]
    [part] = (await messages.window(session_id, media=0))[2].content
    assert isinstance(part, dict)
    assert "not shown here" in str(part["content"])
    assert "seen" in str(part["content"])


async def test_a_summary_stands_for_what_it_sums_up(messages: Messages, session_id: str) -> None:
    await messages.append(session_id, [Draft("system", "be kind")])
    for i in range(20):
        await messages.append_turn(session_id, f"q{i}", f"a{i}")
    given: list[list[int]] = []

    def sum_up(found: list[Message]) -> str:
        given.append([one.seq for one in found])
        return f"summary of {len(found)}"

    appended = await messages.compact(session_id, sum_up, keep_rounds=2)
    assert appended
    assert given == [list(range(2, 38))]
    window = await messages.window(session_id)
    assert [one.seq for one in window] == [1, appended.last_seq, 38, 39, 40, 41]
    assert not window.left_out
    assert len((await messages.page(session_id)).messages) == 42
    assert await messages.compact(session_id, sum_up, keep_rounds=2) is None
    for i in range(3):
        await messages.append_turn(session_id, f"r{i}", f"b{i}")
    again = await messages.compact(session_id, sum_up, keep_rounds=1)
    assert again
    assert given[1] == [42, 38, 39, 40, 41, 43, 44, 45, 46]
    assert [one.seq for one in await messages.window(session_id)] == [1, again.last_seq, 47, 48]
    summary = (await messages.last(session_id, 1))[0].summary_of
    assert summary
    assert (summary.first, summary.last) == (1, 46) or (summary.first, summary.last) == (2, 46)


@pytest.mark.parametrize("race", ["append", "pop", "clear", "compact", "append strictly"])
async def test_a_summary_of_what_has_changed_is_not_written(messages: Messages, session_id: str, race: str) -> None:
    for i in range(6):
        await messages.append_turn(session_id, f"q{i}", f"a{i}")

    async def sum_up(_: list[Message]) -> str:
        match race.split(maxsplit=1)[0]:
            case "append":
                await messages.append_turn(session_id, "meanwhile", "said")
            case "pop":
                await messages.pop(session_id, 11)
            case "clear":
                await messages.clear(session_id)
            case _:
                await messages.compact(session_id, lambda _: "other", keep_rounds=2)
        return "mine"

    strictly = 12 if race == "append strictly" else None
    if race == "append":
        await messages.compact(session_id, sum_up, keep_rounds=2)
        assert [one.text for one in await messages.window(session_id)] == [
            "mine",
            "q4",
            "a4",
            "q5",
            "a5",
            "meanwhile",
            "said",
        ]
        return
    with pytest.raises(StaleSequenceError):
        await messages.compact(session_id, sum_up, keep_rounds=2, expected_seq=strictly)
    assert "mine" not in [one.text for one in await messages.window(session_id)]


@pytest.mark.parametrize("role", ["user", "assistant"])
async def test_an_empty_summary_is_refused(messages: Messages, session_id: str, role: Role) -> None:
    await messages.append(session_id, [Draft(role, "a"), Draft("user", "b"), Draft("user", "c")])
    with pytest.raises(InvalidError):
        await messages.compact(session_id, lambda _: " ", keep_rounds=1)
