"""Runs and the audit: what starts and ends them is in it, and none of them reaches its key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import alcove
from alcove.audit.model import AuditFilters
from alcove.errors import AlcoveError, FileMissingError, StorageError
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


async def test_who_has_a_run_end_is_audited_and_it_ends_also_when_that_cannot_be(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await hub.runs.start(session.id, "sleep 60")
    second = await hub.runs.start(session.id, "sleep 60", busy="interrupt", by="key:i")
    await hub.runs.reply(first.id)
    await hub.runs.cancel(second.id, by="key:c")
    await hub.runs.cancel(second.id, by="key:late")
    rows = (await hub.audit.list(AuditFilters(session_id=session.id))).rows
    ends = [(row.chained.act, row.words.subject, row.words.who) for row in rows if row.words]
    assert [end for end in ends if end[0] != "grant.created"] == [
        ("run.cancelled", f"run:{second.id}", "key:c"),
        ("run.interrupted", f"run:{first.id}", "key:i"),
    ]
    third = await hub.runs.start(session.id, "sleep 60")

    async def fails(_: object) -> None:
        raise StorageError("no room")

    monkeypatch.setattr(hub.audit, "done", fails)
    assert (await hub.runs.cancel(third.id)).status == "cancelled"


async def test_a_file_that_is_deleted_from_outside_is_audited_before_and_what_a_run_does_is_not(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.workspaces
    await session.chat("mkdir folder; touch folder/a b c; rm c")
    for path, recursive in (("b", False), ("folder", True)):
        await hub.workspaces.delete(session.id, path, recursive=recursive, by="key:1")
    with pytest.raises(FileMissingError):
        await hub.workspaces.delete(session.id, "none")
    rows = (await hub.audit.list(AuditFilters(act="file.deleted"))).rows
    assert [(row.told["path"], row.words.subject, row.words.who) for row in rows if row.words] == [
        ("folder", f"session:{session.id}", "key:1"),
        ("b", f"session:{session.id}", "key:1"),
    ]
    await hub.workspaces.write(session.id, "kept", b"x")

    async def fails(_: object) -> None:
        raise StorageError("no room")

    monkeypatch.setattr(hub.audit, "done", fails)
    with pytest.raises(StorageError):
        await hub.workspaces.delete(session.id, "kept")
    assert await hub.workspaces.read(session.id, "kept") == b"x"


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
