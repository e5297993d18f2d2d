"""A start that is repeated under its key starts once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import alcove.hub
from alcove.errors import IdempotencyError
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.sessions.model import Changes


async def test_of_ten_at_once_one_starts(hub: Alcove, session: Handle) -> None:
    starts = (hub.runs.start(session.id, "echo once >> file", idempotency_key="key") for _ in range(10))
    runs = await asyncio.gather(*starts)
    assert len({run.id for run in runs}) == 1
    await hub.runs.reply(runs[0].id)
    assert (await hub.runs.start(session.id, "echo once >> file", idempotency_key="key")).id == runs[0].id
    assert (await session.chat("cat file")).text == "once"
    assert (await session.refresh()).turn_count == 2


@pytest.mark.parametrize("change", [{"message": "echo two"}, {"agent": "q"}, {"language": "中文"}, {"timeout_s": 5}])
async def test_another_body_under_the_same_key_is_an_error(
    hub: Alcove, session: Handle, change: dict[str, Any]
) -> None:
    run = await hub.runs.start(session.id, "echo one", idempotency_key="key")
    with pytest.raises(IdempotencyError):
        await hub.runs.start(session.id, change.pop("message", "echo one"), idempotency_key="key", **change)
    await hub.runs.reply(run.id)


async def test_a_repetition_is_answered_while_the_session_is_busy_and_after_its_agent_changed(
    hub: Alcove, session: Handle
) -> None:
    run = await hub.runs.start(session.id, "sleep 1000", idempotency_key="key")
    assert not run.replayed
    again = await hub.runs.start(session.id, "sleep 1000", idempotency_key="key")
    assert again == run.as_started(replayed=True)
    await session.update(Changes(agent="q"))
    assert (await hub.runs.start(session.id, "sleep 1000", idempotency_key="key")).id == run.id


async def test_keys_of_two_sessions_have_nothing_to_do_with_each_other(hub: Alcove, session: Handle) -> None:
    other = await hub.sessions.create()
    first = await hub.runs.start(session.id, "true", idempotency_key="key")
    second = await hub.runs.start(other.id, "true", idempotency_key="key")
    assert first.id != second.id


async def test_a_key_is_remembered_after_a_restart(folder: object) -> None:
    async with alcove.hub.open(workspaces=str(folder)) as hub:
        session = await hub.sessions.create()
        run = await hub.runs.start(session.id, "true", idempotency_key="key")
    async with alcove.hub.open(workspaces=str(folder)) as hub:
        assert (await hub.runs.start(session.id, "true", idempotency_key="key")).id == run.id
