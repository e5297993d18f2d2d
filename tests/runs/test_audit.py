"""Runs and the audit: what starts and ends them is in it, and none of them reaches its key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import alcove
from alcove.audit.model import AuditFilters
from alcove.errors import AlcoveError
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle


async def test_a_start_is_audited_with_the_digest_of_its_grant_and_a_replay_is_not(
    hub: Alcove, session: Handle
) -> None:
    first = await hub.runs.start(session.id, "true", agent="shell", idempotency_key="k", by="key:k")
    again = await hub.runs.start(session.id, "true", agent="shell", idempotency_key="k", by="key:k")
    assert again.id == first.id
    await hub.runs.reply(first.id)
    [row] = (await hub.audit.list(AuditFilters(act="grant.created"))).rows
    assert row.words is not None
    assert (row.words.subject, row.words.who, row.words.session_id) == (f"run:{first.id}", "key:k", session.id)
    assert (row.told["agent"], row.told["digest"]) == ("shell", first.digest)


async def test_a_start_that_is_refused_leaves_no_row_of_a_grant(hub: Alcove, session: Handle) -> None:
    run = await hub.runs.start(session.id, "sleep 60", agent="shell")
    with pytest.raises(AlcoveError, match=r"busy|holds"):
        await hub.runs.start(session.id, "true", agent="shell")
    await hub.runs.cancel(run.id)
    assert len((await hub.audit.list(AuditFilters(act="grant.created"))).rows) == 1


@pytest.mark.parametrize("where", ["home", "beside"])
async def test_no_run_reads_the_key_of_the_audit_or_is_granted_it(folder: Path, where: str) -> None:
    beside = folder.parent / "elsewhere"
    beside.mkdir()
    beside.chmod(0o755)
    url = None if where == "home" else f"sqlite:///{beside}/rows.db"
    async with alcove.open(url, workspaces=folder) as hub:
        session = await hub.sessions.create()
        await session.chat("true", agent="shell")
        key = hub.settings.home / "audit.key" if where == "home" else beside / "rows.audit.key"
        secret = key.read_text().strip()
        os.chmod(key, 0o644)  # so that only what confines the run is in its way
        reply = await session.chat(f"echo begun; cat {key}", agent="shell")
        assert "begun" in reply.text
        assert secret not in reply.text
        assert reply.run.exit_code != 0
    with (folder.parent / "alcove.toml").open("a") as table:
        table.write(f'\n[agents.reader]\ncommand = "cat"\nread = ["{key}"]\n')
    async with alcove.open(url, workspaces=folder) as hub:
        with pytest.raises(AlcoveError, match=r"granting .* would show"):
            await hub.runs.start(session.id, "true", agent="reader")
