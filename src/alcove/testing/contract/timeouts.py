"""What the time-outs of dialogs promise on every database."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
import contextlib

import pytest

from alcove.clock import SECOND
from alcove.database.op import Database
from alcove.dialogs import history
from alcove.dialogs.service import Dialogs
from alcove.errors import EventRefusedError, SessionBusyError, SessionExpiredError
from alcove.messages.service import Messages
from alcove.sessions import queries as session_queries
from alcove.sessions.service import Sessions
from alcove.testing.contract.dialogs import IMAGE, ORDER, SAID, InOrder, late
from alcove.testing.rows import execute, hold, idle


class TimeoutsContract(InOrder):
    """Needs a `database` fixture; subclass it as it is."""

    async def test_a_timeout_has_its_effect_once_and_is_no_activity(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        await dialogs.step(own, "photo", {"image": "i", "who": "w"}, messages=SAID)
        assert await dialogs.fire(own) is None
        assert await dialogs.fire_due() == []
        await late(database, own)
        before = (await Sessions(database).get(own)).last_activity_us
        others = [Dialogs(database) for _ in range(4)]
        done = await asyncio.gather(*(one.fire_due(3) for one in others), *(one.fire(own) for one in others))
        fired = [step for some in done for step in (some if isinstance(some, list) else [some]) if step]
        assert [(step.cause, step.event, step.before, step.state) for step in fired] == [
            ("timeout", "gave_up", "waiting", "idle")
        ]
        assert (fired[0].slots, fired[0].message) == ({"who": "w"}, "I stopped waiting.")
        [told] = (await Messages(database).last(own))[2:]
        assert (told.role, told.text, told.turn) == ("assistant", "I stopped waiting.", 1)
        assert told.detail.metadata == {"alcove": {"by": "timeout"}}
        assert (await Sessions(database).get(own)).last_activity_us == before

    async def test_whoever_comes_late_finds_the_state_after_the_timeout(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        await dialogs.step(own, "photo", IMAGE)
        await late(database, own)
        with pytest.raises(EventRefusedError) as refused:
            await dialogs.step(own, "place", {"place": "here"})
        assert refused.value.details["state"] == "idle"
        assert [step.cause for step in await dialogs.steps(own)] == ["start", "event", "timeout"]
        await dialogs.step(own, "photo", IMAGE)
        await late(database, own)
        assert (await dialogs.preview(own, "photo", IMAGE)).state == "waiting"
        await dialogs.step(own, "photo", IMAGE)
        await late(database, own)
        assert (await dialogs.get(own)).state == "idle"

    async def test_a_clock_that_jumps_back_fires_nothing_early_and_nothing_twice(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        await dialogs.step(own, "photo", IMAGE)
        # As if the clock had gone back an hour since: the end of the wait is further away.
        await late(database, own, -3600)
        assert (await dialogs.get(own)).state == "waiting"
        assert await dialogs.fire_due() == []
        await late(database, own, 3600 + 600)
        assert len(await dialogs.fire_due()) == 1
        # The clock goes back again: what has been is over, whatever the clock shows.
        await execute(database, "UPDATE dialog_steps SET created_at = created_at + ?, due_at = 1", 3600 * SECOND)
        assert await dialogs.fire_due() == []
        assert [step.cause for step in await dialogs.steps(own)].count("timeout") == 1

    async def test_a_run_that_holds_the_session_is_not_disturbed(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        await dialogs.step(own, "photo", IMAGE)
        await late(database, own)
        await hold(database, own, "run-1", 60)
        assert await dialogs.fire_due() == []
        assert (await dialogs.get(own)).state == "waiting"
        with pytest.raises(SessionBusyError):
            await dialogs.step(own, "place", {"place": "here"})
        with pytest.raises(SessionBusyError):
            await dialogs.reset(own)
        await execute(database, "UPDATE heads SET lease_until = 0")
        assert len(await dialogs.fire_due()) == 1

    async def test_an_expired_session_takes_its_timeout_and_nothing_else(
        self, database: Database, dialogs: Dialogs
    ) -> None:
        session, _ = await Sessions(database).live("ana", ttl_s=600)
        await dialogs.define(ORDER)
        await dialogs.start(session.id, "order")
        await dialogs.step(session.id, "photo", IMAGE)
        await late(database, session.id)
        await idle(database, session.id, 1000)
        assert [step.session_id for step in await dialogs.fire_due()] == [session.id]
        with pytest.raises(SessionExpiredError):
            await dialogs.step(session.id, "photo", IMAGE)
        assert (await dialogs.get(session.id)).state == "idle"

    async def test_due_sessions_are_swept_in_bounded_steps_past_those_that_cannot(
        self, database: Database, dialogs: Dialogs
    ) -> None:
        await dialogs.define(ORDER)
        made = [(await Sessions(database).create()).id for _ in range(7)]
        for i, session_id in enumerate(made):
            await dialogs.start(session_id, "order")
            await dialogs.step(session_id, "photo", IMAGE)
            await late(database, session_id, 1000 - i)
        await database.write(session_queries.trash, made[0], "t1", 10)
        await hold(database, made[1], "run-1", 60)
        assert [step.session_id for step in await dialogs.fire_due(2)] == made[2:4]
        assert [step.session_id for step in await dialogs.fire_due(9)] == made[4:]

    async def test_time_is_kept_past_what_cannot_be_fired(self, database: Database, dialogs: Dialogs, own: str) -> None:
        bad = (await Sessions(database).create()).id
        await dialogs.start(bad, "order")
        for i, session_id in enumerate((bad, own)):
            await dialogs.step(session_id, "photo", IMAGE)
            await late(database, session_id, 2000 - i)
        await execute(database, "UPDATE dialog_steps SET definition = 'gone' WHERE session_id = ?", bad)
        fresh = Dialogs(database)
        keeping = asyncio.create_task(fresh.keep_time())
        async with asyncio.timeout(20), contextlib.aclosing(dialogs.subscribe(own, after=2)) as heard:
            step = await anext(heard)
        assert (step.cause, step.message) == ("timeout", "I stopped waiting.")
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping

    async def test_subscribers_hear_of_everything_and_resume(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        heard: list[tuple[int, str]] = []

        async def listen() -> None:
            async for step in dialogs.subscribe(own):
                heard.append((step.version, step.cause))
                if step.cause == "timeout":
                    return

        listener = asyncio.create_task(listen())
        await dialogs.step(own, "photo", IMAGE)
        await late(database, own)
        await dialogs.fire_due()
        await asyncio.wait_for(listener, 10)
        assert heard == [(1, "start"), (2, "event"), (3, "timeout")]
        async for step in dialogs.subscribe(own, after=2):
            assert step.version == 3
            break

    async def test_a_timeout_is_told_by_one_listener_and_again_if_that_one_dies(
        self, database: Database, dialogs: Dialogs, own: str
    ) -> None:
        await dialogs.step(own, "photo", IMAGE)
        await late(database, own)
        await dialogs.fire_due()
        [taken] = await database.write(history.take_untold, "default", None, 60, 3600, 5)
        assert (taken.session_id, taken.message) == (own, "I stopped waiting.")
        assert await database.write(history.take_untold, "default", None, 60, 3600, 5) == []
        await execute(database, "UPDATE dialog_steps SET telling = 1 WHERE telling > 0")
        assert await database.write(history.take_untold, "acme", None, 60, 3600, 5) == []
        assert await database.write(history.take_untold, "default", "other", 60, 3600, 5) == []
        async for step in dialogs.timeouts(app=""):
            assert step.session_id == own
            await database.write(history.told, own, step.version)
            break
        await execute(database, "UPDATE dialog_steps SET telling = 1 WHERE telling > 0")
        assert await database.write(history.take_untold, "default", None, 60, 3600, 5) == []
