"""What an open hub audits by itself, and what holds when it cannot."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import alcove
from alcove import limits
from alcove.audit.model import AuditFilters
from alcove.errors import AlcoveError, DatabaseError, DatabaseFullError, NotPermittedError, StorageError
from alcove.hub import Alcove
from alcove.runs.granting import Asking
from alcove.settings.loading import load
from alcove.testing.waiting import wait_until
from database.disk import Disk


async def acts(hub: Alcove, **filters: object) -> list[str]:
    rows = (await hub.audit.list(AuditFilters(**filters))).rows  # pyright: ignore[reportArgumentType]
    return [row.chained.act for row in reversed(rows)]


async def test_a_denial_is_written_by_itself_soon(tmp_path: Path) -> None:
    async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
        assert not hub.runs.check("nobody", "tool", "x")

        async def written() -> bool:
            return await acts(hub) == ["check.denied"]

        await wait_until(written)


async def test_what_was_denied_at_the_end_is_written_before_it_is_closed(tmp_path: Path) -> None:
    async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
        for _ in range(7):
            assert not hub.runs.check("nobody", "tool", "x")
    async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
        [row] = (await hub.audit.list()).rows
        assert (row.chained.act, row.chained.code, row.chained.times) == ("check.denied", "unknown_run", 7)
        assert (await hub.audit.verify()).findings == ()


async def test_an_allowed_check_leaves_no_row() -> None:
    async with alcove.open("memory://") as hub:
        run = (await hub.runs.register("r", grant=alcove.ask(resources={"tool": ["a"]}))).run
        assert hub.runs.check(run.id, "tool", "a", "call")
        await hub.audit.flush()
        assert await acts(hub) == ["grant.created"]


async def test_a_refused_grant_is_audited() -> None:
    def refuse(asking: Asking) -> object:
        raise NotPermittedError(f"not for {asking.agent}")

    async with alcove.open("memory://") as hub:
        hub.runs.resolver = refuse  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(NotPermittedError):
            await hub.runs.register("r", tenant="acme", by="key:k")
        await hub.audit.flush()
        [row] = (await hub.audit.list()).rows
        assert row.words is not None
        assert (row.chained.act, row.words.who, row.words.tenant) == ("grant.denied", "key:k", "acme")
        assert row.told == {"agent": "r", "reason": "not for r"}


async def test_a_lowered_minimum_is_audited_before_a_program_runs(tmp_path: Path) -> None:
    _passable(tmp_path)
    settings = load(tmp_path, {"ALCOVE_SANDBOX": "none"})
    async with alcove.open(settings=settings) as hub:
        session = await hub.sessions.create()
        assert (await hub.runs.chat(session.id, "echo hi", agent="shell")).text.strip() == "hi"
        assert await acts(hub) == ["sandbox.lowered", "grant.created"]
        [row, *_] = (await hub.audit.list(AuditFilters(act="sandbox.lowered"))).rows
        assert "file_read" in str(row.told["not_required"])


async def test_exports_and_imports_are_audited_before_they_begin(tmp_path: Path) -> None:
    async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
        await hub.sessions.create()
        await hub.archive.export_archive(tmp_path / "x.alcove", by="key:k")
        await hub.archive.import_archive(tmp_path / "x.alcove", dry_run=True)
        await hub.archive.import_archive(tmp_path / "x.alcove", by="key:k")
        with pytest.raises(AlcoveError):
            await hub.archive.import_archive(tmp_path / "nothing.alcove")
        assert await acts(hub) == ["archive.exported", "archive.imported", "archive.imported"]
        assert await acts(hub, who="key:k") == ["archive.exported", "archive.imported"]


def _passable(folder: Path) -> None:
    """Let the uid of a session pass, when the tests run as root."""
    for one in (folder, *folder.parents):
        if one.stat().st_uid == os.geteuid() and (one == folder or one.name.startswith(("pytest-", "popen-"))):
            one.chmod(0o711)


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("full", DatabaseFullError, "the database is full"),
        ("read_only", DatabaseError, "the database cannot be written"),
    ],
)
async def test_on_a_full_disk_denials_stay_denied_and_nothing_that_is_audited_happens(
    tmp_path: Path, fault: str, error: type[DatabaseError], said: str
) -> None:
    with Disk() as disk:
        async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
            run = (await hub.runs.register("r", grant=alcove.ask(resources={"tool": ["a"]}))).run
            session = await hub.sessions.create()
            key = (await hub.keys.create()).key
            setattr(disk, fault, True)
            for i in range(100):
                assert not hub.runs.check(run.id, "tool", f"other-{i}", "call")
            with pytest.raises(error):
                await hub.audit.flush()
            refused: list[Callable[[], Awaitable[object]]] = [
                hub.keys.create,
                lambda: hub.keys.revoke(key.id),
                lambda: hub.runs.register("r"),
                lambda: hub.runs.revoke(run.id),
                lambda: hub.runs.set_ceiling(session.id, alcove.bound(storage=[])),
                lambda: hub.sessions.delete(session.id),
                lambda: hub.sessions.delete(session.id, purge=True),
                lambda: hub.archive.export_archive(tmp_path / "x.alcove"),
                lambda: hub.audit.erase(user_id="ana"),
            ]
            for act in refused:
                with pytest.raises(error, match=said):
                    await act()
            assert not (tmp_path / "x.alcove").exists()
            for i in range(100):
                assert not hub.runs.check(run.id, "tool", f"other-{i}", "call")
            setattr(disk, fault, False)
            assert (await hub.sessions.get(session.id)).id == session.id
            assert (await hub.keys.get(key.id)).revoked_us == 0
            assert hub.runs.check(run.id, "tool", "a", "call"), "the control: it was not revoked"
            await hub.audit.flush(everything=True)
            rows = (await hub.audit.list(AuditFilters(act="check.denied"), limit=200)).rows
            assert sum(row.chained.times for row in rows) == 200, "none was lost meanwhile"
            assert (await hub.audit.verify()).findings == ()


async def test_after_a_failed_flush_nothing_that_is_audited_happens(tmp_path: Path) -> None:
    with Disk() as disk:
        async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
            disk.sync_fails = "-wal"
            for _ in range(2):
                with pytest.raises(DatabaseError):
                    await hub.keys.create()
            assert not hub.runs.check("nobody", "tool", "x")
            with pytest.raises(DatabaseError):
                await hub.audit.flush()
            disk.sync_fails = ""
    async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
        assert (await hub.keys.list()).keys == []


async def test_it_is_tried_again_to_write_denials_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "AUDIT_RETRY_S", 0.01)
    with Disk() as disk:
        async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
            disk.full = True
            assert not hub.runs.check("nobody", "tool", "x")

            async def failing() -> bool:
                return hub.audit.failing

            await wait_until(failing)
            disk.full = False

            async def written() -> bool:
                return not hub.audit.failing and await acts(hub) == ["check.denied"]

            await wait_until(written)
    assert [one.message for one in caplog.records].count("denials cannot be written") == 1


async def test_without_a_key_nothing_that_is_audited_happens(tmp_path: Path) -> None:
    async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
        (tmp_path / "a.audit.key").mkdir()
        with pytest.raises(StorageError, match="the key of the audit"):
            await hub.keys.create()
        with pytest.raises(StorageError, match="the key of the audit"):
            await hub.runs.register("r")
        assert not hub.runs.check("nobody", "tool", "x")
        (tmp_path / "a.audit.key").rmdir()
        await hub.keys.create()
        await hub.audit.flush()
        assert sorted(await acts(hub)) == ["check.denied", "key.created"]


async def test_two_hubs_of_one_place_make_one_chain(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    async with alcove.open(url) as one, alcove.open(url) as other:
        await asyncio.gather(*(hub.keys.create() for hub in (one, other) for _ in range(10)))
        found = await one.audit.verify()
        assert (found.nodes, found.rows, found.findings) == (1, 20, ())
    assert sorted(os.listdir(tmp_path))[:3] == ["a.audit.checkpoint", "a.audit.key", "a.db"]


async def test_an_end_that_was_cut_off_with_its_checkpoint_is_found_out_by_the_copy_beside(tmp_path: Path) -> None:
    from alcove.testing.rows import execute

    url = f"sqlite:///{tmp_path}/a.db"
    async with alcove.open(url) as hub:
        await hub.keys.create()
        [old] = await execute(hub.database, "SELECT n, hash, seal FROM audit_chains")
        await hub.keys.create()
    async with alcove.open(url) as hub:
        await execute(hub.database, "DELETE FROM audit WHERE n = 2")
        await execute(hub.database, "DELETE FROM audit_words WHERE n = 2")
        await execute(hub.database, "UPDATE audit_chains SET n = ?, hash = ?, seal = ?", *old)
        assert [(one.what, one.n) for one in (await hub.audit.verify()).findings] == [("rewound", 2)]


async def test_the_janitor_removes_what_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alcove.testing.rows import execute

    async with alcove.open(f"sqlite:///{tmp_path}/a.db") as hub:
        for _ in range(3):
            await hub.keys.create()
        await execute(hub.database, "UPDATE audit SET created_at = 1 WHERE n < 3")
        await hub.janitor.sweep(dry_run=True)
        assert len(await acts(hub)) == 3
        await hub.janitor.sweep()
        assert await acts(hub) == ["key.created", "audit.removed"]
