"""What keys promise: told once, bound to tenant and user, refused once revoked or expired."""

# ruff: noqa: D102 - the name of a test is its sentence

from __future__ import annotations

import pytest

from alcove import limits
from alcove.clock import Clock, Micros, SystemClock
from alcove.database.op import Database
from alcove.errors import InvalidError, KeyMissingError, RateLimitedError, UnauthorizedError
from alcove.principals.model import Role
from alcove.principals.service import Keys
from alcove.testing.rows import execute


class _StillClock(Clock):
    """Stands still between two moves, also for what waits: a rate must not depend on how fast a test runs."""

    def __init__(self) -> None:
        self._at_s = 0.0

    def now(self) -> Micros:
        return SystemClock().now()

    def monotonic(self) -> float:
        return self._at_s

    def advance(self, seconds: float) -> None:
        self._at_s += seconds


class KeysContract:
    """Needs a `database` fixture; subclass it as it is."""

    async def test_a_key_tells_tenant_role_and_user(self, database: Database) -> None:
        keys = Keys(database)
        issued = await keys.create(role="user", tenant="acme", user_id="ana", label="Ana's phone")
        found = await keys.authenticate(issued.secret)
        assert (found.role, found.tenant, found.user_id, found.key_id) == (Role.USER, "acme", "ana", issued.key.id)
        assert (issued.key.label, issued.key.rate_per_s) == ("Ana's phone", limits.USER_KEY_RATE)

    async def test_the_secret_is_kept_nowhere(self, database: Database) -> None:
        issued = await Keys(database).create()
        assert len(bytes.fromhex(issued.secret.removeprefix("alcove_"))) == 32
        rows = await execute(database, "SELECT * FROM principal_keys")
        assert issued.secret.removeprefix("alcove_") not in str(rows)
        assert "secret" not in str(await Keys(database).get(issued.key.id))

    @pytest.mark.parametrize("wrong", ["", "alcove_", "alcove_" + "0" * 64, "x\x00", "\udcff", "é" * 10_000])
    async def test_an_unknown_secret_is_nobodys(self, database: Database, wrong: str) -> None:
        keys = Keys(database)
        await keys.create()
        with pytest.raises(UnauthorizedError, match="unknown"):
            await keys.authenticate(wrong)

    async def test_half_of_a_secret_is_nobodys(self, database: Database) -> None:
        keys = Keys(database)
        secret = (await keys.create()).secret
        for part in (secret[:-1], secret + "0", secret.upper(), secret.removeprefix("alcove_")):
            with pytest.raises(UnauthorizedError):
                await keys.authenticate(part)

    async def test_a_revoked_key_is_refused_at_once_here_and_within_a_second_elsewhere(
        self, database: Database
    ) -> None:
        clock = _StillClock()
        here, elsewhere = Keys(database, clock), Keys(database, clock)
        issued = await here.create()
        for keys in (here, elsewhere):
            await keys.authenticate(issued.secret)
        revoked = await here.revoke(issued.key.id)
        assert revoked.revoked_us > 0
        with pytest.raises(UnauthorizedError, match="revoked"):
            await here.authenticate(issued.secret)
        clock.advance(limits.DECISION_S)
        with pytest.raises(UnauthorizedError, match="revoked"):
            await elsewhere.authenticate(issued.secret)

    async def test_revoking_twice_keeps_the_first_time(self, database: Database) -> None:
        keys = Keys(database)
        issued = await keys.create()
        first = await keys.revoke(issued.key.id)
        assert await keys.revoke(issued.key.id) == first

    async def test_a_key_that_is_not_there_cannot_be_revoked(self, database: Database) -> None:
        with pytest.raises(KeyMissingError):
            await Keys(database).revoke("nothing")

    async def test_an_expired_key_is_refused(self, database: Database) -> None:
        keys = Keys(database)
        issued = await keys.create(ttl_s=60)
        assert issued.key.expires_us - issued.key.created_us == 60_000_000
        await keys.authenticate(issued.secret)
        await execute(database, "UPDATE principal_keys SET expires_at = created_at - 1")
        with pytest.raises(UnauthorizedError, match="expired"):
            await Keys(database).authenticate(issued.secret)

    async def test_more_than_its_rate_is_refused_until_time_has_passed(self, database: Database) -> None:
        clock = _StillClock()
        keys = Keys(database, clock)
        secret = (await keys.create(rate_per_s=5)).secret
        for _ in range(5 * limits.KEY_BURST_S):
            await keys.authenticate(secret)
        with pytest.raises(RateLimitedError) as refused:
            await keys.authenticate(secret)
        assert (refused.value.limit, refused.value.retryable) == (5, True)
        clock.advance(1.0)
        for _ in range(5):
            await keys.authenticate(secret)
        with pytest.raises(RateLimitedError):
            await keys.authenticate(secret)

    async def test_whether_there_ever_was_a_key_stays_known(self, database: Database) -> None:
        clock = _StillClock()
        watching = Keys(database, clock)
        assert not await watching.exist()
        issued = await Keys(database).create()
        await Keys(database).revoke(issued.key.id)
        clock.advance(limits.DECISION_S)
        assert await watching.exist(), "a revoked one counts: revoking the last key must not open the door"

    async def test_keys_are_listed_in_pages_newest_first(self, database: Database) -> None:
        keys = Keys(database)
        made = [(await keys.create(tenant=f"t{i % 2}", label=str(i))).key.id for i in range(5)]
        page = await keys.list(limit=3)
        rest = await keys.list(limit=3, cursor=page.next_cursor)
        assert {key.id for key in (*page.keys, *rest.keys)} == set(made)
        assert [key.id for key in (*page.keys, *rest.keys)] == sorted(made, reverse=True)
        assert rest.next_cursor is None
        assert {key.label for key in (await keys.list(tenant="t1")).keys} == {"1", "3"}

    @pytest.mark.parametrize(
        ("field", "given"),
        [
            ("role", {"role": "root"}),
            ("user_id", {"role": "user"}),
            ("user_id", {"role": "service", "user_id": "ana"}),
            ("user_id", {"role": "user", "user_id": "a\x00"}),
            ("tenant", {"tenant": ""}),
            ("label", {"label": "x" * 300}),
            ("rate_per_s", {"rate_per_s": -1}),
            ("rate_per_s", {"rate_per_s": limits.KEY_RATE + 1}),
            ("ttl_s", {"ttl_s": 0.0}),
        ],
    )
    async def test_a_field_that_is_not_valid_is_named(
        self, database: Database, field: str, given: dict[str, str]
    ) -> None:
        keys = Keys(database)
        with pytest.raises(InvalidError) as refused:
            await keys.create(**given)  # pyright: ignore[reportArgumentType]
        assert refused.value.field == field
        assert refused.value.remedy
        assert (await keys.list()).keys == []
