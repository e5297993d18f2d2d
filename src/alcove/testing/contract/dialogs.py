"""What dialogs promise on every database."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import pytest

from alcove import limits
from alcove.clock import SECOND
from alcove.database.op import Database
from alcove.dialogs import history
from alcove.dialogs.model import FREE_FORM
from alcove.dialogs.service import Dialogs
from alcove.errors import (
    AlcoveError,
    AlreadyExistsError,
    ConflictError,
    DialogNotFoundError,
    EventRefusedError,
    IdempotencyError,
    InvalidError,
    SessionNotFoundError,
    TooLargeError,
    VersionMismatchError,
)
from alcove.messages.model import Draft, Part
from alcove.messages.service import Messages
from alcove.objects.service import Objects
from alcove.sessions import queries as session_queries
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute

ORDER: dict[str, Any] = {
    "name": "order",
    "start": "idle",
    "slots": {"image": "text", "place": {"type": "text", "min": 2}, "who": "text"},
    "reset": {"keep": ["who"]},
    "events": {"photo": {"needs": ["image"], "takes": ["who"]}, "place": {"needs": ["place"]}, "gave_up": {}},
    "states": {
        "idle": {"on": {"photo": "waiting"}},
        "waiting": {
            "on": {"place": {"to": "done", "clear": ["image"]}, "gave_up": {"reset": True}},
            "timeout": {"after": "10m", "event": "gave_up", "message": "I stopped waiting."},
        },
        "done": {"final": True},
    },
}
SAID = (Draft("user", "here"), Draft("assistant", "where?"))
IMAGE = {"image": "i1"}


async def late(database: Database, session_id: str, seconds: float = 1000) -> None:
    """Make it that much longer since a state was entered."""
    await execute(
        database, "UPDATE heads SET dialog_due = dialog_due - ? WHERE session_id = ?", round(seconds * SECOND),
        session_id,
    )  # fmt: skip


class InOrder:
    """A session in the dialog `order`."""

    @pytest.fixture
    def dialogs(self, database: Database) -> Dialogs:
        """The service under test."""
        return Dialogs(database)

    @pytest.fixture
    async def own(self, database: Database, dialogs: Dialogs) -> str:
        """A session in the dialog `order`."""
        session = await Sessions(database).create(user_id="ana")
        await dialogs.define(ORDER)
        await dialogs.start(session.id, "order")
        return session.id


class DialogsContract(InOrder):
    """Needs a `database` fixture; subclass it as it is."""

    async def test_a_step_stores_state_slots_and_messages_together(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        step = await dialogs.step(own, "photo", IMAGE, messages=SAID)
        assert (step.cause, step.event, step.before, step.state) == ("event", "photo", "idle", "waiting")
        assert (step.version, step.first_seq, step.last_seq, step.slots) == (2, 1, 2, IMAGE)
        dialog = await dialogs.get(own)
        assert (dialog.name, dialog.number, dialog.version, dialog.state) == ("order", 1, 2, "waiting")
        assert (dialog.slots, dialog.takes, dialog.final) == (IMAGE, ("place", "gave_up"), False)
        assert dialog.due_us == dialog.changed_us + 600 * SECOND
        session = await Sessions(database).get(own)
        assert (session.dialog_state, session.message_count, session.turn_count) == ("waiting", 2, 1)
        done = await dialogs.step(own, "place", {"place": "room 1"}, messages=[Draft("user", "room 1")])
        assert (done.slots, done.due_us, done.first_seq) == ({"place": "room 1"}, 0, 3)
        assert (await dialogs.get(own)).final
        assert [one.turn for one in await Messages(database).last(own)] == [1, 1, 2]

    async def test_a_step_that_is_refused_stores_nothing(self, database: Database, dialogs: Dialogs, own: str) -> None:
        with pytest.raises(EventRefusedError) as refused:
            await dialogs.step(own, "place", {"place": "here"}, messages=SAID)
        assert "takes no event 'place'" in refused.value.message
        assert refused.value.remedy == "it takes: photo"
        assert refused.value.details == {"state": "idle", "takes": "photo"}
        for event, slots, field in (
            ("photo", {"image": 3}, "slots.image"),
            ("photo", {}, "slots.image"),
            ("photo", {"image": "i", "place": "x"}, "slots.place"),
        ):
            with pytest.raises(InvalidError) as wrong:
                await dialogs.step(own, event, slots, messages=SAID)
            assert wrong.value.field == field
        with pytest.raises(TooLargeError):
            await dialogs.step(own, "photo", {"image": "x" * 70_000}, messages=SAID)
        with pytest.raises(InvalidError):
            await dialogs.step(own, "photo", IMAGE, messages=[Draft("user", "\ud800")])
        assert ((await dialogs.get(own)).version, await Messages(database).last(own)) == (1, [])

    async def test_the_photo_of_a_step_is_kept_as_an_object(self, database: Database, own: str, tmp_path: Path) -> None:
        objects = Objects(database, tmp_path / "objects")
        dialogs, messages = Dialogs(database, objects), Messages(database, objects)
        data = os.urandom(2 * limits.MIB)
        photo: Part = {"type": "image", "media_type": "image/jpeg", "data": base64.b64encode(data).decode()}
        said = (Draft("user", [photo]), Draft("assistant", "where?"))
        with pytest.raises(EventRefusedError):
            await dialogs.step(own, "place", {"place": "here"}, messages=said)
        assert (await objects.sweep(grace_s=-1)).objects == 1
        step = await dialogs.step(own, "photo", IMAGE, messages=said, idempotency_key="k")
        again = await dialogs.step(own, "photo", IMAGE, messages=said, idempotency_key="k")
        assert (again.version, again.replayed, step.last_seq) == (step.version, True, 2)
        await objects.sweep(grace_s=-1)
        assert ((await objects.usage()).size_bytes, (await objects.usage()).unused) == (len(data), 0)
        assert (await messages.last(own))[0].content == [photo]
        await dialogs.start(own, FREE_FORM, restart=True)
        await dialogs.put(own, "any", {}, messages=said)
        assert (await messages.last(own))[-2].content == [photo]
        assert await objects.release(own) == 2

    async def test_a_preview_changes_nothing_and_its_version_commits(self, dialogs: Dialogs, own: str) -> None:
        seen = await dialogs.preview(own, "photo", IMAGE)
        assert (seen.state, seen.slots, seen.version) == ("waiting", IMAGE, 1)
        assert (await dialogs.get(own)).state == "idle"
        assert (await dialogs.step(own, "photo", IMAGE, expected_version=seen.version)).version == 2
        with pytest.raises(VersionMismatchError) as moved:
            await dialogs.step(own, "place", {"place": "here"}, expected_version=seen.version)
        assert moved.value.details == {"version": 2, "state": "waiting"}
        with pytest.raises(EventRefusedError):
            await dialogs.preview(own, "photo", IMAGE)

    async def test_a_repetition_gets_the_first_answer(self, database: Database, dialogs: Dialogs, own: str) -> None:
        first = await dialogs.step(own, "photo", {"image": "i", "who": "w"}, messages=SAID, idempotency_key="k")
        again = await dialogs.step(own, "photo", {"who": "w", "image": "i"}, messages=SAID, idempotency_key="k")
        assert (again.version, again.replayed, first.replayed) == (first.version, True, False)
        with pytest.raises(IdempotencyError):
            await dialogs.step(own, "photo", {"image": "other"}, messages=SAID, idempotency_key="k")
        assert len(await Messages(database).last(own)) == 2

    async def test_of_two_at_once_one_moves_and_the_other_hears_where_it_is(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        other = Dialogs(database)
        asked = [(dialogs, other)[i % 2].step(own, "photo", IMAGE, messages=SAID) for i in range(8)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(not isinstance(one, BaseException) for one in done) == 1
        assert {type(one) for one in done if isinstance(one, BaseException)} == {EventRefusedError}
        assert len(await Messages(database).last(own)) == 2
        assert [step.version for step in await dialogs.steps(own)] == [1, 2]

    async def test_a_reset_keeps_the_history_and_what_is_declared(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        await dialogs.step(own, "photo", {"image": "i", "who": "w"}, messages=SAID)
        step = await dialogs.reset(own)
        assert step is not None
        assert (step.cause, step.state, step.slots) == ("reset", "idle", {"who": "w"})
        assert len(await Messages(database).last(own)) == 2
        await dialogs.step(own, "photo", IMAGE, messages=SAID)
        await dialogs.reset(own, clear=True)
        assert ((await dialogs.get(own)).state, await Messages(database).last(own)) == ("idle", [])
        bare = (await Sessions(database).create()).id
        assert await dialogs.reset(bare, clear=True) is None
        with pytest.raises(DialogNotFoundError):
            await dialogs.reset(bare)

    async def test_a_dialog_begins_once_and_another_one_only_by_a_restart(self, dialogs: Dialogs, own: str) -> None:
        await dialogs.step(own, "photo", IMAGE)
        dialog, began = await dialogs.start(own, "order")
        assert (dialog.state, began) == ("waiting", False)
        other = {**ORDER, "name": "other"}
        await dialogs.define(other)
        with pytest.raises(ConflictError):
            await dialogs.start(own, "other")
        with pytest.raises(DialogNotFoundError):
            await dialogs.start(own, "nothing")
        dialog, began = await dialogs.start(own, "other", restart=True)
        assert (dialog.name, dialog.state, dialog.slots, began) == ("other", "idle", {}, True)
        assert dialog.version == 3

    async def test_free_form_takes_any_state_where_it_was_asked_for(self, database: Database, dialogs: Dialogs) -> None:
        session_id = (await Sessions(database).create()).id
        with pytest.raises(DialogNotFoundError):
            await dialogs.put(session_id, "anything")
        await dialogs.start(session_id, FREE_FORM)
        slots: dict[str, Any] = {"x": [1, {"y": None}], "图": "\x00"}
        step = await dialogs.put(session_id, "等图片", slots, messages=SAID, expected_version=1, idempotency_key="k")
        again = await dialogs.put(session_id, "等图片", slots, messages=SAID, expected_version=1, idempotency_key="k")
        assert (step.version, again.version, again.replayed) == (2, 2, True)
        dialog = await dialogs.get(session_id)
        assert (dialog.name, dialog.state, dialog.slots, dialog.takes) == (FREE_FORM, "等图片", slots, ())
        for call in (dialogs.step(session_id, "photo"), dialogs.preview(session_id, "photo")):
            with pytest.raises(ConflictError):
                await call
        with pytest.raises(InvalidError):
            await dialogs.put(session_id, "x" * 65)
        odd: Any
        for odd in (float("nan"), [float("inf")], {"a": (1, float("-inf"))}):
            with pytest.raises(InvalidError, match="not finite"):
                await dialogs.put(session_id, "x", {"y": odd, "z": None})

    async def test_a_declared_dialog_is_not_set_freely(self, dialogs: Dialogs, own: str) -> None:
        with pytest.raises(ConflictError):
            await dialogs.put(own, "done")

    async def test_what_is_not_there_is_named(self, database: Database, dialogs: Dialogs, own: str) -> None:
        bare = (await Sessions(database).create()).id
        for session_id, error in (("nobody", SessionNotFoundError), (bare, DialogNotFoundError)):
            for call in (dialogs.get(session_id), dialogs.step(session_id, "photo", IMAGE)):
                with pytest.raises(error):
                    await call
        await database.write(session_queries.trash, own, "t1", 10)
        for call in (dialogs.get(own), dialogs.steps(own), dialogs.step(own, "photo", IMAGE), dialogs.reset(own)):
            with pytest.raises(SessionNotFoundError):
                await call

    async def test_what_is_remembered_of_definitions_is_bounded_and_can_be_forgotten(
        self, database: Database, dialogs: Dialogs, own: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "DIALOGS_KNOWN", 2)
        for name in ("one", "two", "three"):
            session_id = (await Sessions(database).create()).id
            definition = await dialogs.define({**ORDER, "name": name})
            await dialogs.start(session_id, definition)
            assert (await dialogs.step(session_id, "photo", IMAGE)).state == "waiting"
        assert (await dialogs.step(own, "photo", IMAGE)).state == "waiting"

    async def test_a_version_is_kept_as_it_was_and_sessions_stay_or_follow(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        await dialogs.define(ORDER)
        with pytest.raises(AlreadyExistsError):
            await dialogs.define({**ORDER, "reset": {"keep": []}})
        await dialogs.step(own, "photo", IMAGE)
        await dialogs.define({**ORDER, "version": 2, "reset": {"keep": []}})
        fresh = Dialogs(database)  # as after a restart: nothing is remembered
        assert (await fresh.get(own)).number == 1
        assert (await fresh.step(own, "gave_up")).state == "idle"
        assert (await fresh.get(own)).number == 1, "no migration is declared, so it stays"
        await fresh.step(own, "photo", IMAGE)
        states = {**ORDER["states"]}
        states["waiting_place"] = states.pop("waiting")
        states["idle"] = {"on": {"photo": "waiting_place"}}
        migrations = {"1": {"states": {"waiting": "waiting_place"}, "drop": ["who"]}}
        await dialogs.define({**ORDER, "version": 3, "states": states, "migrations": migrations})
        assert (await fresh.get(own)).number == 1, "a look moves nothing"
        step = await fresh.step(own, "place", {"place": "here"})
        assert (step.before, step.state) == ("waiting", "done")
        assert ((await fresh.get(own)).number, (await fresh.followed(own)).number) == (3, 3)

    async def test_a_fork_has_the_dialog_of_its_point_and_a_rewind_goes_back_to_it(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        await dialogs.step(own, "photo", IMAGE, messages=SAID)
        await dialogs.step(own, "place", {"place": "here"}, messages=SAID)
        target = (await Sessions(database).create()).id
        await database.write(history.copy, own, target, 3)
        dialog = await dialogs.get(target)
        assert (dialog.state, dialog.slots, dialog.version) == ("waiting", IMAGE, 1)
        assert dialog.due_us > 0
        await database.write(history.restore, own, 2)
        dialog = await dialogs.get(own)
        assert (dialog.state, dialog.slots, dialog.version) == ("waiting", IMAGE, 4)
        assert [step.cause for step in await dialogs.steps(own)][-1] == "restore"

    async def test_a_rewind_to_before_a_dialog_leaves_it_and_its_numbers_go_on(
        self, database: Database, dialogs: Dialogs
    ) -> None:
        session_id = (await Sessions(database).create()).id
        await Messages(database).append_turn(session_id, "hello", "hello")
        await dialogs.define(ORDER)
        await dialogs.start(session_id, "order")
        await dialogs.step(session_id, "photo", IMAGE, messages=SAID)
        await database.write(history.restore, session_id, 1)
        for call in (dialogs.get(session_id), dialogs.step(session_id, "photo", IMAGE), dialogs.reset(session_id)):
            with pytest.raises(DialogNotFoundError):
                await call
        assert (await Sessions(database).get(session_id)).dialog_state == ""
        assert (await dialogs.start(session_id, "order"))[0].version == 4
        assert [step.cause for step in await dialogs.steps(session_id)] == ["start", "event", "leave", "start"]
        target = (await Sessions(database).create()).id
        await database.write(history.copy, session_id, target, 1)
        with pytest.raises(DialogNotFoundError):
            await dialogs.get(target)

    async def test_every_refusal_can_be_told(self, dialogs: Dialogs, own: str) -> None:
        with pytest.raises(AlcoveError) as refused:
            await dialogs.step(own, "phto")
        assert str(refused.value) == "dialog 'order' knows no event 'phto' (it takes: photo)"
