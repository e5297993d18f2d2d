"""State, as callers use it: get, set, delete, list."""

from __future__ import annotations

from typing import final

from alcove import limits
from alcove.database.op import Database
from alcove.durations import ttl_us
from alcove.pages import page_limit
from alcove.state import queries, rules
from alcove.state.model import Value, ValuePage
from alcove.values import Json


@final
class State:
    """Values by scope and key, each with a version for compare-and-set.

    A place is a scope and whose it is: `of` is the id of the session, user, subject or run, or the name of the agent;
    an app's state is named by `app`. Users, subjects, agents and apps are a tenant's, and apart in each app.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, scope: str, key: str, *, of: str = "", tenant: str = "default", app: str = "") -> Value:
        """Return a value.

        Args:
            scope: `session user subject agent app run`, or `conversation actor runner`.
            key: Its name.
            of: Whose; `''` for an app's.
            tenant: Of which tenant.
            app: In which app.

        Raises:
            ValueNotFoundError: There is none.
            SessionNotFoundError: There is no such session.
            InvalidError: The scope, the key or whose it is cannot be.
        """
        found = await self.find(scope, key, of=of, tenant=tenant, app=app)
        if found is None:
            raise queries.missing(rules.place(scope, of, tenant=tenant, app=app), key)
        return found

    async def find(self, scope: str, key: str, *, of: str = "", tenant: str = "default", app: str = "") -> Value | None:
        """Return a value, None where there is none; otherwise as `get`."""
        place = rules.place(scope, of, tenant=tenant, app=app)
        return await self._database.read(queries.get, place, rules.key_of(key))

    async def set(
        self,
        scope: str,
        key: str,
        value: Json,
        *,
        of: str = "",
        tenant: str = "default",
        app: str = "",
        ttl_s: float | None = None,
        expected_version: int | None = None,
    ) -> Value:
        """Set a value, in one transaction; with `expected_version` only in place of the one that has it.

        Args:
            scope: As for `get`.
            key: 1 to `limits.ID_CHARS` characters.
            value: JSON, up to `limits.STATE_BYTES` bytes.
            of: Whose.
            tenant: Of which tenant.
            app: In which app.
            ttl_s: Seconds after which it is gone; None for never. Each `set` says it anew.
            expected_version: The version that was read; 0 for no value; None for whatever there is.

        Raises:
            VersionMismatchError: Somebody else has changed it; `details["version"]` is what is there, 0 for nothing.
            SessionNotFoundError, RunEndedError: Whose it is is not there any more.
            ConflictError: There are `limits.STATE_KEYS` values there already.
            InvalidError, TooLargeError: Names the field and the remedy.
        """
        place = rules.place(scope, of, tenant=tenant, app=app)
        rules.check_expected(expected_version)
        return await self._database.write(
            queries.put, place, rules.key_of(key), rules.encoded(value), ttl_us(ttl_s), expected_version
        )

    async def delete(
        self,
        scope: str,
        key: str,
        *,
        of: str = "",
        tenant: str = "default",
        app: str = "",
        expected_version: int | None = None,
    ) -> None:
        """Delete a value; with `expected_version` only the one that has it.

        Raises:
            ValueNotFoundError: There is none.
            VersionMismatchError: Somebody else has changed it.
            SessionNotFoundError, RunEndedError, InvalidError: As for `set`.
        """
        place = rules.place(scope, of, tenant=tenant, app=app)
        rules.check_expected(expected_version)
        await self._database.write(queries.delete, place, rules.key_of(key), expected_version)

    async def list(
        self,
        scope: str,
        *,
        of: str = "",
        tenant: str = "default",
        app: str = "",
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
    ) -> ValuePage:
        """List the values of a place by key.

        Raises:
            SessionNotFoundError: There is no such session.
            InvalidError: The scope, whose it is, the limit or the cursor cannot be.
        """
        place = rules.place(scope, of, tenant=tenant, app=app)
        after = "" if cursor is None else rules.key_of(cursor)
        return await self._database.read(queries.page, place, after, page_limit(limit, limits.STATE_PAGE))

    async def sweep(self, *, dry_run: bool = False) -> int:
        """Remove what has expired and what belonged to runs that have ended; return how many values."""
        if dry_run:
            return await self._database.read(queries.count_gone)
        count = 0
        while step := await self._database.write(queries.sweep, limits.PURGE_ROWS):
            count += step
        return count
