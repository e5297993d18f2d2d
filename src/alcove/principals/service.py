"""Keys, as callers use them: make, list, revoke, and tell who holds one."""

from __future__ import annotations

import logging
from typing import final

from alcove import ids, limits
from alcove.audit.model import Witness
from alcove.audit.service import Audit
from alcove.clock import SECOND, Clock, Micros, SystemClock
from alcove.database.op import Database
from alcove.durations import ttl_us
from alcove.errors import RateLimitedError, UnauthorizedError
from alcove.pages import page_limit
from alcove.principals import queries, rules
from alcove.principals.allowance import Allowance
from alcove.principals.model import Issued, Key, KeyPage, Principal, Role

_log = logging.getLogger("alcove.keys")
_AFTER_ANY_ID = "~"
_HOUR: Micros = 3600 * SECOND


@final
class _Known:
    """A key as the database had it a moment ago, and what its holder may still ask for."""

    __slots__ = ("allowance", "key", "looked_at", "principal")

    def __init__(self, key: Key, looked_at: float) -> None:
        self.key = key
        self.principal = Principal(role=Role(key.role), tenant=key.tenant, user_id=key.user_id, key_id=key.id)
        self.looked_at = looked_at
        self.allowance = Allowance(key.rate_per_s, looked_at)


@final
class Keys:
    """The keys of an installation. A key is told once, when it is made; what is kept is its SHA-256.

    Args:
        database: Where they are.
        clock: Measures how long a key that was looked up stays known.
        audit: Where keys that are made and revoked are recorded.
    """

    def __init__(self, database: Database, clock: Clock | None = None, *, audit: Audit | None = None) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock or SystemClock()
        self._known: dict[str, _Known] = {}
        self._revoked: set[str] = set()  # here, whatever a look-up says that began before
        self._exist = False
        self._exist_at = float("-inf")

    async def create(
        self,
        *,
        role: str = "service",
        tenant: str = "default",
        user_id: str = "",
        label: str = "",
        ttl_s: float | None = None,
        rate_per_s: int | None = None,
        by: str = "library",
    ) -> Issued:
        """Make a key.

        Args:
            role: `admin`, `service` or `user`.
            tenant: Whose sessions its holder sees.
            user_id: The user of a `user` key: its holder sees that user's sessions only.
            label: For people.
            ttl_s: Seconds after which it is refused; None for never.
            rate_per_s: Requests a second on average, 0 for any number; by default any number, but
                `limits.USER_KEY_RATE` for a user.
            by: Who asks; the audit keeps it.

        Raises:
            InvalidError: A field, named in the error, is not valid.
            DatabaseError, StorageError: It, or its row of the audit, could not be written: there is no key.
        """
        rate = rules.check_new(tenant=tenant, role=role, user_id=user_id, label=label, rate_per_s=rate_per_s)
        lifetime = ttl_us(ttl_s)
        secret = rules.SECRET_PREFIX + ids.new_secret()
        new = Key(ids.new_id(), tenant, role, user_id, label, rate, 0, 0, 0, 0)
        witness = self._witness(by)
        key = await self._database.write(queries.create, new, rules.digest(secret), lifetime, witness)
        self._exist = True
        _log.info("key created", extra={"key_id": key.id, "tenant": tenant, "role": role, "user_id": user_id})
        return Issued(key, secret)

    async def get(self, key_id: str) -> Key:
        """Return a key.

        Raises:
            KeyMissingError: There is none of that id.
        """
        return await self._database.read(queries.get, key_id)

    async def list(
        self, *, tenant: str | None = None, limit: int = limits.PAGE_DEFAULT, cursor: str | None = None
    ) -> KeyPage:
        """List keys, newest first, revoked and expired ones too: of one tenant, or of all."""
        before = _AFTER_ANY_ID if cursor is None else ids.name(cursor, field="cursor")
        return await self._database.read(queries.page, tenant, page_limit(limit), before)

    async def revoke(self, key_id: str, *, by: str = "library") -> Key:
        """Revoke a key for good: at once in this process, within `limits.DECISION_S` in every other.

        Raises:
            KeyMissingError: There is none of that id.
        """
        key = await self._database.write(queries.revoke, key_id, self._witness(by))
        self._revoked.add(key_id)
        self._known = {digest: known for digest, known in self._known.items() if known.key.id != key_id}
        _log.info("key revoked", extra={"key_id": key_id})
        return key

    async def exist(self) -> bool:
        """Return whether there was ever a key: from then on nobody comes in without one. Known within a second."""
        now = self._clock.monotonic()
        if not self._exist and now - self._exist_at >= limits.DECISION_S:
            self._exist = await self._database.read(queries.exist)
            self._exist_at = now
        return self._exist

    async def authenticate(self, secret: str) -> Principal:
        """Return who holds a key, and count one request.

        Raises:
            UnauthorizedError: There is no such key, or it was revoked or has expired.
            RateLimitedError: Its holder asks too often.
            DatabaseError: Whether it still holds cannot be told, which is as good as no.
        """
        digest, now = rules.digest(secret), self._clock.monotonic()
        known = self._known.get(digest)
        if known is None or now - known.looked_at >= limits.DECISION_S:
            known = await self._look_up(digest, now, known)
        if not known.allowance.spend(now):
            raise RateLimitedError(
                f"this key may make {known.key.rate_per_s} requests a second",
                limit=known.key.rate_per_s,
                remedy="send fewer, or ask for a key with a higher rate",
            )
        return known.principal

    def _witness(self, by: str) -> Witness | None:
        return self._audit.witness(ids.name(by, field="by")) if self._audit else None

    async def _look_up(self, digest: str, now: float, before: _Known | None) -> _Known:
        key, instant = await self._database.read(queries.by_digest, digest)
        refusal = "unknown" if key is None else "revoked" if key.id in self._revoked else key.refused(instant)
        if key is None or refusal:
            self._known.pop(digest, None)
            if key is not None and self._audit is not None:
                names = {"subject": f"key:{key.id}", "tenant": key.tenant, "user_id": key.user_id}
                self._audit.denied("key.denied", refusal, **names, role=key.role)
            raise UnauthorizedError(f"this key is {refusal}", remedy="ask whoever runs this server for another")
        known = _Known(key, now)
        if before is not None:
            known.allowance = before.allowance
        elif len(self._known) >= limits.KEYS_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[digest] = known
        if instant - key.used_us >= _HOUR:
            await self._database.write(queries.used, key.id)
        return known
