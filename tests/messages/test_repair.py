"""Any damaged history is acceptable to every provider after its repair, and is left alone when it was before."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from alcove.database.op import Database
from alcove.database.opening import open_database
from alcove.errors import SessionBusyError
from alcove.messages.content import Part
from alcove.messages.formats import anthropic, chat, responses
from alcove.messages.model import Draft, Message
from alcove.messages.service import Messages
from alcove.sessions.service import Sessions
from alcove.testing import rows
from messages.providers import check_anthropic, check_chat, check_responses


def accepted(window: list[Message]) -> None:
    """Raise when a provider would refuse this."""
    check_chat(chat.to(window))
    check_responses(responses.to(window))
    prompt = anthropic.to(window)
    check_anthropic(prompt.system, prompt.messages)


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[asyncio.Runner, Database]]:
    with asyncio.Runner() as runner:
        database = runner.run(open_database("memory://"))
        yield runner, database
        runner.run(database.close())


def _call(own: str, name: str = "look") -> dict[str, Any]:
    return {"id": own, "type": "function", "function": {"name": name, "arguments": '{"a": 1}'}}


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _tool_call(own: str) -> Part:
    return {"type": "tool_call", "id": own, "name": "look", "arguments": {}}


def _tool_use(own: str) -> Part:
    return {"type": "tool_use", "id": own, "name": "", "input": {}}


def _tool_result(own: str) -> Part:
    return {"type": "tool_result", "tool_call_id": own, "content": "found"}


def _caller(text: str, ids: list[str]) -> Draft:
    return Draft("assistant", text, tool_calls=[_call(one) for one in ids])


def _answer(text: str, own: str) -> Draft:
    return Draft("tool", text, tool_call_id=own)


def _answer_in_parts(own: str) -> Draft:
    return Draft("tool", [_tool_result(own)])


_IDS = st.sampled_from(["c1", "c2", "c3", "c4", ""])
_TEXTS = st.sampled_from(["", " ", "said", "more\n"])
_PARTS = st.one_of(
    st.builds(_text, _TEXTS),
    st.builds(_tool_call, _IDS),
    st.builds(_tool_use, _IDS),
    st.builds(_tool_result, _IDS),
    st.just({"type": "reasoning", "text": "hm"}),
)
_DRAFTS = st.one_of(
    st.builds(Draft, st.sampled_from(["user", "assistant", "system", "developer"]), _TEXTS),
    st.builds(Draft, st.sampled_from(["user", "assistant"]), st.lists(_PARTS, min_size=1, max_size=3)),
    st.builds(_caller, _TEXTS, st.lists(_IDS, min_size=1, max_size=3)),
    st.builds(_answer, _TEXTS, _IDS),
    st.builds(_answer_in_parts, _IDS),
)


async def _repaired(database: Database, drafts: list[Draft]) -> None:
    session_id = (await Sessions(database).create()).id
    messages = Messages(database)
    await messages.append(session_id, drafts)
    found = await messages.check(session_id)
    assert await messages.repair(session_id) == found
    assert await messages.check(session_id) == []
    assert await messages.repair(session_id) == []
    window = await messages.window(session_id, rounds=1000)
    accepted(window.messages)
    everything = (await messages.page(session_id, hidden=True, limit=1000)).messages
    assert [one.content for one in everything[: len(drafts)]] == [draft.content for draft in drafts]
    assert (await Sessions(database).get(session_id)).message_count == sum(not one.hidden for one in everything)


@given(st.lists(_DRAFTS, min_size=1, max_size=14))
@settings(max_examples=250)
def test_any_history_is_acceptable_after_its_repair(
    world: tuple[asyncio.Runner, Database], drafts: list[Draft]
) -> None:
    runner, database = world
    runner.run(_repaired(database, drafts))


@pytest.mark.long
@given(st.lists(_DRAFTS, min_size=1, max_size=40))
@settings(max_examples=5000)
def test_any_long_history_is_acceptable_after_its_repair(
    world: tuple[asyncio.Runner, Database], drafts: list[Draft]
) -> None:
    runner, database = world
    runner.run(_repaired(database, drafts))


def test_the_validators_refuse_what_providers_refuse() -> None:
    """The control: without a repair, the same histories are refused."""
    damaged = [
        [Draft("user", "a"), Draft("assistant", "", tool_calls=[_call("c1")]), Draft("user", "b")],
        [Draft("user", "a"), Draft("tool", "x", tool_call_id="c1")],
        [Draft("user", "a"), Draft("assistant", "", tool_calls=[_call("")]), Draft("tool", "x", tool_call_id="")],
    ]
    for drafts in damaged:
        with pytest.raises(AssertionError):
            check_chat(chat.to(drafts))
        with pytest.raises(AssertionError):
            check_responses(responses.to(drafts))
        prompt = anthropic.to(drafts)
        with pytest.raises(AssertionError):
            check_anthropic(prompt.system, prompt.messages)


async def test_a_history_in_order_is_left_alone(database: Database) -> None:
    session_id = (await Sessions(database).create()).id
    messages = Messages(database)
    await messages.append(
        session_id,
        [
            Draft("system", "be kind"),
            Draft("user", "look"),
            Draft("assistant", "", tool_calls=[_call("c1"), _call("c2")]),
            Draft("tool", "one", tool_call_id="c2"),
            Draft("tool", "two", tool_call_id="c1"),
            Draft("assistant", "seen"),
        ],
    )
    assert await messages.check(session_id) == []
    assert await messages.repair(session_id) == []
    assert len((await messages.page(session_id, hidden=True)).messages) == 6


async def test_what_a_repair_wrote_is_marked_and_stands_in_its_place(database: Database) -> None:
    session_id = (await Sessions(database).create()).id
    messages = Messages(database)
    await messages.append(
        session_id,
        [
            Draft("user", "look"),
            Draft("assistant", "", tool_calls=[_call("c1")]),
            Draft("user", "and?"),
            Draft("assistant", "done"),
        ],
    )
    [fault] = await messages.repair(session_id)
    assert (fault.kind, fault.seq) == ("orphan_call", 2)
    window = await messages.window(session_id)
    assert [(one.seq, one.repaired) for one in window] == [(1, False), (2, False), (5, True), (3, False), (4, False)]
    assert [one.seq for one in await messages.window(session_id, rounds=1)] == [3, 4]
    assert [one.seq for one in await messages.window(session_id, before=3)] == [1, 2]


async def test_long_histories_are_repaired_in_steps(database: Database) -> None:
    session_id = (await Sessions(database).create()).id
    messages = Messages(database)
    chance = random.Random(5)
    for number in range(12):
        drafts: list[Draft] = []
        for turn in range(40):
            own = f"c{number}_{turn}"
            drafts += [Draft("user", "look"), Draft("assistant", "", tool_calls=[_call(own)])]
            drafts += [Draft("tool", "x", tool_call_id=own)] if chance.random() < 0.9 else []
            drafts += [Draft("assistant", "seen")]
        await messages.append(session_id, drafts)
    found = await messages.check(session_id)
    assert 20 < len(found) < 80
    assert {fault.kind for fault in found} == {"orphan_call"}
    assert await messages.repair(session_id) == found
    assert await messages.check(session_id) == []
    accepted((await messages.window(session_id, rounds=1000)).messages)


async def test_a_session_that_a_run_holds_is_not_repaired(database: Database) -> None:
    session_id = (await Sessions(database).create()).id
    messages = Messages(database)
    await messages.append(session_id, [Draft("user", "look"), Draft("assistant", "", tool_calls=[_call("c1")])])
    await rows.hold(database, session_id, "r1", 60)
    with pytest.raises(SessionBusyError):
        await messages.repair(session_id)
    [examined] = [one async for one in messages.examine(repair=True)]
    assert "holds session" in examined.skipped


async def test_a_store_is_examined_session_by_session(database: Database) -> None:
    messages, sessions = Messages(database), Sessions(database)
    damaged = {(await sessions.create()).id for _ in range(3)}
    for session_id in damaged:
        await messages.append(session_id, [Draft("user", "look"), Draft("assistant", "", tool_calls=[_call("c1")])])
    fine = (await sessions.create()).id
    await messages.append_turn(fine, "a", "b")
    assert {one.session_id for one in [one async for one in messages.examine()] if one.faults} == damaged
    assert [one async for one in messages.examine(repair=True) if one.faults]
    assert not [one async for one in messages.examine() if one.faults]
