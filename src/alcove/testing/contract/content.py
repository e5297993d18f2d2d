"""What large parts promise on every database: kept once, read back identical, gone with the last one that has them."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from alcove import limits
from alcove.database.op import Database
from alcove.errors import InvalidError, NotFoundError, StorageError, TooLargeError
from alcove.messages.model import Draft, Message
from alcove.messages.service import Messages
from alcove.objects import queries
from alcove.objects.files import Folder
from alcove.objects.service import Objects
from alcove.sessions.service import Sessions
from alcove.testing import rows

Part = dict[str, Any]


def image(data: bytes, **more: Any) -> Part:
    """Return an image part."""
    return {"type": "image", "media_type": "image/png", "data": base64.b64encode(data).decode(), **more}


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read(file: Path) -> bytes:
    return file.read_bytes()


def _damage(missing: Path, short: Path) -> None:
    missing.unlink()
    short.write_bytes(b"short")


def _same(found: list[Message], expected: list[str | list[Part]]) -> bool:
    """Compare without a report of megabytes."""
    return [one.content for one in found] == expected


class ContentContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Where objects are."""
        return tmp_path / "objects"

    @pytest.fixture
    def objects(self, database: Database, folder: Path) -> Objects:
        """The object store."""
        return Objects(database, folder)

    @pytest.fixture
    def messages(self, database: Database, objects: Objects) -> Messages:
        """Messages with an object store."""
        return Messages(database, objects)

    async def test_parts_come_back_as_they_went_in(self, database: Database, messages: Messages) -> None:
        session_id = (await Sessions(database).create()).id
        large = os.urandom(limits.PART_BYTES)
        contents: list[str | list[Part]] = [
            [{"type": "hologram", "frames": [{"a": "x" * 100_000}], "depth": 3}],
            [{"type": "text", "text": "see"}, image(large), image(large, detail="low"), image(b"small")],
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(large).decode()}}],
            [{"type": "tool_result", "tool_call_id": "c", "content": [image(large), _text("t" * 70_000)]}],
            [{"type": "data", "value": [{"n": n, "half": n / 2} for n in range(10_000)]}],
            [{"type": "audio", "media_type": "audio/wav", "data": base64.b64encode(large).decode()}],
            [{"type": "text", "text": "QUJD" * 30_000}],
            "\x00é😀" * 50_000,
            "QUJD" * 50_000,
        ]  # fmt: skip
        await messages.append(session_id, [Draft("user", content) for content in contents])
        found = (await messages.page(session_id)).messages
        assert _same(found, contents)
        assert _same(await messages.last(session_id), contents)
        assert _same((await messages.window(session_id)).messages, contents)
        assert _same(await messages.pop(session_id, 2), contents[-2:])

    async def test_the_same_bytes_are_kept_once(
        self, database: Database, messages: Messages, objects: Objects, folder: Path
    ) -> None:
        data = os.urandom(limits.PART_BYTES)
        for _ in range(3):
            session_id = (await Sessions(database).create()).id
            await messages.append(session_id, [Draft("user", [image(data), image(data)]), Draft("user", [image(data)])])
        usage = await objects.usage()
        assert (usage.objects, usage.size_bytes, usage.unused) == (1, len(data), 0)
        [file] = _files(folder)
        assert _read(file) == data
        assert file.name.startswith(hashlib.sha256(data).hexdigest())

    async def test_what_is_small_makes_no_folder(self, database: Database, messages: Messages, folder: Path) -> None:
        session_id = (await Sessions(database).create()).id
        await messages.append(session_id, [Draft("user", "x" * 20_000), Draft("user", [image(b"small")])])
        assert _files(folder) == []

    async def test_an_image_of_ten_megabytes_is_kept_and_a_larger_object_refused(
        self, database: Database, messages: Messages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session_id = (await Sessions(database).create()).id
        data = os.urandom(10 * limits.MIB)
        await messages.append(session_id, [Draft("user", [image(data)])])
        [found] = await messages.last(session_id)
        assert found.content == [image(data)]
        monkeypatch.setattr(limits, "OBJECT_BYTES", limits.MIB)
        with pytest.raises(TooLargeError, match="object"):
            await messages.append(session_id, [Draft("user", [image(os.urandom(2 * limits.MIB))])])
        monkeypatch.setattr(limits, "MESSAGE_OBJECT_BYTES", limits.MIB)
        with pytest.raises(TooLargeError, match="images, files and long texts"):
            await messages.append(session_id, [Draft("user", [image(os.urandom(2 * limits.MIB))])])
        assert len(await messages.last(session_id)) == 1

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "image", "data": "no base64"},
            {"type": "image", "data": "QUJ"},
            {"type": "audio", "data": "QUJD\n"},
            {"type": "image"},
            {"type": "text"},
            {"type": "text", "text": 3},
            {"type": "tool_call", "name": "look"},
            {"type": "tool_result", "content": "x"},
        ],
        ids=str,
    )
    async def test_a_part_that_nobody_could_read_is_refused(
        self, database: Database, messages: Messages, part: Part
    ) -> None:
        session_id = (await Sessions(database).create()).id
        with pytest.raises(InvalidError) as refused:
            await messages.append(session_id, [Draft("user", [{"type": "text", "text": "a"}, part])])
        assert refused.value.field.startswith("content[1]")
        assert refused.value.remedy

    async def test_references_stand_for_objects_that_are_not_asked_for(
        self, database: Database, messages: Messages, objects: Objects
    ) -> None:
        session_id = (await Sessions(database).create()).id
        data = os.urandom(limits.PART_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        await messages.append(session_id, [Draft("user", [image(data)])])
        [found] = (await messages.page(session_id, objects=False)).messages
        assert found.content == [
            {"type": "image", "media_type": "image/png", "object": digest, "size_bytes": len(data)}
        ]
        assert await objects.read_of(session_id, digest) == data
        other = (await Sessions(database).create()).id
        with pytest.raises(NotFoundError):
            await objects.read_of(other, digest)

    async def test_naming_an_object_does_not_give_it(self, database: Database, messages: Messages) -> None:
        mine, theirs = [(await Sessions(database).create()).id for _ in range(2)]
        data = os.urandom(limits.PART_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        await messages.append(mine, [Draft("user", [image(data)])])
        named: Part = {"type": "image", "object": digest, "size_bytes": len(data)}
        await messages.append(theirs, [Draft("user", [named])])
        assert _same(await messages.last(theirs), [[named]])

    async def test_a_repeated_append_gets_the_first_answer(self, database: Database, messages: Messages) -> None:
        session_id = (await Sessions(database).create()).id
        draft = Draft("user", [image(os.urandom(limits.PART_BYTES))])
        first = await messages.append(session_id, [draft], idempotency_key="k")
        again = await messages.append(session_id, [draft], idempotency_key="k")
        assert (again.first_seq, again.replayed) == (first.first_seq, True)

    async def test_an_object_goes_with_the_last_session_that_refers_to_it(
        self, database: Database, messages: Messages, objects: Objects, folder: Path
    ) -> None:
        first, second = [(await Sessions(database).create()).id for _ in range(2)]
        shared, own = os.urandom(limits.PART_BYTES), os.urandom(limits.PART_BYTES)
        await messages.append(first, [Draft("user", [image(shared), image(own)])])
        await messages.append(second, [Draft("user", [image(shared)])])
        assert await objects.release(first) == 2
        assert _same(await messages.last(second), [[image(shared)]])
        assert (await objects.usage()).objects == 1
        assert await objects.release(second) == 1
        assert (await objects.usage()).objects == 0
        assert _files(folder) == []
        assert await rows.execute(database, "SELECT * FROM object_remains") == []

    async def test_claims_are_copied_with_messages(
        self, database: Database, messages: Messages, objects: Objects
    ) -> None:
        source, target = [(await Sessions(database).create()).id for _ in range(2)]
        data = [os.urandom(limits.PART_BYTES) for _ in range(3)]
        await messages.append(source, [Draft("user", [image(one), image(data[0])]) for one in data])
        done = 0
        while done < 2:
            done = await database.write(queries.copy, source, target, done + 1, 2, 1)
        assert await objects.release(source) == 5
        assert set(await objects.read(hashlib.sha256(one).hexdigest() for one in data[:2])) != set()
        assert await objects.release(target) == 3
        assert (await objects.usage()).objects == 0

    async def test_a_sweep_takes_what_nothing_refers_to_and_nothing_else(
        self, database: Database, messages: Messages, objects: Objects, folder: Path
    ) -> None:
        session_id = (await Sessions(database).create()).id
        data = os.urandom(limits.PART_BYTES)
        await messages.append(session_id, [Draft("user", [image(data)])])
        await objects.keep([os.urandom(10), os.urandom(20)])
        assert (await objects.sweep()).objects == 0
        swept = await objects.sweep(grace_s=-1)
        assert (swept.objects, swept.size_bytes) == (2, 30)
        assert _same(await messages.last(session_id), [[image(data)]])
        assert len(_files(folder)) == 1

    async def test_an_object_that_is_swept_on_its_way_is_written_again(
        self, database: Database, messages: Messages, objects: Objects, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session_id = (await Sessions(database).create()).id
        data = os.urandom(limits.PART_BYTES)
        keep, sweeps = objects.keep, 0

        async def keep_and_lose(contents: Iterable[bytes]) -> dict[str, str]:
            nonlocal sweeps
            files = await keep(contents)
            if sweeps < 3:
                sweeps += (await objects.sweep(grace_s=-1)).objects
            return files

        monkeypatch.setattr(objects, "keep", keep_and_lose)
        await messages.append(session_id, [Draft("user", [image(data)])])
        assert sweeps == 3
        assert _same(await messages.last(session_id), [[image(data)]])

    async def test_sweeps_and_appends_at_once_lose_nothing(
        self, database: Database, messages: Messages, objects: Objects
    ) -> None:
        sessions = [(await Sessions(database).create()).id for _ in range(4)]
        data = [os.urandom(limits.PART_BYTES) for _ in range(3)]
        done = asyncio.Event()

        async def sweep() -> None:
            while not done.is_set():
                await objects.sweep(grace_s=-1)
                await asyncio.sleep(0.005)  # a sweep without end would take every object before its message

        async def append(session_id: str) -> None:
            for turn in range(6):
                await messages.append(session_id, [Draft("user", [image(data[turn % 3])])])
                if turn == 2:
                    await objects.release(session_id)
                    await rows.execute(database, "DELETE FROM messages WHERE session_id = ?", session_id)

        sweeping = asyncio.create_task(sweep())
        await asyncio.gather(*map(append, sessions))
        done.set()
        await sweeping
        for session_id in sessions:
            assert _same(await messages.last(session_id), [[image(one)] for one in data])
        assert [wrong async for _, wrong in objects.examine() if wrong] == []

    @pytest.mark.parametrize("broken", ["before the file went", "after the file went"])
    async def test_a_removal_that_breaks_off_is_finished_by_a_sweep(
        self,
        database: Database,
        messages: Messages,
        objects: Objects,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        broken: str,
    ) -> None:
        session_id = (await Sessions(database).create()).id
        await messages.append(session_id, [Draft("user", [image(os.urandom(limits.PART_BYTES))])])
        remove = Folder.remove

        def break_off(self: Folder, file: str) -> None:
            if broken.startswith("after"):
                remove(self, file)
            raise StorageError("broken off")

        with monkeypatch.context() as patched:
            patched.setattr(Folder, "remove", break_off)
            with pytest.raises(StorageError):
                await objects.release(session_id)
        await objects.sweep()
        assert (await objects.usage()).objects == 0
        assert _files(folder) == []
        assert await rows.execute(database, "SELECT * FROM object_remains") == []

    async def test_an_examination_finds_what_is_missing(
        self, database: Database, messages: Messages, objects: Objects, folder: Path
    ) -> None:
        session_id = (await Sessions(database).create()).id
        await messages.append(session_id, [Draft("user", [image(os.urandom(limits.PART_BYTES))]) for _ in range(3)])
        files = _files(folder)
        _damage(files[0], files[1])
        wrong = [one async for _, one in objects.examine() if one]
        assert len(wrong) == 2
        assert any("missing" in one for one in wrong)
        with pytest.raises(StorageError):
            await messages.last(session_id)
