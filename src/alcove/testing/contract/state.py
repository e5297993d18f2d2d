"""What state promises: compare-and-set, times to live, limits, and that whose it was takes it along."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from alcove import limits
from alcove.database.op import Database
from alcove.errors import (
    ConflictError,
    InvalidError,
    RunEndedError,
    SessionNotFoundError,
    TooLargeError,
    ValueNotFoundError,
    VersionMismatchError,
)
from alcove.rights.model import ALIASES, SCOPES
from alcove.sessions.service import Sessions
from alcove.state.service import State
from alcove.testing.rows import execute

_FAR: dict[str, Any] = {"scope": "user", "of": "ana"}


async def _run(database: Database, run_id: str = "r1") -> str:
    """Put a live run into the ledger."""
    await execute(
        database,
        "INSERT INTO runs (id, session_id, turn, agent, status, error, answer_seq, epoch, cancelling, holder, tree, "
        "digest, rung, guarantees, created_at, ended_at) "
        "VALUES (?, '', 0, 'a', 'running', '', 0, 0, 0, '', '', '', '', '', 1, 0)",
        run_id,
    )
    return run_id


class StateContract:
    """Needs a `database` fixture; subclass it as it is."""

    @pytest.fixture
    def state(self, database: Database) -> State:
        """State over the database."""
        return State(database)

    @pytest.mark.parametrize("scope", [*SCOPES, *ALIASES])
    async def test_a_value_comes_back_as_it_was(self, database: Database, state: State, scope: str) -> None:
        known = ALIASES.get(scope, scope)
        of = {"session": (await Sessions(database).create()).id, "run": await _run(database), "app": ""}.get(known, "x")
        values: list[Any] = [None, True, 0, -1.5, "", "小", [], {"a": [1, {"b": None}]}, 2**60]
        for value in values:
            await state.set(scope, "key", value, of=of)
            found = await state.get(known, "key", of=of)
            assert found.value == value
            assert type(found.value) is type(value)
            assert found.place.scope == known
        await state.delete(scope, "key", of=of)
        assert await state.find(scope, "key", of=of) is None
        with pytest.raises(ValueNotFoundError):
            await state.get(scope, "key", of=of)
        with pytest.raises(ValueNotFoundError):
            await state.delete(scope, "key", of=of)

    async def test_places_are_apart(self, state: State) -> None:
        places: list[dict[str, Any]] = [
            {"scope": "user", "of": "ana"},
            {"scope": "user", "of": "ben"},
            {"scope": "subject", "of": "ana"},
            {"scope": "agent", "of": "ana"},
            {"scope": "user", "of": "ana", "tenant": "acme"},
            {"scope": "user", "of": "ana", "app": "shop"},
            {"scope": "app"},
            {"scope": "app", "app": "shop"},
            {"scope": "app", "tenant": "acme"},
        ]
        for number, place in enumerate(places):
            await state.set(**place, key="k", value=number)
        for number, place in enumerate(places):
            assert [value.value for value in (await state.list(**place)).values] == [number]

    async def test_a_change_takes_the_version_that_was_read(self, state: State) -> None:
        first = await state.set("user", "k", 1, of="ana", expected_version=0)
        second = await state.set("user", "k", 2, of="ana", expected_version=first.version)
        assert second.version > first.version
        assert second.created_us == first.created_us
        for stale in (0, first.version, second.version + 1):
            with pytest.raises(VersionMismatchError) as caught:
                await state.set("user", "k", 3, of="ana", expected_version=stale)
            assert caught.value.details["version"] == second.version
        with pytest.raises(VersionMismatchError):
            await state.delete("user", "k", of="ana", expected_version=first.version)
        assert (await state.get("user", "k", of="ana")).value == 2
        await state.delete("user", "k", of="ana", expected_version=second.version)
        with pytest.raises(VersionMismatchError) as caught:
            await state.set("user", "k", 3, of="ana", expected_version=second.version)
        assert caught.value.details["version"] == 0

    async def test_a_value_after_a_deletion_has_another_version(self, state: State) -> None:
        before = await state.set("user", "k", 1, of="ana")
        await state.delete("user", "k", of="ana")
        assert (await state.set("user", "k", 1, of="ana")).version > before.version

    async def test_of_many_that_count_at_once_none_is_lost(self, state: State) -> None:
        await state.set("user", "count", 0, of="ana")

        async def count() -> None:
            for _ in range(5):
                while True:
                    found = await state.get("user", "count", of="ana")
                    count: Any = found.value
                    try:
                        await state.set("user", "count", count + 1, of="ana", expected_version=found.version)
                    except VersionMismatchError:
                        continue
                    break

        await asyncio.gather(*(count() for _ in range(8)))
        assert (await state.get("user", "count", of="ana")).value == 40

    async def test_of_many_that_set_the_first_value_one_wins(self, state: State) -> None:
        results = await asyncio.gather(
            *(state.set("user", "k", number, of="ana", expected_version=0) for number in range(20)),
            return_exceptions=True,
        )
        assert sum(not isinstance(result, VersionMismatchError) for result in results) == 1

    async def test_what_has_expired_is_not_there_and_is_removed_by_a_sweep(
        self, database: Database, state: State
    ) -> None:
        first = await state.set("user", "short", 1, of="ana", ttl_s=60)
        await state.set("user", "long", 2, of="ana", ttl_s=3600)
        await state.set("user", "ever", 3, of="ana")
        assert first.expires_us - first.updated_us == 60_000_000
        await execute(database, "UPDATE state_values SET expires_at = 1 WHERE name = ?", "short")
        assert await state.find("user", "short", of="ana") is None
        assert [value.key for value in (await state.list("user", of="ana")).values] == ["ever", "long"]
        with pytest.raises(VersionMismatchError):
            await state.set("user", "short", 1, of="ana", expected_version=first.version)
        with pytest.raises(ValueNotFoundError):
            await state.delete("user", "short", of="ana")
        assert await state.sweep(dry_run=True) == 1
        again = await state.set("user", "short", 4, of="ana", expected_version=0)
        assert again.version > first.version
        assert await state.sweep() == 0
        await execute(database, "UPDATE state_values SET expires_at = 1 WHERE name = ?", "short")
        assert await state.sweep() == 1
        assert await execute(database, "SELECT name FROM state_values WHERE name = ?", "short") == []

    async def test_a_set_says_anew_how_long_a_value_lives(self, state: State) -> None:
        await state.set("user", "k", 1, of="ana", ttl_s=60)
        assert (await state.set("user", "k", 1, of="ana")).expires_us == 0

    @pytest.mark.parametrize("column", ["ended_at", "due_at"])
    async def test_the_values_of_a_run_end_with_it(self, database: Database, state: State, column: str) -> None:
        of = await _run(database)
        await state.set("run", "k", 1, of=of)
        await execute(database, f"UPDATE runs SET {column} = 5 WHERE id = ?", of)
        assert await state.find("run", "k", of=of) is None
        assert (await state.list("run", of=of)).values == []
        for late in (
            state.set("run", "k", 2, of=of),
            state.delete("run", "k", of=of),
            state.set("run", "k", 2, of="x"),
        ):
            with pytest.raises(RunEndedError):
                await late
        assert await state.sweep(dry_run=True) == 1
        assert await state.sweep() == 1
        assert await execute(database, "SELECT name FROM state_values") == []

    async def test_a_session_that_is_not_there_has_no_values(self, database: Database, state: State) -> None:
        session_id = (await Sessions(database).create()).id
        await state.set("session", "k", 1, of=session_id)
        await execute(database, "UPDATE heads SET trashed = 1 WHERE session_id = ?", session_id)
        for of in (session_id, "nobody"):
            for call in (
                state.get("session", "k", of=of),
                state.set("session", "k", 2, of=of),
                state.delete("session", "k", of=of),
                state.list("session", of=of),
            ):
                with pytest.raises(SessionNotFoundError):
                    await call
        await execute(database, "UPDATE heads SET trashed = 0 WHERE session_id = ?", session_id)
        assert (await state.get("session", "k", of=session_id)).value == 1

    async def test_values_are_listed_by_key_in_pages(self, state: State) -> None:
        for number in (3, 1, 2, 5, 4):
            await state.set("user", f"k{number}", number, of="ana")
        seen: list[str] = []
        cursor = None
        while True:
            page = await state.list("user", of="ana", limit=2, cursor=cursor)
            seen += [value.key for value in page.values]
            if (cursor := page.next_cursor) is None:
                break
        assert seen == ["k1", "k2", "k3", "k4", "k5"]

    async def test_there_is_an_end_of_keys_and_it_says_so(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "STATE_KEYS", 3)
        for number in range(3):
            await state.set("user", f"k{number}", 1, of="ana")
        with pytest.raises(ConflictError) as caught:
            await state.set("user", "k3", 1, of="ana")
        assert (caught.value.field, caught.value.limit) == ("key", 3)
        await state.set("user", "k0", 2, of="ana")
        await state.set("user", "k0", 2, of="ben")

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"scope": "planet"}, "scope"),
            ({"of": ""}, "of"),
            ({"of": "a\x00"}, "of"),
            ({"scope": "app"}, "of"),
            ({"scope": "session", "of": "../x"}, "session_id"),
            ({"key": ""}, "key"),
            ({"key": "k" * (limits.ID_CHARS + 1)}, "key"),
            ({"key": "a\n"}, "key"),
            ({"tenant": ""}, "tenant"),
            ({"app": "\ud800"}, "app"),
            ({"value": {1, 2}}, "value"),
            ({"value": "\ud800"}, "value"),
            ({"value": float("nan")}, "value"),
            ({"ttl_s": 0}, "ttl_s"),
            ({"expected_version": -1}, "expected_version"),
        ],
    )
    async def test_bad_input_names_its_field_and_changes_nothing(
        self, database: Database, state: State, changes: dict[str, Any], field: str
    ) -> None:
        arguments: dict[str, Any] = {**_FAR, "key": "k", "value": 1, **changes}
        with pytest.raises(InvalidError) as caught:
            await state.set(**arguments)
        assert caught.value.field == field
        assert caught.value.remedy
        assert await execute(database, "SELECT name FROM state_values") == []

    async def test_a_value_has_a_limit(self, state: State) -> None:
        await state.set("user", "k", "x" * (limits.STATE_BYTES - 2), of="ana")
        with pytest.raises(TooLargeError) as caught:
            await state.set("user", "k", "x" * (limits.STATE_BYTES - 1), of="ana")
        assert caught.value.limit == limits.STATE_BYTES

    async def test_depth_is_no_way_around(self, state: State) -> None:
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(InvalidError):
            await state.set("user", "k", deep, of="ana")
