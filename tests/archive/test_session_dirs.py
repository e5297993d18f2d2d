"""Working directories of old become sessions with files; what is no file of theirs stays out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from pathlib import Path

import pytest

import alcove
from alcove.archive import session_dirs
from alcove.errors import InvalidError
from alcove.hub import Alcove
from alcove.workspaces.streams import Content

THEN = datetime(2024, 3, 1, tzinfo=UTC).timestamp()


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Alcove]:
    monkeypatch.setenv("ALCOVE_HOME", str(tmp_path / "home"))
    async with alcove.open("memory://", workspaces=tmp_path / "base") as hub:
        yield hub


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    for path, content in {"s1/main.py": "print(1)", "s1/src/deep/x.txt": "x", "s2/.env": "A=1"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
        os.utime(folder / path, (THEN, THEN))
    os.utime(folder / "s1", (THEN + 60, THEN + 60))
    return folder


async def test_directories_become_sessions_with_their_files_and_times(hub: Alcove, old: Path) -> None:
    report = await hub.archive.import_session_dirs(old, app="q")
    assert (report.created, report.files, report.size_bytes, report.failed) == (["s1", "s2"], 3, 12, [])
    assert hub.workspaces
    assert [file.path for file in (await hub.workspaces.list_files("s1")).files] == ["main.py", "src/deep/x.txt"]
    assert await hub.workspaces.read("s2", ".env") == b"A=1"
    session = await hub.sessions.get("s1")
    assert (session.app, session.created_at.timestamp(), session.last_activity.timestamp()) == ("q", THEN, THEN + 60)
    assert (old / "s1" / "main.py").read_text() == "print(1)", "what is imported is only read"


async def test_twice_is_once_and_no_file_is_overwritten(hub: Alcove, old: Path) -> None:
    await hub.archive.import_session_dirs(old)
    assert hub.workspaces
    await hub.workspaces.write("s1", "main.py", b"changed here")
    (old / "s1" / "new.txt").write_text("later")
    report = await hub.archive.import_session_dirs(old)
    assert (report.created, report.continued, report.present, report.files) == ([], ["s1"], ["s2"], 1)
    assert await hub.workspaces.read("s1", "main.py") == b"changed here"
    assert await hub.workspaces.read("s1", "new.txt") == b"later"


async def test_a_dry_run_writes_nothing(hub: Alcove, old: Path) -> None:
    report = await hub.archive.import_session_dirs(old, dry_run=True)
    assert (report.created, report.files) == (["s1", "s2"], 3)
    assert await hub.sessions.count() == 0
    assert not (hub.settings.base / "s1").exists()


async def test_links_fifos_and_folders_of_no_session_are_told_and_not_followed(
    hub: Alcove, old: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (old / "s1" / "out").symlink_to(tmp_path / "secret")
    (old / "s1" / "in").symlink_to("main.py")
    (old / "s1" / "up").symlink_to("..")
    os.mkfifo(old / "s1" / "fifo")
    (old / "linked").symlink_to(tmp_path)
    (old / "-flag").mkdir()
    (old / "file.txt").write_text("x")
    report = await hub.archive.import_session_dirs(old)
    assert {problem.path for problem in report.failed} == {
        *("s1/out", "s1/in", "s1/up", "s1/fifo", "linked", "-flag", "file.txt")
    }
    assert all(problem.reason for problem in report.failed)
    assert report.created == ["s1", "s2"]
    assert hub.workspaces
    assert len((await hub.workspaces.list_files("s1")).files) == 2


async def test_a_file_past_the_limit_is_told(hub: Alcove, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alcove.limits, "UPLOAD_BYTES", 4)
    report = await hub.archive.import_session_dirs(old)
    assert [problem.path for problem in report.failed] == ["s1/main.py"]


async def test_modes_and_times_of_files_come_along_and_many_are_few_changes(
    hub: Alcove, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_dirs, "_BATCH_FILES", 4)
    for number in range(10):
        (old / "s2" / f"{number}").write_bytes(b"x" * number)
    (old / "s1" / "main.py").chmod(0o755)
    assert hub.workspaces
    changes: list[str] = []
    extract = hub.workspaces.extract

    def counted(session_id: str, data: Content) -> Coroutine[None, None, object]:
        changes.append(session_id)
        return extract(session_id, data)

    monkeypatch.setattr(hub.workspaces, "extract", counted)
    report = await hub.archive.import_session_dirs(old)
    assert (report.files, report.size_bytes, report.failed) == (13, 12 + 45, [])
    assert changes == ["s1", "s2", "s2", "s2"]
    info = (hub.settings.base / "s1" / "main.py").stat()
    assert (info.st_mode & 0o777, info.st_mtime) == (0o755, THEN)


async def test_one_file_that_cannot_have_its_place_keeps_no_other_out(hub: Alcove, old: Path) -> None:
    await hub.archive.import_session_dirs(old)
    assert hub.workspaces
    for path in ("a/b", "f1", "f2", "z"):
        (old / "s2" / path).parent.mkdir(exist_ok=True)
        (old / "s2" / path).write_text(path)
    await hub.workspaces.write("s2", "a", b"a file where a folder was")
    report = await hub.archive.import_session_dirs(old)
    assert [problem.path for problem in report.failed] == ["s2/a/b"]
    assert [file.path for file in (await hub.workspaces.list_files("s2")).files] == [".env", "a", "f1", "f2", "z"]


async def test_a_session_of_that_id_from_elsewhere_is_never_touched(hub: Alcove, old: Path) -> None:
    await hub.sessions.create(session_id="s1")
    report = await hub.archive.import_session_dirs(old)
    assert [problem.path for problem in report.failed] == ["s1"]
    assert hub.workspaces
    assert (await hub.workspaces.list_files("s1")).files == ()


async def test_the_base_itself_is_refused(hub: Alcove, old: Path) -> None:
    with pytest.raises(InvalidError, match="workspaces of this installation"):
        await hub.archive.import_session_dirs(hub.settings.base)


async def test_a_hub_without_workspaces_says_so(old: Path) -> None:
    async with alcove.open("memory://") as bare:
        with pytest.raises(InvalidError, match="no workspaces"):
            await bare.archive.import_session_dirs(old)
        assert (await bare.archive.import_session_dirs(old, dry_run=True)).files == 3
