"""The keys of a server, in the words of the hub."""

from __future__ import annotations

from typing import final

from alcove import limits
from alcove.cli import answers
from alcove.cli.wire import Wire, at
from alcove.principals.model import Issued, Key, KeyPage


@final
class RemoteKeys:
    """`hub.keys` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def create(
        self,
        *,
        role: str,
        tenant: str = "default",
        user_id: str = "",
        label: str = "",
        ttl_s: float | None = None,
        rate_per_s: int | None = None,
    ) -> Issued:
        """Make a key: see `Keys.create`."""
        body = {"role": role, "tenant": tenant, "user_id": user_id, "label": label, "ttl_s": ttl_s}
        answer = await self._wire.ask("POST", at("keys"), body={**body, "rate_per_s": rate_per_s})
        return Issued(answer.read(answers.KeyAnswer).record(), answer.read(answers.SecretAnswer).secret)

    async def list(self, *, limit: int = limits.PAGE_DEFAULT, cursor: str | None = None) -> KeyPage:
        """List keys: see `Keys.list`."""
        answer = await self._wire.ask("GET", at("keys"), query={"limit": limit, "cursor": cursor})
        page = answer.read(answers.KeysAnswer)
        return KeyPage([one.record() for one in page.keys], page.next_cursor)

    async def revoke(self, key_id: str) -> Key:
        """Revoke a key: see `Keys.revoke`."""
        return (await self._wire.ask("DELETE", at("keys", key_id))).read(answers.KeyAnswer).record()
