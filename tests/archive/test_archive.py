"""Archives: what is exported comes back as it was, once, or not at all."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import alcove
from alcove import limits
from alcove.archive.model import Imported
from alcove.clock import Clock, SystemClock
from alcove.dialogs.model import FREE_FORM
from alcove.errors import AlreadyExistsError, ConflictError, InvalidError, SessionNotFoundError, StorageError
from alcove.hub import Alcove
from alcove.messages.model import Draft
from alcove.sessions.model import Changes
from alcove.testing.clock import FrozenClock
from archive.archives import Members, added, attempt, changed, kill_at, members, save, tar_gz

DIALOG = {
    "name": "photo",
    "version": 1,
    "start": "waiting",
    "slots": {"count": {"type": "integer", "max": 9}},
    "events": {"sent": {"needs": ["count"]}},
    "states": {
        "waiting": {"on": {"sent": "there"}},
        "there": {"on": {"sent": "there"}, "timeout": {"after": "1h", "reset": True}},
    },
}

pytestmark = pytest.mark.usefixtures("homes")


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALCOVE_HOME", str(tmp_path / "home"))


@asynccontextmanager
async def opened(
    tmp_path: Path, name: str, database: str = "memory://", clock: Clock | None = None
) -> AsyncGenerator[Alcove]:
    async with alcove.open(database, workspaces=tmp_path / name, clock=clock) as hub:
        yield hub


async def fill(hub: Alcove) -> None:
    """A tree of three, with all that an archive has to keep."""
    assert hub.workspaces
    ana = await hub.sessions.create(
        session_id="ana",
        user_id="ana",
        app="bot",
        key="main",
        title="Ünï \x1b[2J",
        metadata={"n": 1, "deep": {"a": [None]}},
    )
    await ana.append_turn("hello", "there\0nul")
    await ana.append([Draft("user", [{"type": "text", "text": "parts"}], name="Ana", metadata={"x": 1})])
    await ana.append([Draft("assistant", "", tool_calls=[{"id": "c1"}]), Draft("tool", "42", tool_call_id="c1")])
    await hub.messages.pop("ana")
    kid = await hub.sessions.create(session_id="kid", parent_id="ana", user_id="someone else")
    await kid.append_turn("a", "b")
    await hub.messages.clear("kid")
    await kid.append_turn("c", "d")
    await hub.sessions.create(session_id="leaf", parent_id="kid", ttl_s=3600)
    await hub.sessions.update("ana", Changes(pinned=True))
    await hub.dialogs.define(DIALOG)
    await hub.dialogs.start("ana", "photo")
    await hub.dialogs.step("ana", "sent", {"count": 2}, messages=[Draft("user", "two")])
    await hub.dialogs.start("leaf", FREE_FORM)
    await hub.dialogs.put("leaf", "anything", {"n": None})
    await hub.workspaces.write("ana", "src/main.py", b"print(1)\n")
    os.chmod(hub.workspaces.folder / "ana" / "src" / "main.py", 0o755)
    os.symlink("src/main.py", hub.workspaces.folder / "ana" / "link")


async def _dialog(hub: Alcove, session_id: str) -> list[object]:
    steps = await hub.dialogs.steps(session_id)
    return [steps, await hub.dialogs.get(session_id)] if steps else []


async def told(hub: Alcove) -> dict[str, Any]:
    """Everything about every session that an archive has to keep."""
    found: dict[str, Any] = {}
    for session in (await hub.sessions.list()).sessions:
        assert hub.workspaces
        page = await hub.messages.page(session.id, after=0, hidden=True)
        visible = {one.seq for one in await hub.messages.last(session.id, 100)}
        listing = await hub.workspaces.list_files(session.id)
        found[session.id] = {
            "fields": [
                getattr(session, name)
                for name in ("app", "user_id", "key", "parent_id", "root_id", "depth", "title", "metadata", "pinned")
                + ("ttl_us", "created_us", "last_seq", "message_count", "turn_count", "child_count", "status")
            ],
            "messages": [
                (one.seq, one.turn, one.role, one.content, one.detail, one.created_us, one.seq in visible)
                for one in page.messages
            ],
            "turns": [
                (one.number, one.status, one.opened_us, one.closed_us) for one in await hub.messages.turns(session.id)
            ],
            "dialog": await _dialog(hub, session.id),
            "files": [(one.path, one.kind, one.size_bytes) for one in listing.files],
        }
    return found


@pytest.fixture
async def archive(tmp_path: Path) -> Path:
    async with opened(tmp_path, "first") as hub:
        await fill(hub)
        report = await hub.archive.export_archive(tmp_path / "all.alcove")
        assert (report.sessions, report.messages, report.workspaces) == (["ana", "kid", "leaf"], 10, 3)
    return tmp_path / "all.alcove"


async def test_what_comes_back_is_what_went(tmp_path: Path, database_url: str) -> None:
    file = tmp_path / "all.alcove"
    async with opened(tmp_path, "first") as hub:
        await fill(hub)
        before = await told(hub)
        await hub.archive.export_archive(file)
    async with opened(tmp_path, "second", database_url) as hub:
        report = await hub.archive.import_archive(file)
        assert (report.created, report.messages, report.files) == (["ana", "kid", "leaf"], 10, 2)
        assert await told(hub) == before
        assert [one.id for one in (await hub.sessions.list(metadata={"n": 1})).sessions] == ["ana"]
        assert (tmp_path / "second" / "ana" / "src" / "main.py").stat().st_mode & 0o777 == 0o755
        assert os.readlink(tmp_path / "second" / "ana" / "link") == "src/main.py"
        assert (await hub.messages.append_turn("kid", "e", "f")).first_seq == 5


async def test_twice_is_once_and_what_has_gone_on_here_stays(tmp_path: Path, archive: Path) -> None:
    async with opened(tmp_path, "second") as hub:
        await hub.archive.import_archive(archive)
        before = await told(hub)
        again = await hub.archive.import_archive(archive)
        assert (again.created, again.present, again.messages, again.files) == ([], ["ana", "kid", "leaf"], 0, 0)
        assert await told(hub) == before
        assert hub.workspaces
        await hub.messages.append_turn("ana", "more", "and more")
        await hub.workspaces.write("ana", "src/main.py", b"changed here")
        assert (await hub.archive.import_archive(archive)).present == ["ana", "kid", "leaf"]
        assert await hub.workspaces.read("ana", "src/main.py") == b"changed here"
        assert (await hub.sessions.get("ana")).last_seq == 8


@pytest.mark.parametrize(
    "what", ["another session", "another history", "another dialog", "less", "in the trash", "key"]
)
async def test_another_session_of_that_name_is_a_conflict_and_nothing_changes(
    tmp_path: Path, archive: Path, what: str
) -> None:
    async with opened(tmp_path, "second") as hub:
        if what == "another session":
            await hub.sessions.create(session_id="kid")
        elif what == "key":
            await hub.sessions.create(session_id="other", user_id="ana", app="bot", key="main")
        elif what == "another dialog":
            await hub.dialogs.define(DIALOG | {"slots": {"count": {"type": "integer"}}})
        else:
            found = members(archive)
            if what == "another history":
                found = changed(found, "history/kid.jsonl", lambda lines: lines[-1].update(content="no"))
            elif what == "less":
                found = changed(found, "history/kid.jsonl", lambda lines: lines.pop())
                found = changed(found, "sessions.jsonl", lambda lines: lines[1].update(messages=3))
                found = changed(found, "end.json", lambda lines: lines[0].update(messages=9))
            await hub.archive.import_archive(save(tmp_path / "other.alcove", found))
            if what == "in the trash":
                await hub.sessions.delete("kid")
        before = await told(hub)
        with pytest.raises(ConflictError):
            await hub.archive.import_archive(archive)
        assert await told(hub) == before


async def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path, archive: Path) -> None:
    async with opened(tmp_path, "second") as hub:
        report = await hub.archive.import_archive(archive, dry_run=True)
        assert (report.created, report.messages) == (["ana", "kid", "leaf"], 10)
        assert await told(hub) == {}


async def test_a_part_of_a_tree_finds_its_parent_or_becomes_a_root(tmp_path: Path) -> None:
    file = tmp_path / "kid.alcove"
    async with opened(tmp_path, "first") as hub:
        await fill(hub)
        assert (await hub.archive.export_archive(file, ["kid"])).sessions == ["kid", "leaf"]
        await hub.sessions.delete("kid", purge=True)
        await hub.archive.import_archive(file)
        assert [one.id for one in await hub.sessions.tree("ana")] == ["ana", "kid", "leaf"]
    async with opened(tmp_path, "second") as hub:
        report = await hub.archive.import_archive(file)
        assert "became a root" in report.notes[0].reason
        assert [one.id for one in await hub.sessions.tree("kid")] == ["kid", "leaf"]


async def test_tenants_do_not_see_each_others_sessions(tmp_path: Path, archive: Path) -> None:
    async with opened(tmp_path, "second") as hub:
        await hub.archive.import_archive(archive, tenant="acme")
        assert await told(hub) == {}
        assert [one.id for one in (await hub.sessions.list(tenant="acme")).sessions] == ["leaf", "kid", "ana"]
        with pytest.raises(SessionNotFoundError):
            await hub.archive.export_archive(tmp_path / "x.alcove", ["kid"])
        assert (await hub.archive.export_archive(tmp_path / "x.alcove")).sessions == []
        with pytest.raises(ConflictError, match="another tenant's"):
            await hub.archive.import_archive(archive)
        again = await hub.archive.export_archive(tmp_path / "y.alcove", tenant="acme")
        assert again.sessions == ["ana", "kid", "leaf"]


async def test_one_with_a_ttl_begins_to_be_idle_when_it_comes(tmp_path: Path, archive: Path) -> None:
    found = changed(
        members(archive), "sessions.jsonl", lambda lines: lines[2].update(last_activity=1.0, created_at=1.0)
    )
    async with opened(tmp_path, "second") as hub:
        await hub.archive.import_archive(save(tmp_path / "old.alcove", found))
        leaf = await hub.sessions.get("leaf")
        assert (leaf.status, leaf.created_us) == ("active", 1_000_000)


@pytest.mark.parametrize("steps", [range(2, 100, 5), pytest.param(range(1, 100), marks=pytest.mark.long)])
async def test_an_import_that_was_killed_goes_on_when_it_is_repeated(
    tmp_path: Path, archive: Path, steps: range
) -> None:
    async with opened(tmp_path, "whole") as hub:
        await hub.archive.import_archive(archive)
        whole = await told(hub)
    for step in steps:
        clock = FrozenClock(SystemClock().now())
        async with opened(tmp_path, f"base{step}", clock=clock) as hub:
            with pytest.MonkeyPatch.context() as patch:
                killed = kill_at(hub, step, patch)
                await attempt(hub, archive)
                patch.undo()
            if not killed():
                assert step > 8
                break
            clock.move(limits.LEASE_S)  # it may have held the lease of a workspace
            report = await hub.archive.import_archive(archive)
            assert {*report.created, *report.continued, *report.present} == {"ana", "kid", "leaf"}
            assert await told(hub) == whole


def _lines(name: str, change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Members], Members]:
    return lambda found: changed(found, name, change)


BROKEN: dict[str, tuple[Callable[[Members], Members], str]] = {
    "no manifest": (lambda found: found[1:], "no archive of Alcove"),
    "another format": (_lines("alcove.json", lambda lines: lines[0].update(format="zip")), "format 'zip'"),
    "a later version": (_lines("alcove.json", lambda lines: lines[0].update(version=3)), "version 3"),
    "no sessions": (lambda found: [found[0], *found[2:]], "sessions.jsonl is missing"),
    "no end": (lambda found: found[:-1], "no end"),
    "no history": (lambda found: [one for one in found if one[0].name != "history/kid.jsonl"], "kid is missing"),
    "too few messages": (_lines("history/kid.jsonl", lambda lines: lines.pop()), "kid has 3 messages"),
    "a hole": (_lines("history/kid.jsonl", lambda lines: lines.pop(-2)), "message 4 where 3"),
    "a turn of nowhere": (_lines("history/kid.jsonl", lambda lines: lines[-1].update(turn=9)), "turn 9"),
    "a wrong role": (_lines("history/kid.jsonl", lambda lines: lines[-1].update(role="root")), "role 'root'"),
    "a wrong type": (_lines("history/kid.jsonl", lambda lines: lines[-1].update(content=7)), "a history"),
    "a lone surrogate": (_lines("history/kid.jsonl", lambda lines: lines[-1].update(content="\ud800")), "history"),
    "no time": (_lines("history/kid.jsonl", lambda lines: lines[-1].update(created_at=-1)), "is no time"),
    "a time past all": (_lines("sessions.jsonl", lambda lines: lines[0].update(created_at=1e300)), "is no time"),
    "an id that leads out": (_lines("sessions.jsonl", lambda lines: lines[0].update(session_id="../x")), "session_id"),
    "twice the same": (_lines("sessions.jsonl", lambda lines: lines.append(lines[0])), "twice"),
    "a child first": (_lines("sessions.jsonl", lambda lines: lines.reverse()), "before its parent"),
    "a circle": (_lines("sessions.jsonl", lambda lines: lines[0].update(parent_id="leaf")), "before its parent"),
    "a title too long": (_lines("sessions.jsonl", lambda lines: lines[0].update(title="x" * 10**5)), "title"),
    "metadata too large": (
        _lines("sessions.jsonl", lambda lines: lines[0].update(metadata={"a": "x" * 10**6})),
        "metad",
    ),
    "a negative count": (_lines("sessions.jsonl", lambda lines: lines[0].update(messages=-1)), "counts -1"),
    "a TTL of nothing": (_lines("sessions.jsonl", lambda lines: lines[0].update(ttl_s=-5)), "ttl_s"),
    "a dialog with a fault": (
        _lines("dialogs.jsonl", lambda lines: lines[0].update(source='{"name": "photo"}')),
        "dialog 'photo'",
    ),
    "a dialog of another name": (_lines("dialogs.jsonl", lambda lines: lines[0].update(name="x")), "of 'photo'"),
    "no dialog": (lambda found: [one for one in found if one[0].name != "dialogs.jsonl"], "'photo' is missing"),
    "a state of nowhere": (_lines("history/ana.jsonl", lambda lines: lines[-1].update(state="x")), "state 'x'"),
    "a slot with a fault": (
        _lines("history/ana.jsonl", lambda lines: lines[-1].update(slots={"count": 10})),
        "slot 'count'",
    ),
    "a step too few": (_lines("history/ana.jsonl", lambda lines: lines.pop()), "3 steps|4 steps"),
    "a step of later": (_lines("history/ana.jsonl", lambda lines: lines[-1].update(last_seq=99)), "there are 6"),
    "a stranger's history": (lambda found: added(found, "history/else.jsonl"), "belongs to no session"),
    "a file with a way out": (lambda found: added(found, "../../etc/passwd", b"x"), "belongs to no session"),
    "an absolute file": (lambda found: added(found, "/etc/passwd", b"x"), "belongs to no session"),
    "a member twice": (lambda found: added(found, "history/kid.jsonl"), "where nothing should be"),
    "something after the end": (lambda found: [*found, (tarfile.TarInfo("x"), b"")], "where nothing should be"),
    "a link": (lambda found: added(found, "history/x", kind=tarfile.SYMTYPE), "is a link"),
    "a device": (lambda found: added(found, "files/x", kind=tarfile.CHRTYPE), "is a device"),
    "no JSON": (lambda found: [(i, b"{" if i.name == "end.json" else c) for i, c in found], "no end"),
    "deep JSON": (
        lambda found: [(i, b"[" * 10**6 + b"\n" if i.name == "end.json" else c) for i, c in found],
        "end.json",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_an_archive_that_is_not_right_changes_nothing(tmp_path: Path, archive: Path, what: str) -> None:
    breaking, why = BROKEN[what]
    broken = save(tmp_path / "broken.alcove", breaking(members(archive)))
    async with opened(tmp_path, "second") as hub:
        with pytest.raises(InvalidError, match=why):
            await hub.archive.import_archive(broken)
        assert await told(hub) == {}


HOSTILE = {
    "out by name": tar_gz(("../../out", tarfile.REGTYPE, "x")),
    "an absolute name": tar_gz(("/tmp/out", tarfile.REGTYPE, "x")),
    "out by a link": tar_gz(("l", tarfile.SYMTYPE, "../../.."), ("l/out", tarfile.REGTYPE, "x")),
    "a hard link to elsewhere": tar_gz(("l", tarfile.LNKTYPE, "/etc/passwd")),
    "a device": tar_gz(("d", tarfile.CHRTYPE, "")),
    "half of it": tar_gz(("a", tarfile.REGTYPE, "x" * 9999))[:40],
    "no archive": b"no archive",
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_files_that_lead_out_take_everything_back(tmp_path: Path, archive: Path, what: str) -> None:
    found = [
        (info, HOSTILE[what] if info.name == "files/kid.tar.gz" else content) for info, content in members(archive)
    ]
    async with opened(tmp_path, "second") as hub:
        with pytest.raises(InvalidError):
            await hub.archive.import_archive(save(tmp_path / "hostile.alcove", found))
        assert await told(hub) == {}
        assert [one.name for one in (tmp_path / "second").iterdir()] == [".alcove"]
        assert not (tmp_path / "out").exists()


async def test_every_beginning_of_an_archive_is_refused(tmp_path: Path, archive: Path) -> None:
    whole = archive.read_bytes()
    end = whole.rindex(b"end.json") + 1024  # its header and its content
    async with opened(tmp_path, "second") as hub:
        for length in [*range(0, end, 509), end - 1]:
            (tmp_path / "cut.alcove").write_bytes(whole[:length])
            with pytest.raises(InvalidError):
                await hub.archive.import_archive(tmp_path / "cut.alcove", dry_run=True)


async def test_a_line_that_is_too_long_is_refused(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ARCHIVE_LINE_BYTES", 1000)
    found = changed(members(archive), "history/kid.jsonl", lambda lines: lines[-1].update(content="x" * 300_000))
    async with opened(tmp_path, "second") as hub:
        with pytest.raises(InvalidError, match="a line of more than 1000 bytes"):
            await hub.archive.import_archive(save(tmp_path / "long.alcove", found))


async def test_what_is_not_there_or_no_file_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with opened(tmp_path, "second") as hub:
        for name in ("nowhere", "pipe", "."):
            with pytest.raises(InvalidError):
                await hub.archive.import_archive(tmp_path / name)
        with pytest.raises(SessionNotFoundError):
            await hub.archive.export_archive(tmp_path / "x.alcove", ["nobody"])
        with pytest.raises(StorageError):
            await hub.archive.export_archive(tmp_path / "nowhere" / "x.alcove")
        (tmp_path / "x.alcove").write_text("mine")
        with pytest.raises(AlreadyExistsError):
            await hub.archive.export_archive(tmp_path / "x.alcove")
        assert (tmp_path / "x.alcove").read_text() == "mine"
        await hub.archive.export_archive(tmp_path / "x.alcove", replace=True)
        assert {one.name for one in tmp_path.iterdir()} >= {"x.alcove", "pipe"}
        assert not [one for one in tmp_path.iterdir() if one.name.startswith(".x")]


async def test_an_export_is_for_its_owner_and_plain_tools_read_it(tmp_path: Path, archive: Path) -> None:
    assert archive.stat().st_mode & 0o777 == 0o600
    found = {info.name: content for info, content in members(archive)}
    assert json.loads(found["alcove.json"])["format"] == "alcove-archive"
    lines = [json.loads(line) for line in found["history/ana.jsonl"].splitlines()]
    assert [line["type"] for line in lines] == ["turn"] * 3 + ["message"] * 6 + ["step"] * 2
    assert lines[3] == {"type": "message", "seq": 1, "turn": 1, "role": "user", "content": "hello"} | {
        "created_at": lines[3]["created_at"]
    }


async def test_progress_is_told_to_the_end(tmp_path: Path, archive: Path) -> None:
    steps: list[tuple[int, int]] = []

    def hear(done: int, of: int) -> None:
        steps.append((done, of))

    async with opened(tmp_path, "second") as hub:
        report: Imported = await hub.archive.import_archive(archive, progress=hear)
        assert report.files == 2
    assert steps == sorted(steps)
    assert steps[-1] == (2 * archive.stat().st_size,) * 2
