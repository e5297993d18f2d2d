"""The state of a server, in the words of the hub."""

from __future__ import annotations

from typing import final

import msgspec

from alcove import limits
from alcove.cli.wire import Wire, at
from alcove.clock import SECOND, Micros
from alcove.state.model import Place, Value, ValuePage
from alcove.values import Json


class ValueAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A value, as a server tells it."""

    scope: str
    of: str
    app: str
    key: str
    value: Json
    version: int
    created_at: float
    updated_at: float
    expires_at: float | None

    def record(self) -> Value:
        """Return it as the hub does; whose tenant's it is, a server tells nobody."""
        return Value(
            place=Place(self.scope, self.of, "", self.app),
            key=self.key,
            value=self.value,
            version=self.version,
            created_us=_micros(self.created_at),
            updated_us=_micros(self.updated_at),
            expires_us=_micros(self.expires_at or 0),
        )


class _Values(msgspec.Struct, frozen=True, kw_only=True):
    values: list[ValueAnswer]
    next_cursor: str | None


@final
class RemoteState:
    """`hub.state` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def get(self, scope: str, key: str, *, of: str = "", app: str = "") -> Value:
        """Return a value: see `State.get`."""
        answer = await self._wire.ask("GET", at("state", scope, key), query=_whose(of, app))
        return answer.read(ValueAnswer).record()

    async def set(
        self,
        scope: str,
        key: str,
        value: Json,
        *,
        of: str = "",
        app: str = "",
        ttl_s: float | None = None,
        expected_version: int | None = None,
    ) -> Value:
        """Set a value: see `State.set`."""
        answer = await self._wire.ask(
            "PUT",
            at("state", scope, key),
            query=_whose(of, app),
            body={"value": value, "ttl_s": ttl_s},
            headers=_condition(expected_version),
        )
        return answer.read(ValueAnswer).record()

    async def delete(
        self, scope: str, key: str, *, of: str = "", app: str = "", expected_version: int | None = None
    ) -> None:
        """Delete a value: see `State.delete`."""
        await self._wire.ask(
            "DELETE", at("state", scope, key), query=_whose(of, app), headers=_condition(expected_version)
        )

    async def list(
        self,
        scope: str,
        *,
        of: str = "",
        app: str = "",
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
    ) -> ValuePage:
        """List values: see `State.list`."""
        query = {**_whose(of, app), "limit": limit, "cursor": cursor}
        page = (await self._wire.ask("GET", at("state", scope), query=query)).read(_Values)
        return ValuePage([one.record() for one in page.values], page.next_cursor)


def _whose(of: str, app: str) -> dict[str, str | int | None]:
    return {"of": of or None, "app": app or None}


def _condition(expected_version: int | None) -> dict[str, str]:
    if expected_version is None:
        return {}
    return {"If-Match": f'"{expected_version}"'} if expected_version else {"If-None-Match": "*"}


def _micros(at_s: float) -> Micros:
    return round(at_s * SECOND)
