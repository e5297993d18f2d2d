"""What the janitor promises on every database: what goes, what stays, and that a preview tells exactly that."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from alcove import limits
from alcove.clock import SECOND
from alcove.database.op import Database
from alcove.errors import InvalidError
from alcove.hub import Alcove
from alcove.janitor import queries
from alcove.janitor.model import Cleaned, What
from alcove.janitor.service import Janitor
from alcove.lifecycle.service import Handle, Lifecycle
from alcove.sessions.model import Changes
from alcove.testing.installing import installed
from alcove.testing.rows import execute, hold, idle

_YEAR_S = 365 * 86400


class JanitorContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    async def hub(self, database: Database, tmp_path: Path) -> AsyncGenerator[Alcove]:
        """An installation without folders."""
        async with installed(database, tmp_path) as hub:
            yield hub

    @pytest.fixture
    def sessions(self, hub: Alcove) -> Lifecycle:
        """Where sessions are made."""
        return hub.sessions

    @pytest.fixture
    def janitor(self, hub: Alcove) -> Janitor:
        """The service under test."""
        return hub.janitor

    async def test_what_has_expired_goes_and_nothing_else(
        self, sessions: Lifecycle, janitor: Janitor, database: Database
    ) -> None:
        idle_long, past_end, fresh, pinned, held, never = [
            await sessions.create(session_id=name, ttl_s=ttl, lifetime_s=lifetime)
            for name, ttl, lifetime in (
                ("idle", 60, None),
                ("end", None, 60),
                ("fresh", 60, None),
                ("pinned", 60, None),
                ("held", 60, None),
                ("never", None, None),
            )
        ]
        await pinned.update(Changes(pinned=True))
        for session in (idle_long, pinned, held, never):
            await idle(database, session.id, 3600)
        await execute(database, "UPDATE heads SET ends_at = 1, due_at = 1 WHERE session_id = 'end'")
        await hold(database, held.id, "somebody", 60)
        swept = await janitor.sweep()
        assert {one.session_id for one in swept.expired.groups} == {idle_long.id, past_end.id}
        assert (swept.expired.sessions, swept.problems) == (2, ())
        for session in (fresh, pinned, held, never):
            assert (await sessions.get(session.id)).id == session.id
        [deed] = (await sessions.deeds("idle")).deeds
        assert (deed.what, deed.why, deed.who) == ("trashed", "expired", "janitor")
        assert (await sessions.restore("idle")).sessions == ("idle",)

    async def test_a_tree_goes_whole_or_what_of_it_can(
        self, sessions: Lifecycle, janitor: Janitor, database: Database
    ) -> None:
        async def family(name: str) -> list[Handle]:
            root = await sessions.create(session_id=name, ttl_s=60)
            left = await sessions.create(session_id=f"{name}.left", parent_id=name, ttl_s=60)
            below = await sessions.create(session_id=f"{name}.left.below", parent_id=left.id, ttl_s=60)
            right = await sessions.create(session_id=f"{name}.right", parent_id=name, ttl_s=60)
            for one in (root, left, below, right):
                await idle(database, one.id, 3600)
            return [root, left, below, right]

        await family("whole")
        pinned = await family("pinned")
        await pinned[2].update(Changes(pinned=True))
        used = await family("used")
        await sessions.touch(used[3].id)
        held = await family("held")
        await hold(database, held[1].id, "somebody", 60)
        swept = await janitor.sweep()
        assert {(one.session_id, one.sessions) for one in swept.expired.groups} == {
            ("whole", 4),
            ("pinned.right", 1),
            ("used.left", 2),
            ("held.left.below", 1),
            ("held.right", 1),
        }
        assert (await used[0].refresh()).child_count == 1
        assert (await sessions.restore("used.left.below")).sessions == ("used.left", "used.left.below")
        assert (await used[0].refresh()).child_count == 2

    async def test_a_preview_is_what_the_sweep_then_does(
        self, sessions: Lifecycle, janitor: Janitor, database: Database
    ) -> None:
        chance = random.Random(7)
        made: list[str] = []
        for number in range(40):
            parent = chance.choice(made) if made and chance.random() < 0.7 else None
            session = await sessions.create(session_id=f"s{number}", parent_id=parent, ttl_s=600)
            made.append(session.id)
            if chance.random() < 0.8:
                await idle(database, session.id, 3600)
        before = await janitor.sweep(dry_run=True)
        assert before.dry_run
        assert await execute(database, "SELECT * FROM trashings") == []
        after = await janitor.sweep()
        assert _told(before.expired) == _told(after.expired)
        assert before.expired.sessions == after.expired.sessions > 10
        assert {one.trash_id for one in before.expired.groups} == {None}
        [[trashed]] = await execute(database, "SELECT COUNT(*) FROM sessions WHERE trashed_at > 0")
        assert trashed == after.expired.sessions
        assert (await janitor.sweep()).expired.sessions == 0

    @pytest.mark.parametrize("tree", [False, True])
    @pytest.mark.parametrize("how", ["touch", "append", "pin", "child", "hold"])
    async def test_who_comes_back_while_the_sweep_is_under_way_keeps_all_of_it(
        self,
        sessions: Lifecycle,
        janitor: Janitor,
        database: Database,
        monkeypatch: pytest.MonkeyPatch,
        how: str,
        tree: bool,
    ) -> None:
        session = await sessions.create(ttl_s=3600)
        if tree:
            await session.spawn()
        await execute(database, "UPDATE heads SET last_activity = last_activity - ?", 100 * SECOND)
        write = database.write

        async def come_back(operation: Any, *args: Any, **kwargs: Any) -> Any:
            if operation is queries.take:
                match how:
                    case "touch":
                        await sessions.touch(session.id)
                    case "append":
                        await session.append_turn("a", "b")
                    case "pin":
                        await session.update(Changes(pinned=True))
                    case "child":
                        await session.spawn()
                    case _:
                        await hold(database, session.id, "somebody", 60)
            return await write(operation, *args, **kwargs)

        monkeypatch.setattr(database, "write", come_back)
        cleaned = await janitor.clean(What.OLD, older_s=60)
        assert (cleaned.sessions, cleaned.problems) == (0, ())
        assert (await session.refresh()).status == "active"
        assert await execute(database, "SELECT * FROM deeds") == []

    async def test_two_sweepers_do_nothing_twice(
        self, hub: Alcove, sessions: Lifecycle, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "SWEEP_SESSIONS", 4)
        made = [(await sessions.create(ttl_s=60)).id for _ in range(40)]
        await execute(database, "UPDATE heads SET last_activity = 1, due_at = 1")
        async with installed(database, tmp_path) as other:
            swept = await asyncio.gather(hub.janitor.sweep(), other.janitor.sweep())
            gone = [one.session_id for each in swept for one in each.expired.groups]
            assert sorted(gone) == sorted(made)
            [[deeds]] = await execute(database, "SELECT COUNT(*) FROM deeds")
            assert deeds == len(made)
            purged = await asyncio.gather(*(one.janitor.clean(What.TRASH, older_s=0) for one in (hub, other)))
        assert sum(each.sessions for each in purged) == len(made)
        assert await execute(database, "SELECT * FROM sessions") == []

    async def test_what_stays_is_looked_at_when_it_may_have_expired(
        self, sessions: Lifecycle, janitor: Janitor, database: Database
    ) -> None:
        session = await sessions.create(ttl_s=600)
        await execute(database, "UPDATE heads SET due_at = 1")
        await janitor.sweep()
        [[due, last]] = await execute(database, "SELECT due_at, last_activity FROM heads")
        assert due == last + 600 * SECOND
        await session.update(Changes(pinned=True))
        await execute(database, "UPDATE heads SET due_at = 1")
        await janitor.sweep()
        assert await execute(database, "SELECT due_at FROM heads") == [(0,)]
        await session.update(Changes(pinned=False))
        await idle(database, session.id, 3600)
        assert (await janitor.sweep()).expired.sessions == 1

    async def test_the_trash_keeps_what_is_in_it_for_its_grace(
        self, sessions: Lifecycle, janitor: Janitor, database: Database
    ) -> None:
        root = await sessions.create()
        child = await root.spawn()
        await child.append_turn("a", "b")
        young = await sessions.create()
        for session in (root, young):
            await session.delete()
        week = 7 * 86400 * SECOND
        await execute(database, "UPDATE trashings SET trashed_at = trashed_at - ? WHERE session_id = ?", week, root.id)
        preview = await janitor.sweep(dry_run=True)
        swept = await janitor.sweep()
        assert _told(preview.trash) == _told(swept.trash) == {(root.id, 2)}
        assert await sessions.find(root.id) is await sessions.find(child.id) is None
        [purged] = [one for one in (await sessions.deeds(child.id)).deeds if one.what == "purged"]
        assert (purged.why, purged.who) == ("grace over", "janitor")
        assert purged.removed
        assert purged.removed.messages == 2
        assert (await sessions.restore(young.id)).sessions == (young.id,)

    async def test_without_a_grace_the_trash_keeps_everything(
        self, sessions: Lifecycle, database: Database, tmp_path: Path
    ) -> None:
        session = await sessions.create()
        await session.delete()
        await execute(database, "UPDATE trashings SET trashed_at = 1")
        async with installed(database, tmp_path, {"ALCOVE_TRASH_GRACE": "never"}) as hub:
            assert (await hub.janitor.sweep()).trash.sessions == 0
            with pytest.raises(InvalidError, match="how old"):
                await hub.janitor.clean(What.TRASH)
            assert (await hub.janitor.clean(What.TRASH, older_s=0)).sessions == 1

    async def test_old_ones_go_whatever_their_ttl(
        self, sessions: Lifecycle, janitor: Janitor, database: Database
    ) -> None:
        old, fresh, pinned = [await sessions.create(session_id=name) for name in ("old", "fresh", "pinned")]
        other = await sessions.create(session_id="other", tenant="other")
        for session in (old, pinned, other):
            await idle(database, session.id, 7200)
        await pinned.update(Changes(pinned=True))
        preview = await janitor.clean("old", older_s=3600, tenant="default", dry_run=True)
        cleaned = await janitor.clean("old", older_s=3600, tenant="default", by="ana")
        assert _told(preview) == _told(cleaned) == {("old", 1)}
        [deed] = (await sessions.deeds("old")).deeds
        assert (deed.why, deed.who) == ("old", "ana")
        assert (await fresh.refresh()).status == (await other.refresh()).status == "active"
        for wrong in (None, -1, 1e300):
            with pytest.raises(InvalidError):
                await janitor.clean("old", older_s=wrong)
        with pytest.raises(InvalidError, match="expired"):
            await janitor.clean("anything")

    async def test_empty_ones_go_and_no_other(
        self, sessions: Lifecycle, janitor: Janitor, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = ("empty", "said", "parent", "pinned")
        _, said, parent, pinned = [await sessions.create(session_id=name) for name in names]
        await said.append_turn("a", "b")
        await said.messages.clear(said.id)
        await sessions.create(session_id="child", parent_id=parent.id)
        await pinned.update(Changes(pinned=True))
        for name in (*names, "child"):
            await idle(database, name, 7200)
        await sessions.create(session_id="new")
        monkeypatch.setattr(limits, "SWEEP_PAGE", 1)
        preview = await janitor.clean(What.EMPTY, dry_run=True)
        cleaned = await janitor.clean(What.EMPTY)
        assert _told(preview) == _told(cleaned) == {("empty", 1), ("child", 1)}

    async def test_a_limit_stops_and_says_that_there_is_more(
        self, sessions: Lifecycle, janitor: Janitor, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "SWEEP_SESSIONS", 2)
        for _ in range(5):
            await idle(database, (await sessions.create(ttl_s=60)).id, 3600)
        counts = [await janitor.clean(What.EXPIRED, limit=2) for _ in range(3)]
        assert [(one.sessions, one.more) for one in counts] == [(2, True), (2, True), (1, False)]

    async def test_a_clock_that_jumps_makes_nothing_older(
        self, sessions: Lifecycle, janitor: Janitor, database: Database
    ) -> None:
        expired, kept = await sessions.create(ttl_s=60), await sessions.create(ttl_s=60)
        trashed = await sessions.create()
        await trashed.delete()
        await janitor.sweep()
        # What a year's jump makes of everything: the instants, and what was seen of the clock, lie a year back.
        for sql in (
            "UPDATE heads SET last_activity = last_activity - ?, due_at = CASE WHEN due_at > 0 THEN 1 ELSE 0 END",
            "UPDATE trashings SET trashed_at = trashed_at - ?",
            "UPDATE clocks SET wall = wall - ?",
        ):
            await execute(database, sql, _YEAR_S * SECOND)
        await idle(database, expired.id, 120)
        swept = await janitor.sweep()
        assert (_told(swept.expired), swept.trash.sessions) == ({(expired.id, 1)}, 0)
        assert (await kept.refresh()).id == kept.id
        # Back again: the same as if it had never jumped.
        await execute(database, "UPDATE heads SET last_activity = last_activity + ?", _YEAR_S * SECOND)
        await execute(database, "UPDATE trashings SET trashed_at = trashed_at + ?", _YEAR_S * SECOND)
        await execute(database, "UPDATE clocks SET wall = wall + ?", _YEAR_S * SECOND)
        await execute(database, "UPDATE jumps SET before_at = before_at + ?", _YEAR_S * SECOND)
        await execute(database, "UPDATE jumps SET after_at = after_at + ?", _YEAR_S * SECOND)
        await janitor.sweep()
        [back] = await execute(database, "SELECT jump FROM jumps WHERE number = 2")
        assert back[0] == pytest.approx(-_YEAR_S * SECOND, abs=60 * SECOND)
        assert (await kept.refresh()).status == "active"
        await idle(database, kept.id, 120)
        assert _told((await janitor.sweep()).expired) == {(kept.id, 1)}


def _told(cleaned: Cleaned) -> set[tuple[str, int]]:
    return {(one.session_id, one.sessions) for one in cleaned.groups}
