"""Sessions that were one JSON file each, with everything that was wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import alcove
from alcove import limits
from alcove.archive import queries
from alcove.errors import InvalidError
from alcove.hub import Alcove
from alcove.messages.model import Draft

TOKYO = timezone(timedelta(hours=9))


@pytest.fixture
async def hub() -> AsyncIterator[Alcove]:
    async with alcove.open("memory://") as hub:
        yield hub


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "sessions"
    folder.mkdir()
    return folder


def entry(number: int, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": f"{role} {number}", "timestamp": f"2024-03-01T12:00:{number:02}.000005", **more}


def save(folder: Path, session_id: str, *, turns: int = 1, **more: Any) -> Path:
    """Write a file as the old module did."""
    history = [one for number in range(turns) for one in (entry(number), entry(number, "assistant"))]
    fields = {
        "session_id": session_id,
        "parent_session_id": None,
        "root_session_id": session_id,
        "depth": 0,
        "user_id": "ana",
        "created_at": "2024-03-01T12:00:00",
        "last_active": "2024-03-01T13:00:00",
        "message_count": turns,
        "metadata": {"channel": "web"},
        "history": history,
    }
    path = folder / f"{session_id}.json"
    path.write_text(json.dumps({**fields, **more}))
    return path


async def test_a_session_comes_over_with_its_history_its_times_and_its_facts(hub: Alcove, old: Path) -> None:
    save(old, "4f1c2d3e", turns=2)
    report = await hub.archive.import_json_sessions(old, app="bot", zone=TOKYO)
    assert (report.created, report.messages, report.failed, report.notes) == (["4f1c2d3e"], 4, [], [])
    session = await hub.sessions.get("4f1c2d3e")
    assert (session.user_id, session.app, session.turn_count, session.message_count) == ("ana", "bot", 2, 4)
    assert session.metadata == {"channel": "web", "imported_from": "4f1c2d3e.json"}
    assert session.created_at == datetime(2024, 3, 1, 3, tzinfo=UTC)
    assert session.last_activity == datetime(2024, 3, 1, 4, tzinfo=UTC)
    assert session.expires_at is None
    messages = await session.last(4)
    assert [message.text for message in messages] == ["user 0", "assistant 0", "user 1", "assistant 1"]
    assert messages[-1].created_at == datetime(2024, 3, 1, 3, 0, 1, 5, tzinfo=UTC)
    assert [turn.number for turn in await hub.messages.turns(session.id)] == [2, 1]
    assert (await hub.sessions.list(metadata={"channel": "web"})).sessions[0].id == session.id


async def test_the_tree_comes_over_whatever_the_order_of_the_files(hub: Alcove, old: Path) -> None:
    save(old, "a-grandchild", parent_session_id="b-child", root_session_id="c-root", depth=2)
    save(old, "b-child", parent_session_id="c-root", root_session_id="c-root", depth=1)
    save(old, "c-root")
    report = await hub.archive.import_json_sessions(old)
    assert report.failed + report.notes == []
    found = await hub.sessions.get("a-grandchild")
    assert (found.parent_id, found.root_id, found.depth) == ("b-child", "c-root", 2)
    assert (await hub.sessions.get("c-root")).child_count == 1


async def test_a_missing_parent_and_a_circle_of_parents_are_cut_and_told(hub: Alcove, old: Path) -> None:
    save(old, "orphan", parent_session_id="nobody")
    save(old, "ring1", parent_session_id="ring2")
    save(old, "ring2", parent_session_id="ring1")
    save(old, "self", parent_session_id="self")
    report = await hub.archive.import_json_sessions(old)
    assert len(report.created) == 4
    assert {note.path for note in report.notes} >= {"orphan.json", "self.json"}
    assert all("became a root" in note.reason for note in report.notes)
    assert (await hub.sessions.get("orphan")).depth == 0
    assert {(await hub.sessions.get(one)).depth for one in ("ring1", "ring2")} == {0, 1}


async def test_twice_is_once_and_what_was_added_since_comes_after(hub: Alcove, old: Path) -> None:
    save(old, "s1", turns=2)
    await hub.archive.import_json_sessions(old)
    again = await hub.archive.import_json_sessions(old)
    assert (again.created, again.present, again.messages) == ([], ["s1"], 0)
    save(old, "s1", turns=5)
    more = await hub.archive.import_json_sessions(old)
    assert (more.continued, more.messages) == (["s1"], 6)
    assert (await hub.sessions.get("s1")).turn_count == 5
    assert [message.text for message in await hub.messages.last("s1", 1)] == ["assistant 4"]


async def test_a_session_that_went_on_here_is_left_alone(hub: Alcove, old: Path) -> None:
    save(old, "s1", turns=1)
    await hub.archive.import_json_sessions(old)
    await hub.messages.append("s1", [Draft("user", "something else")])
    assert (await hub.archive.import_json_sessions(old)).present == ["s1"]
    save(old, "s1", turns=5)
    report = await hub.archive.import_json_sessions(old)
    assert "has gone on here" in report.failed[0].reason
    assert (await hub.sessions.get("s1")).last_seq == 3


async def test_a_session_of_that_id_from_elsewhere_is_never_touched(hub: Alcove, old: Path) -> None:
    await hub.sessions.create(session_id="s1")
    trashed = await hub.sessions.create(session_id="s2")
    await trashed.delete()
    save(old, "s1")
    save(old, "s2")
    report = await hub.archive.import_json_sessions(old)
    assert [problem.path for problem in report.failed] == ["s1.json", "s2.json"]
    assert "does not come from this file" in report.failed[0].reason
    assert "in the trash" in report.failed[1].reason
    assert (await hub.sessions.get("s1")).last_seq == 0


async def test_a_dry_run_says_the_same_and_writes_nothing(hub: Alcove, old: Path) -> None:
    save(old, "s1", turns=3)
    save(old, "s2", parent_session_id="s1")
    (old / "half.json").write_text('{"session_id": "s3", "hist')
    dry = await hub.archive.import_json_sessions(old, dry_run=True)
    assert await hub.sessions.count() == 0
    real = await hub.archive.import_json_sessions(old)
    assert (dry.created, dry.messages, dry.failed, dry.notes) == (real.created, real.messages, real.failed, real.notes)


def _broken(folder: Path) -> dict[str, str]:
    """Write what cannot be read, and say what the report has to say about it."""
    save(folder, "good")
    files: dict[str, tuple[str | bytes, str]] = {
        "half.json": ('{"session_id": "x", "history": [{"role"', "only the beginning"),
        "empty.json": ("", "only the beginning"),
        "latin.json": ('{"session_id": "é"}'.encode("latin-1"), "not JSON"),
        "list.json": ("[]", "no object"),
        "deep.json": ("[" * 100_000, "not JSON"),
        "other.json": ('{"name": "package"}', "no session_id"),
        "path.json": ('{"session_id": "../../etc"}', "not a session id"),
        "parent.json": ('{"session_id": "p", "parent_session_id": 7}', "parent_session_id"),
        "parent2.json": ('{"session_id": "p2", "parent_session_id": "../x"}', "not a session id"),
        "twice.json": ('{"session_id": "good"}', "already"),
        "history.json": ('{"session_id": "h", "history": "text"}', "no list"),
        "entry.json": ('{"session_id": "e", "history": ["text"]}', "message 1"),
        "role.json": ('{"session_id": "r", "history": [{"role": "bot", "content": "x"}]}', "'bot'"),
        "norole.json": ('{"session_id": "n", "history": [{"content": "x"}]}', "message 1"),
        "content.json": ('{"session_id": "c", "history": [{"role": "user", "content": 7}]}', "message 1"),
        "surrogate.json": ('{"session_id": "u", "history": [{"role": "user", "content": "\\ud800"}]}', ""),
        "huge.json": (
            json.dumps({"session_id": "g", "history": [{"role": "user", "content": "x" * (limits.MESSAGE_BYTES + 1)}]}),
            "message 1",
        ),
        "user.json": (json.dumps({"session_id": "l", "user_id": "x" * 300}), "user_id"),
        "meta.json": (json.dumps({"session_id": "m", "metadata": {"a": "x" * limits.METADATA_BYTES}}), "metadata"),
    }
    for name, (content, _) in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "linked.json").symlink_to(folder / "good.json")
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "fifo.json")
    with (folder / "sparse.json").open("wb") as sparse:
        sparse.truncate(limits.IMPORT_FILE_BYTES + 1)
    (folder / "notes.txt").write_text("not looked at")
    return {
        **{name: reason for name, (_, reason) in files.items()},
        "linked.json": "link",
        "loop.json": "link",
        "folder.json": "",
        "fifo.json": "no regular file",
        "sparse.json": "bytes",
    }


async def test_what_cannot_be_read_is_told_with_its_reason_and_the_rest_comes_over(hub: Alcove, old: Path) -> None:
    expected = _broken(old)
    report = await hub.archive.import_json_sessions(old)
    assert report.created == ["good"]
    told = {problem.path: problem.reason for problem in report.failed}
    assert told.keys() == expected.keys()
    assert {path: told[path] for path, reason in expected.items() if reason not in told[path] or not told[path]} == {}


async def test_odd_times_counts_and_names_are_taken_as_well_as_they_can_be_and_noted(hub: Alcove, old: Path) -> None:
    save(old, "future", last_active="9999-01-01T00:00:00", created_at="2031-01-01T00:00:00")
    save(old, "epoch", created_at=1_700_000_000, last_active=1_700_000_100.5, history=[])
    save(old, "none", created_at=None, last_active="yesterday", history=[entry(1, timestamp=None)])
    save(old, "aware", created_at="2024-03-01T12:00:00Z", history=None)
    save(old, "counted", turns=2, message_count=7)
    save(old, "names", metadata={f"name {number}": number for number in range(100)})
    save(old, "nobody", user_id=None, metadata=None)
    save(old, "number", user_id=42)
    report = await hub.archive.import_json_sessions(old, zone=UTC)
    assert report.failed == []
    assert len(report.created) == 8
    notes = {note.path: note.reason for note in report.notes}
    assert "times" in notes["future.json"]
    assert "says 7, the history has 2" in notes["counted.json"]
    assert "metadata" in notes["names.json"]
    assert (await hub.sessions.get("epoch")).last_activity == datetime(2023, 11, 14, 22, 15, 0, 500_000, tzinfo=UTC)
    assert (await hub.sessions.get("aware")).created_at == datetime(2024, 3, 1, 12, tzinfo=UTC)
    assert (await hub.sessions.get("names")).metadata["metadata"] == {f"name {number}": number for number in range(100)}
    assert (await hub.sessions.get("nobody")).user_id == ""
    assert (await hub.sessions.get("number")).user_id == "42"
    future = await hub.sessions.get("future")
    assert future.last_activity <= datetime.now(UTC)


async def test_a_tree_deeper_than_ours_may_be_is_told(hub: Alcove, old: Path) -> None:
    for depth in range(limits.DEPTH + 3):
        save(old, f"s{depth:02}", parent_session_id=f"s{depth - 1:02}" if depth else None)
    dry = await hub.archive.import_json_sessions(old, dry_run=True)
    report = await hub.archive.import_json_sessions(old)
    assert [problem.path for problem in report.failed] == [f"s{limits.DEPTH + 1}.json"]
    assert dry.failed == report.failed
    assert f"s{limits.DEPTH + 2}" in report.created, "its parent is not there, so it is a root"


async def test_a_folder_that_is_not_there_is_an_error(hub: Alcove, tmp_path: Path) -> None:
    for folder in (tmp_path / "none", save(tmp_path, "file"), "a\0b"):
        with pytest.raises(InvalidError):
            await hub.archive.import_json_sessions(folder)


async def test_an_import_cut_off_in_the_middle_of_a_history_goes_on(
    hub: Alcove, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(old, "s1", turns=30, history=[entry(number % 60) for number in range(200)])

    class Stopped(Exception):
        pass

    write, steps = hub.database.write, 0

    async def some(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += args[0] is queries.append
        if steps > 1:
            raise Stopped
        return await write(*args, **kwargs)

    monkeypatch.setattr(hub.database, "write", some)
    with pytest.raises(Stopped):
        await hub.archive.import_json_sessions(old)
    monkeypatch.undo()
    assert 0 < (await hub.sessions.get("s1")).last_seq < 200
    report = await hub.archive.import_json_sessions(old)
    assert report.continued == ["s1"]
    assert (await hub.sessions.get("s1")).last_seq == 200


async def test_progress_is_told_from_the_first_file_to_the_last(hub: Alcove, old: Path) -> None:
    for number in range(3):
        save(old, f"s{number}")
    told: list[tuple[int, int]] = []
    await hub.archive.import_json_sessions(old, progress=lambda done, of: told.append((done, of)))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
