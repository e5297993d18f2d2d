"""What an archive keeps of messages besides their words: large parts, pins, summaries, usage, repairs."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import os
import random
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import alcove
from alcove import limits
from alcove.clock import Clock, SystemClock
from alcove.errors import ConflictError, InvalidError, TooLargeError
from alcove.hub import Alcove
from alcove.messages.content import Part
from alcove.messages.model import Draft, Message
from alcove.rights.writing import rights
from alcove.sessions.model import Changes
from alcove.testing.clock import FrozenClock
from archive.archives import Members, added, attempt, changed, kill_at, members, save

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALCOVE_HOME", str(tmp_path / "home"))


@asynccontextmanager
async def opened(
    tmp_path: Path, name: str, database: str = "memory://", clock: Clock | None = None
) -> AsyncGenerator[Alcove]:
    async with alcove.open(database, workspaces=tmp_path / name, clock=clock) as hub:
        yield hub


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def image(data: bytes) -> Part:
    return {"type": "image", "media_type": "image/png", "data": base64.b64encode(data).decode()}


async def fill(hub: Alcove, size: int = 100_000) -> None:
    """Two sessions with everything that a message may have; `size` is that of the largest parts, in bytes."""
    await hub.sessions.create(session_id="ana", title="Photos \u202e of\x07 Ana", lifetime_s=10**6)
    await hub.runs.set_ceiling("ana", rights(network="none", write=["/srv/a"], bound=True))
    photo = image(noise(size))
    url: Part = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + str(photo["data"])}}
    table: Part = {"type": "data", "value": {"rows": [[n, str(n) * 9] for n in range(3000)]}}
    shot: Part = {"type": "tool_result", "tool_call_id": "c1", "content": [{"type": "text", "text": "see"}, photo]}
    await hub.messages.append("ana", [Draft("system", "Be brief.")])
    for n in range(4):
        await hub.messages.append("ana", [Draft("user", f"question {n}"), Draft("assistant", f"answer {n}")])
    await hub.messages.pin("ana", 2)
    assert await hub.messages.compact("ana", lambda found: f"a summary of {len(found)}", keep_rounds=1)
    await hub.messages.append("ana", [Draft("user", [{"type": "text", "text": "look"}, photo, url, photo])])
    call: Part = {"type": "tool_call", "id": "c1", "name": "shoot", "arguments": {}}
    used = {"input_tokens": 812, "output_tokens": 5, "cached": 0}
    await hub.messages.append("ana", [Draft("assistant", [call], usage=used), Draft("tool", [shot])])
    await hub.messages.append("ana", [Draft("assistant", "ß\0" * (size // 2), usage={"output_tokens": 1})])
    await hub.messages.append("ana", [Draft("user", [table, {"type": "of the future", "x": "y" * 70_000}])])
    await hub.messages.append("ana", [Draft("assistant", "", tool_calls=[{"id": "c9", "name": "never"}])])
    await hub.messages.append("ana", [Draft("user", "and?")])
    assert await hub.messages.repair("ana")
    await hub.sessions.create(session_id="bob")
    await hub.messages.append("bob", [Draft("user", [photo])])
    await hub.messages.pop("bob")


async def stored(hub: Alcove, session_id: str) -> list[Message]:
    """Every message as it lies in the store, objects included."""
    found: list[Message] = []
    after = 0
    while True:
        page = await hub.messages.page(session_id, after=after, hidden=True)
        found += page.messages
        if page.next_after is None:
            return found
        after = page.next_after


def digest(found: Iterable[Message]) -> list[tuple[Any, ...]]:
    """The same in few characters: a report of megabytes helps nobody."""
    return [
        (
            *(one.seq, one.turn, one.role, one.format, one.hidden, one.created_us, one.kept, one.detail),
            hashlib.sha256(one.raw.encode()).hexdigest(),
            {name: hashlib.sha256(data).hexdigest() for name, data in (one.objects or {}).items()},
            hashlib.sha256(msgspec.json.encode(one.content)).hexdigest(),
        )
        for one in found
    ]


async def whole(hub: Alcove) -> list[Any]:
    return [
        *[digest(await stored(hub, one)) for one in ("ana", "bob")],
        digest(await hub.messages.window("ana", rounds=3)),
        (await hub.sessions.get("ana")).title,
        await hub.runs.ceiling("ana"),
        await hub.objects.usage(),
    ]


@pytest.fixture
async def archive(tmp_path: Path) -> Path:
    async with opened(tmp_path, "first") as hub:
        await fill(hub)
        await hub.archive.export_archive(tmp_path / "all.alcove")
    return tmp_path / "all.alcove"


@pytest.mark.parametrize("size", [100_000, pytest.param(10_000_000, marks=pytest.mark.long)])
async def test_every_part_pin_summary_usage_and_repair_comes_back_to_the_byte(
    tmp_path: Path, database_url: str, size: int
) -> None:
    file = tmp_path / "all.alcove"
    async with opened(tmp_path, "first") as hub:
        await fill(hub, size)
        before, ends = await whole(hub), (await hub.sessions.get("ana")).ends_us
        kinds = {(one.kept, bool(one.summary_of), bool(one.detail.usage)) for one in await stored(hub, "ana")}
        assert {(0, False, False), (1, False, False), (2, False, False), (0, True, False), (0, False, True)} <= kinds
        await hub.archive.export_archive(file)
    async with opened(tmp_path, "second", database_url) as hub:
        report = await hub.archive.import_archive(file)
        assert report.notes == report.failed == []
        assert await whole(hub) == before
        assert (await hub.sessions.get("ana")).ends_us == ends
        await hub.archive.export_archive(tmp_path / "again.alcove")
        assert [wrong async for _, wrong in hub.objects.examine() if wrong] == []
        assert (await hub.archive.import_archive(file)).present == ["ana", "bob"]
        for name in ("ana", "bob"):
            await hub.sessions.delete(name, purge=True)
        assert (await hub.objects.usage()).objects == 0
    assert _said(tmp_path / "again.alcove") == _said(file)


def _said(file: Path) -> dict[str, bytes]:
    return {info.name: content for info, content in members(file) if info.name.startswith(("history/", "objects/"))}


async def test_a_part_is_in_an_archive_once_as_the_file_that_it_is(archive: Path) -> None:
    found = [(info.name, content) for info, content in members(archive)]
    names = [name for name, _ in found]
    photo = noise(100_000)
    place = names.index(f"objects/{hashlib.sha256(photo).hexdigest()}")
    assert found[place][1] == photo
    assert len(names) == len({*names})
    assert place < names.index("history/ana.jsonl")
    for name, content in found:
        if name.startswith("objects/"):
            assert hashlib.sha256(content).hexdigest() == name.removeprefix("objects/")


async def test_much_goes_out_and_comes_in_with_little_memory(tmp_path: Path) -> None:
    each, count = 2 * limits.MIB, 48
    file = tmp_path / "all.alcove"
    async with opened(tmp_path, "first") as hub:
        await hub.sessions.create(session_id="ana")
        for n in range(count):
            await hub.messages.append("ana", [Draft("user", [image(noise(each, n))])])
        tracemalloc.start()
        try:
            await hub.archive.export_archive(file)
            _, out_peak = tracemalloc.get_traced_memory()
            async with opened(tmp_path, "second") as other:
                tracemalloc.reset_peak()
                await other.archive.import_archive(file)
                _, in_peak = tracemalloc.get_traced_memory()
                assert (await other.objects.usage()).size_bytes == each * count
        finally:
            tracemalloc.stop()
    assert file.stat().st_size > each * count
    assert out_peak < 12 * each, out_peak
    assert in_peak < limits.OBJECT_BYTES + 12 * each, in_peak


async def test_an_object_that_is_swept_on_its_way_is_written_again(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, "second") as hub:
        keep = hub.objects.keep
        lost = 0

        async def keep_and_lose(contents: Iterable[bytes]) -> dict[str, str]:
            nonlocal lost
            files = await keep(contents)
            if not lost:
                lost = (await hub.objects.sweep(grace_s=0)).objects
            return files

        monkeypatch.setattr(hub.objects, "keep", keep_and_lose)
        await hub.archive.import_archive(archive)
        assert lost
        assert [wrong async for _, wrong in hub.objects.examine() if wrong] == []


async def test_an_import_that_was_killed_among_parts_goes_on(tmp_path: Path, archive: Path) -> None:
    async with opened(tmp_path, "whole") as hub:
        await hub.archive.import_archive(archive)
        expected = (await whole(hub))[:-1]
    for step in itertools.count(2, 3):
        clock = FrozenClock(SystemClock().now())
        async with opened(tmp_path, f"base{step}", clock=clock) as hub:
            with pytest.MonkeyPatch.context() as patch:
                killed = kill_at(hub, step, patch)
                await attempt(hub, archive)
            if not killed():
                assert step > 10
                return
            clock.move(limits.LEASE_S)
            await hub.archive.import_archive(archive)
            assert (await whole(hub))[:-1] == expected
            await hub.objects.sweep(grace_s=0)
            assert (await hub.objects.usage()).unused == 0


async def test_one_past_its_end_has_a_day(tmp_path: Path, archive: Path) -> None:
    old = changed(members(archive), "sessions.jsonl", lambda found: found[0].update(ends_at=1.0))
    async with opened(tmp_path, "second") as hub:
        await hub.archive.import_archive(save(tmp_path / "old.alcove", old))
        session = await hub.sessions.get("ana")
        assert session.status == "active"
        assert 0 < session.ends_us - SystemClock().now() <= limits.RESTORED_S * 1_000_000


async def test_a_bound_of_what_runs_may_do_comes_along(tmp_path: Path, archive: Path) -> None:
    async with opened(tmp_path, "second") as hub:
        await hub.archive.import_archive(archive)
        assert await hub.runs.ceiling("ana") == rights(network="none", write=["/srv/a"], bound=True)
        assert await hub.runs.ceiling("bob") is None


# -- archives of before --------------------------------------------------------------------------------------------


async def test_an_archive_of_version_1_is_still_read(tmp_path: Path, database_url: str) -> None:
    async with opened(tmp_path, "second", database_url) as hub:
        report = await hub.archive.import_archive(GOLDEN / "version-1.alcove")
        assert (report.created, report.messages, report.files) == (["ana", "kid", "leaf"], 10, 2)
        assert [one.text for one in await hub.messages.last("ana")] == ["hello", "there\0nul", "parts", "", "two"]
        assert (await hub.sessions.get("ana")).title == "Ünï \x1b[2J"
        # Its time-out has been due since, and empties the slots when somebody looks: so the history is looked at.
        assert (await hub.dialogs.steps("ana"))[1].slots == {"count": 2}
        assert hub.workspaces
        assert await hub.workspaces.read("ana", "src/main.py") == b"print(1)\n"


async def test_an_archive_of_version_2_is_still_read(tmp_path: Path, database_url: str) -> None:
    async with opened(tmp_path, "second", database_url) as hub:
        (tmp_path / "old.alcove").write_bytes(gzip.decompress((GOLDEN / "version-2.alcove.gz").read_bytes()))
        report = await hub.archive.import_archive(tmp_path / "old.alcove")
        assert (report.created, report.messages) == (["ana", "bob"], 19)
        found = await stored(hub, "ana")
        assert [one.seq for one in found if one.kept == 1] == [2]
        assert [(one.text, one.summary_of and one.summary_of.last) for one in found if one.summary_of] == [
            ("a summary of 6", 7)
        ]
        assert [one.detail.usage for one in found if one.detail.usage] == [
            {"input_tokens": 812, "output_tokens": 5, "cached": 0},
            {"output_tokens": 1},
        ]
        assert found[10].content == [
            {"type": "text", "text": "look"},
            image(noise(70_000)),
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image(noise(70_000))['data']}"}},
            image(noise(70_000)),
        ]


async def test_what_came_by_an_archive_of_version_1_agrees_with_one_of_version_2(tmp_path: Path) -> None:
    """The first kept large texts in their rows; the second keeps them apart."""
    text = "long " * 20_000
    async with opened(tmp_path, "first") as hub:
        await hub.sessions.create(session_id="ana")
        await hub.messages.append("ana", [Draft("user", text)])
        await hub.archive.export_archive(tmp_path / "two.alcove")
    found = changed(
        members(tmp_path / "two.alcove"), "history/ana.jsonl", lambda lines: lines[1].update(content=text, objects=[])
    )
    found = changed(found, "alcove.json", lambda lines: lines[0].update(version=1))
    one = save(tmp_path / "one.alcove", [(i, c) for i, c in found if not i.name.startswith("objects/")])
    async with opened(tmp_path, "second") as hub:
        await hub.archive.import_archive(one)
        assert (await hub.archive.import_archive(tmp_path / "two.alcove")).present == ["ana"]


# -- archives of strangers -------------------------------------------------------------------------------------------

_PHOTO = hashlib.sha256(noise(100_000)).hexdigest()


def _lines(
    change: Callable[[list[dict[str, Any]]], object], name: str = "history/ana.jsonl"
) -> Callable[[Members], Members]:
    return lambda found: changed(found, name, change)


def _with(lines: list[dict[str, Any]], field: str) -> dict[str, Any]:
    return next(line for line in lines if field in line)


def _place(**more: Any) -> Any:
    return _lines(lambda lines: _with(lines, "objects")["objects"][0].update(**more))


def _many(found: Members) -> Members:
    def show_it_often(lines: list[dict[str, Any]]) -> None:
        line = _with(lines, "objects")
        line["objects"] = line["objects"][:1] * 3000

    return changed(found, "history/ana.jsonl", show_it_often)


BROKEN: dict[str, tuple[Callable[[Members], Members], str]] = {
    "no object": (lambda found: [one for one in found if one[0].name != f"objects/{_PHOTO}"], "stand before it"),
    "an object that is another": (
        lambda found: [(i, c[::-1] if i.name == f"objects/{_PHOTO}" else c) for i, c in found],
        "another content",
    ),
    "an object of no name": (lambda found: added(found, "objects/../../x", b"x"), "another content"),
    "an object after its message": (
        lambda found: sorted(found[:-1], key=lambda one: one[0].name == f"objects/{_PHOTO}") + found[-1:],
        "stand before it",
    ),
    "a place outside": (_place(path=[99]), "no place for it"),
    "a place inside a text": (_place(path=[0, "text", 3]), "no place for it"),
    "no place": (_place(path=[]), "no place for it"),
    "a hash that leads out": (_place(hash="../../../../etc/passwd"), "stand before it"),
    "bytes for a text": (_place(form="text"), "no place for it"),
    "bytes for a part": (_place(form="json"), "no place for it"),
    "an object a thousand times": (_many, "bytes of objects"),
    "a summary of later": (
        _lines(lambda found: _with(found, "summary_of")["summary_of"].update(last=99)),
        "stands for",
    ),
    "a summary of a user's": (_lines(lambda found: _with(found, "summary_of").update(role="user")), "stands for"),
    "a repair of later": (_lines(lambda found: _with(found, "repair_after").update(repair_after=99)), "put it there"),
    "usage that is no count": (_lines(lambda found: _with(found, "usage").update(usage={"x": -1})), "not a count"),
    "a tool's message pinned": (
        _lines(lambda found: next(one for one in found if one.get("role") == "tool").update(pinned=True)),
        "tool's",
    ),
    "an end that is no time": (_lines(lambda found: found[0].update(ends_at=-1), "sessions.jsonl"), "no time"),
    "a bound that is none": (
        _lines(lambda found: found[0].update(ceiling={"write": ["no path"]}), "sessions.jsonl"),
        "bound",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_an_archive_whose_parts_are_not_right_changes_nothing(tmp_path: Path, archive: Path, what: str) -> None:
    breaking, why = BROKEN[what]
    broken = save(tmp_path / "broken.alcove", breaking(members(archive)))
    async with opened(tmp_path, "second") as hub:
        with pytest.raises(InvalidError, match=why):
            await hub.archive.import_archive(broken)
        assert (await hub.sessions.list()).sessions == []
        assert (await hub.objects.usage()).objects == 0


async def test_too_many_pins_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, "first") as hub:
        await hub.sessions.create(session_id="ana")
        await hub.messages.append("ana", [Draft("user", "x") for _ in range(limits.PINNED_MESSAGES + 1)])
        await hub.archive.export_archive(tmp_path / "all.alcove")

    def pin_all(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            line["pinned"] = line["type"] == "message"

    found = changed(members(tmp_path / "all.alcove"), "history/ana.jsonl", pin_all)
    async with opened(tmp_path, "second") as hub:
        with pytest.raises(InvalidError, match="pinned messages"):
            await hub.archive.import_archive(save(tmp_path / "pins.alcove", found))


async def test_another_part_under_the_same_id_is_a_conflict(tmp_path: Path, archive: Path) -> None:
    async with opened(tmp_path, "second") as hub:
        await hub.archive.import_archive(archive)
        await hub.archive.export_archive(tmp_path / "mine.alcove")
    async with opened(tmp_path, "third") as hub:
        other = changed(
            members(tmp_path / "mine.alcove"),
            "history/ana.jsonl",
            lambda lines: _with(lines, "objects")["content"][0].update(text="another"),
        )
        await hub.archive.import_archive(save(tmp_path / "other.alcove", other))
        with pytest.raises(ConflictError, match="says something else here"):
            await hub.archive.import_archive(archive)


async def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, "first") as hub:
        await fill(hub)
        for name, value in (("ARCHIVE_MESSAGE_BYTES", 200_000), ("ARCHIVE_MEMBERS", 5)):
            with monkeypatch.context() as patch:
                patch.setattr(limits, name, value)
                with pytest.raises(TooLargeError):
                    await hub.archive.export_archive(tmp_path / "x.alcove")
        assert not [one for one in os.listdir(tmp_path) if "x.alcove" in one]
        await hub.sessions.update("ana", Changes(title="it goes on"))
