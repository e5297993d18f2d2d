"""What sessions promise on every database: create, find, update, expire."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from alcove import limits
from alcove.database.op import Database
from alcove.errors import (
    AlreadyExistsError,
    IdempotencyError,
    InvalidError,
    SessionNotFoundError,
    TooLargeError,
    VersionMismatchError,
)
from alcove.sessions.model import Changes
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute, idle
from alcove.values import Metadata

BAD_IDS = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "-a",
    ".a",
    "a" * 129,
    "a\x00b",
    "a\nb",
    "a b",
    "ä",
    "\uff41",
    "a\u2024b",
)
BAD_NAMES = ("x" * (limits.ID_CHARS + 1), "a\x00b", "a\nb", "a\x7fb", "a\u2028b", "a\ud800b")


class SessionsContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    def sessions(self, database: Database) -> Sessions:
        """The service under test."""
        return Sessions(database)

    async def test_a_session_is_as_it_was_created(self, sessions: Sessions) -> None:
        metadata: Metadata = {"channel": "web", "deep": {"a": [1, 2.5, None, True]}, "n": 3}
        made = await sessions.create(
            session_id="Own.id_1-x", user_id="ana", app="shop", key="k", title="Ünïcode ☃", agent="shell",
            metadata=metadata, ttl_s=60, tenant="acme",
        )  # fmt: skip
        assert (made.id, made.user_id, made.app, made.key) == ("Own.id_1-x", "ana", "shop", "k")
        assert (made.title, made.agent, made.tenant, made.metadata) == ("Ünïcode ☃", "shell", "acme", metadata)
        assert (made.root_id, made.parent_id, made.depth, made.version) == (made.id, "", 0, 1)
        assert (made.last_seq, made.message_count, made.turn_count, made.child_count) == (0, 0, 0, 0)
        assert made.status == "active"
        assert made.created_us == made.last_activity_us
        assert made.expires_at is not None
        assert (made.expires_at - made.last_activity).total_seconds() == 60
        assert await sessions.get(made.id) == made
        assert await sessions.find(made.id) == made

    async def test_an_id_is_a_uuid7_by_default_and_ids_ascend(self, sessions: Sessions) -> None:
        made = [(await sessions.create()).id for _ in range(3)]
        assert {uuid.UUID(one).version for one in made} == {7}
        assert len(set(made)) == 3

    @pytest.mark.parametrize("session_id", BAD_IDS)
    async def test_an_id_that_could_leave_its_folder_is_refused(self, sessions: Sessions, session_id: str) -> None:
        with pytest.raises(InvalidError) as refused:
            await sessions.create(session_id=session_id)
        assert refused.value.field == "session_id"
        assert refused.value.remedy

    async def test_the_longest_id_is_accepted(self, sessions: Sessions) -> None:
        assert (await sessions.create(session_id="a" * 128)).id == "a" * 128

    @pytest.mark.parametrize("field", ["user_id", "app", "key", "agent", "tenant", "idempotency_key"])
    @pytest.mark.parametrize("value", BAD_NAMES)
    async def test_a_name_with_control_characters_or_too_long_is_refused(
        self, sessions: Sessions, database: Database, field: str, value: str
    ) -> None:
        arguments: dict[str, Any] = {field: value}
        with pytest.raises(InvalidError) as refused:
            await sessions.create(**arguments)
        assert refused.value.field == field
        assert await execute(database, "SELECT id FROM sessions") == []

    async def test_a_title_has_a_limit_and_no_lone_surrogate(self, sessions: Sessions) -> None:
        assert (await sessions.create(title="t" * limits.TITLE_CHARS)).title == "t" * limits.TITLE_CHARS
        for title in ("t" * (limits.TITLE_CHARS + 1), "\ud800"):
            with pytest.raises(InvalidError) as refused:
                await sessions.create(title=title)
            assert refused.value.field == "title"

    async def test_a_title_may_hold_any_character_and_nul(self, sessions: Sessions) -> None:
        for title in ("a\x00b", "\x1a", "\x1a0\x00\x1a1", "🦊\u200d", "\u202e"):
            made = await sessions.create(title=title)
            assert (await sessions.get(made.id)).title == title

    @pytest.mark.parametrize(
        "metadata",
        [
            {"": 1},
            {"x" * (limits.ID_CHARS + 1): 1},
            {"a\x00": 1},
            {"a": "\ud800"},
            {"a": object()},
            {f"n{i}": i for i in range(limits.METADATA_NAMES + 1)},
        ],
    )
    async def test_metadata_that_is_not_json_or_has_bad_names_is_refused(
        self, sessions: Sessions, metadata: Any
    ) -> None:
        with pytest.raises(InvalidError) as refused:
            await sessions.create(metadata=metadata)
        assert refused.value.field.startswith("metadata")

    async def test_metadata_has_a_limit_in_bytes(self, sessions: Sessions) -> None:
        fits = "x" * (limits.METADATA_BYTES - len('{"a":""}'))
        assert (await sessions.create(metadata={"a": fits})).metadata == {"a": fits}
        with pytest.raises(TooLargeError):
            await sessions.create(metadata={"a": fits + "x"})

    @pytest.mark.parametrize("ttl_s", [0, -1, limits.TTL_S + 1, float("nan"), float("inf")])
    async def test_a_ttl_that_makes_no_sense_is_refused(self, sessions: Sessions, ttl_s: float) -> None:
        with pytest.raises(InvalidError) as refused:
            await sessions.create(ttl_s=ttl_s)
        assert refused.value.field == "ttl_s"

    async def test_the_installations_ttl_holds_unless_the_creator_says_otherwise(self, database: Database) -> None:
        sessions = Sessions(database, ttl_s=10)
        assert (await sessions.create()).ttl_us == 10_000_000
        assert (await sessions.create(ttl_s=None)).ttl_us == 0
        assert (await sessions.create(ttl_s=0.5)).ttl_us == 500_000

    async def test_an_id_is_taken_once_also_when_ten_ask_at_once(self, sessions: Sessions) -> None:
        asked = await asyncio.gather(*(sessions.create(session_id="one") for _ in range(10)), return_exceptions=True)
        assert sorted(type(one).__name__ for one in asked) == ["AlreadyExistsError"] * 9 + ["Session"]

    async def test_a_key_is_unique_per_tenant_app_and_user(self, sessions: Sessions) -> None:
        made = await sessions.create(key="k", user_id="ana")
        with pytest.raises(AlreadyExistsError) as refused:
            await sessions.create(key="k", user_id="ana", session_id="other")
        assert (refused.value.field, refused.value.details["session_id"]) == ("key", made.id)
        assert await sessions.find("other") is None, "nothing half-made"
        await sessions.create(key="k", user_id="ben")
        await sessions.create(key="k", user_id="ana", app="shop")
        await sessions.create(key="k", user_id="ana", tenant="acme")
        found = await sessions.find_key("k", user_id="ana")
        assert found is not None
        assert found.id == made.id
        assert await sessions.find_key("other", user_id="ana") is None

    async def test_a_repeated_creation_is_one_session(self, sessions: Sessions) -> None:
        asked = [sessions.create(user_id="ana", title="t", idempotency_key="once") for _ in range(10)]
        made = await asyncio.gather(*asked)
        assert len({one.id for one in made}) == 1
        assert await sessions.create(user_id="ana", title="t", idempotency_key="once") == made[0]
        with pytest.raises(IdempotencyError):
            await sessions.create(user_id="ana", title="other", idempotency_key="once")
        other_tenant = await sessions.create(user_id="ana", title="t", idempotency_key="once", tenant="acme")
        assert other_tenant.id != made[0].id

    async def test_a_repeated_creation_with_an_own_id_and_key_is_one_session(self, sessions: Sessions) -> None:
        asked = [sessions.create(session_id="own", key="k", idempotency_key="once") for _ in range(10)]
        assert {one.id for one in await asyncio.gather(*asked)} == {"own"}

    async def test_get_raises_where_find_gives_none(self, sessions: Sessions) -> None:
        assert await sessions.find("nobody") is None
        with pytest.raises(SessionNotFoundError) as missing:
            await sessions.get("nobody")
        assert missing.value.details == {"session_id": "nobody"}

    @pytest.mark.parametrize("session_id", ["../x", "a\x00b", "", "x" * 100_000])
    async def test_an_id_that_cannot_be_is_not_found(self, sessions: Sessions, session_id: str) -> None:
        with pytest.raises(SessionNotFoundError):
            await sessions.get(session_id)

    async def test_a_lone_surrogate_is_bad_input_wherever_it_comes_in(self, sessions: Sessions) -> None:
        for call in (sessions.get, sessions.find, sessions.find_key, sessions.touch, sessions.children):
            with pytest.raises(InvalidError):
                await call("\ud800")
        with pytest.raises(InvalidError):
            await sessions.list(user_id="\ud800")

    async def test_update_changes_what_is_given_and_raises_the_version(self, sessions: Sessions) -> None:
        made = await sessions.create(title="a", agent="x", metadata={"a": 1, "b": {"c": 1}, "d": 2}, ttl_s=60)
        changed = await sessions.update(made.id, Changes(metadata={"a": 5, "b": {"e": 2}, "d": None, "f": "new"}))
        assert changed.metadata == {"a": 5, "b": {"e": 2}, "f": "new"}
        assert (changed.version, changed.title, changed.agent, changed.ttl_us) == (2, "a", "x", 60_000_000)
        changed = await sessions.update(made.id, Changes(title="b", agent="y", ttl_s=None))
        assert (changed.version, changed.title, changed.agent, changed.ttl_us) == (3, "b", "y", 0)
        assert changed.last_activity_us == made.last_activity_us, "a change is no activity"
        assert await sessions.get(made.id) == changed

    async def test_update_moves_the_index_of_metadata(self, sessions: Sessions) -> None:
        made = await sessions.create(metadata={"a": 1, "b": 2})
        await sessions.update(made.id, Changes(metadata={"a": "x", "b": None}))
        assert (await sessions.list(metadata={"a": 1})).sessions == []
        assert (await sessions.list(metadata={"b": 2})).sessions == []
        assert [one.id for one in (await sessions.list(metadata={"a": "x"})).sessions] == [made.id]

    async def test_update_rejects_a_stale_version(self, sessions: Sessions) -> None:
        made = await sessions.create(title="a")
        await sessions.update(made.id, Changes(title="b"), version=1)
        with pytest.raises(VersionMismatchError):
            await sessions.update(made.id, Changes(title="c"), version=1)
        assert (await sessions.get(made.id)).title == "b"

    async def test_of_ten_updates_of_one_version_one_wins(self, sessions: Sessions) -> None:
        made = await sessions.create()
        asked = [sessions.update(made.id, Changes(title=str(i)), version=1) for i in range(10)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(one).__name__ for one in done) == ["Session"] + ["VersionMismatchError"] * 9
        assert (await sessions.get(made.id)).version == 2

    async def test_bad_changes_leave_everything_as_it_was(self, sessions: Sessions) -> None:
        made = await sessions.create(metadata={"a": 1})
        names: Metadata = {f"n{i}": i for i in range(limits.METADATA_NAMES)}
        changes = (
            Changes(title="t" * 1000),
            Changes(agent="\x00"),
            Changes(title="ok", metadata=names),
            Changes(ttl_s=-1),
        )
        for change in changes:
            with pytest.raises(InvalidError):
                await sessions.update(made.id, change)
        assert await sessions.get(made.id) == made
        with pytest.raises(SessionNotFoundError):
            await sessions.update("nobody", Changes(title="x"))

    async def test_an_idle_session_expires_stays_readable_and_is_revived_by_a_touch(
        self, sessions: Sessions, database: Database
    ) -> None:
        made = await sessions.create(ttl_s=60)
        await idle(database, made.id, 59)
        assert (await sessions.get(made.id)).status == "active"
        await idle(database, made.id, 1)
        assert (await sessions.get(made.id)).status == "expired"
        assert [one.id for one in (await sessions.list(status="expired")).sessions] == [made.id]
        assert (await sessions.list(status="active")).sessions == []
        touched = await sessions.touch(made.id)
        assert touched.status == "active"
        assert touched.last_activity_us >= made.last_activity_us
        with pytest.raises(SessionNotFoundError):
            await sessions.touch("nobody")

    async def test_a_pinned_session_does_not_expire(self, sessions: Sessions, database: Database) -> None:
        made = await sessions.create(ttl_s=60)
        pinned = await sessions.pin(made.id)
        assert (pinned.pinned, pinned.expires_at, pinned.ttl_us) == (1, None, 60_000_000)
        await idle(database, made.id, 3600)
        assert (await sessions.get(made.id)).status == "active"
        assert (await sessions.update(made.id, Changes(ttl_s=30))).status == "active", "a new TTL does not unpin"
        assert (await sessions.pin(made.id, False)).status == "expired"

    async def test_a_summary_is_the_session_in_a_few_words(self, sessions: Sessions) -> None:
        made = await sessions.create(title="t", user_id="ana")
        await sessions.spawn(made.id)
        said = await sessions.summary(made.id)
        assert (said.session_id, said.title, said.user_id, said.child_count) == (made.id, "t", "ana", 1)
        assert (said.created_at, said.status) == (made.created_at, "active")

    async def test_live_finds_the_users_session_or_makes_it(self, sessions: Sessions) -> None:
        first, made = await sessions.live("ana", agent="shell")
        assert (made, first.key, first.agent) == (True, "", "shell")
        again, made = await sessions.live("ana")
        assert (made, again.id) == (False, first.id)
        assert again.last_activity_us >= first.last_activity_us
        for other in (sessions.live("ana", "work"), sessions.live("ben"), sessions.live("ana", app="shop")):
            assert (await other)[1]

    async def test_live_replaces_an_expired_session_which_stays_readable(
        self, sessions: Sessions, database: Database
    ) -> None:
        first, _ = await sessions.live("ana", "k", ttl_s=60)
        await idle(database, first.id, 61)
        second, made = await sessions.live("ana", "k", ttl_s=60)
        assert made
        assert second.id != first.id
        old = await sessions.get(first.id)
        assert (old.status, old.key) == ("expired", None)
        found = await sessions.find_key("k", user_id="ana")
        assert found is not None
        assert found.id == second.id

    async def test_ten_racing_callers_get_one_live_session(self, sessions: Sessions, database: Database) -> None:
        first, _ = await sessions.live("ana", ttl_s=60)
        await idle(database, first.id, 61)
        found = await asyncio.gather(*(sessions.live("ana", ttl_s=60) for _ in range(10)))
        assert len({session.id for session, _ in found}) == 1
        assert sorted(made for _, made in found) == [False] * 9 + [True]
        assert len((await sessions.list(user_id="ana")).sessions) == 2
