"""The audit of a server, in the words of the hub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import final

import msgspec

from alcove import limits
from alcove.audit.lines import recorded
from alcove.audit.model import AuditFilters, Chained, Erased, Finding, Recorded, RecordedPage, Verified, Words
from alcove.cli.wire import Wire, at
from alcove.clock import SECOND, Micros, seconds
from alcove.values import Json


class _Row(msgspec.Struct, kw_only=True):
    node: str
    n: int
    created_at: float
    first_at: float
    act: str
    code: str
    times: int
    subject: str
    who: str
    tenant: str
    user_id: str
    session_id: str
    words: dict[str, Json]
    erased: bool
    digests: tuple[str, str, str]
    prev: str
    hash: str
    seal: str

    def record(self) -> Recorded:
        chained = Chained(
            self.node,
            self.n,
            round(self.created_at * SECOND),
            round(self.first_at * SECOND),
            self.act,
            self.code,
            self.times,
            *self.digests,
            self.prev,
            self.hash,
            self.seal,
        )
        told = "" if self.erased else msgspec.json.encode(self.words, order="deterministic").decode()
        erased = "erased" if self.erased else ""
        names = (self.tenant, self.user_id, self.session_id, self.subject, self.who)
        return Recorded(chained, Words(*names, told, erased))


class _Page(msgspec.Struct):
    rows: list[_Row]
    next_cursor: str | None


class _Verified(msgspec.Struct):
    nodes: int
    rows: int
    erased: int
    foreign: int
    findings: tuple[Finding, ...]


@final
class RemoteAudit:
    """`hub.audit` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def list(
        self, filters: AuditFilters | None = None, *, limit: int = limits.PAGE_DEFAULT, cursor: str | None = None
    ) -> RecordedPage:
        """List rows: see `Audit.list`."""
        given = msgspec.structs.asdict(filters or AuditFilters())
        denied = given.pop("denied")
        query: dict[str, str | int | bool | None] = {"limit": limit, "cursor": cursor}
        query["outcome"] = None if denied is None else "denied" if denied else "done"
        for name in ("after", "before"):
            instant = given.pop(f"{name}_us")
            query[name] = None if instant is None else str(seconds(instant))
        answer = (await self._wire.ask("GET", at("audit"), query={**query, **given})).read(_Page)
        return RecordedPage([row.record() for row in answer.rows], answer.next_cursor)

    async def records(self, *, after_us: Micros = 0) -> AsyncIterator[Recorded]:
        """Yield every row, node by node in the order of its chain."""
        query = {"after": str(seconds(after_us))} if after_us else None
        rest, number = b"", 0
        async with self._wire.stream(at("audit", "export"), query=query) as response:
            async for piece in self._wire.pieces(response):
                *whole, rest = (rest + piece).split(b"\n")
                for raw in whole:
                    number += 1
                    yield recorded(raw, number)

    async def verify(self) -> Verified:
        """Look through the whole audit: see `Audit.verify`."""
        found = (await self._wire.ask("GET", at("audit", "verification"))).read(_Verified)
        return Verified(**msgspec.structs.asdict(found))

    async def erase(
        self,
        *,
        subject: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        before_us: Micros | None = None,
    ) -> Erased:
        """Erase words: see `Audit.erase`."""
        body: dict[str, Json] = {"subject": subject, "session_id": session_id, "user_id": user_id}
        body["before"] = None if before_us is None else seconds(before_us)
        given = {name: value for name, value in body.items() if value is not None}
        return (await self._wire.ask("POST", at("audit", "erase"), body=given)).read(Erased)
