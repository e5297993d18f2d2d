"""What an operator reads in the log: sessions, folders, runs and errors, each with the ids to look for."""

from __future__ import annotations

import logging

import pytest

from alcove.agents.base import AgentContext
from alcove.hub import Alcove


async def test_the_log_tells_of_sessions_folders_runs_and_errors(hub: Alcove, caplog: pytest.LogCaptureFixture) -> None:
    async def echo(context: AgentContext) -> str:
        return context.message

    async def broken(_: AgentContext) -> str:
        raise RuntimeError("cannot think")

    hub.agents.register("echo", echo)
    hub.agents.register("broken", broken)
    caplog.set_level(logging.INFO, "alcove")
    session = await hub.sessions.create(user_id="ana", idempotency_key="key")
    await hub.sessions.create(user_id="ana", idempotency_key="key")
    answered = (await session.chat("secret words", agent="echo")).run.id
    failed = (await session.chat("hi", agent="broken")).run.id
    receipt = await session.delete()
    await hub.sessions.delete(session.id, purge=True)
    live, _ = await hub.sessions.live("ana")
    await hub.sessions.live("ana")

    told = [
        (record.message, *(getattr(record, name, None) for name in ("session_id", "run_id", "status")))
        for record in caplog.records
    ]
    for line in (
        ("workspace made", session.id, None, None),
        ("session created", session.id, None, None),
        ("run started", session.id, answered, None),
        ("run ended", session.id, answered, "finished"),
        ("run started", session.id, failed, None),
        ("agent broke", None, failed, None),
        ("run ended", session.id, failed, "failed"),
        ("session created", live.id, None, None),
    ):
        assert told.count(line) == 1, (line, told)
    for word in ("trashed", "purged"):
        assert any(word in record.message and receipt.trash_id in str(vars(record)) for record in caplog.records), word
    assert "cannot think" in caplog.text
    assert "secret words" not in caplog.text, "what was said is nobody's business"
