"""Clean-up on a server, in the words of the hub."""

from __future__ import annotations

from typing import final

import msgspec

from alcove.cli.wire import Wire, at
from alcove.clock import SECOND
from alcove.janitor.model import Cleaned, Group, What


class GroupAnswer(msgspec.Struct, kw_only=True):
    """Sessions that go together, as they go over the wire."""

    session_id: str
    sessions: int
    tenant: str
    since: float
    trash_id: str | None


class CleanedAnswer(msgspec.Struct, kw_only=True):
    """What went of one kind, as it goes over the wire."""

    what: What
    sessions: int
    groups: list[GroupAnswer]
    strays: list[str]
    size_bytes: int
    more: bool
    problems: list[str]

    def record(self, *, dry_run: bool) -> Cleaned:
        """Return it as the hub would."""
        return Cleaned(
            what=self.what,
            dry_run=dry_run,
            sessions=self.sessions,
            groups=tuple(
                Group(one.session_id, one.sessions, one.tenant, round(one.since * SECOND), one.trash_id)
                for one in self.groups
            ),
            strays=tuple(self.strays),
            size_bytes=self.size_bytes,
            more=self.more,
            problems=tuple(self.problems),
        )


class CleanupAnswer(msgspec.Struct, kw_only=True):
    """What a clean-up did, as it goes over the wire."""

    cleaned: list[CleanedAnswer]


@final
class RemoteJanitor:
    """`hub.janitor` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def clean(
        self, what: What, *, older_s: float | None = None, limit: int | None = None, dry_run: bool = False
    ) -> Cleaned:
        """Clean up one kind of things: see `Janitor.clean`."""
        body: dict[str, object] = {"what": what, "dry_run": dry_run}
        body |= {name: value for name, value in (("older_than_s", older_s), ("limit", limit)) if value is not None}
        [cleaned] = (await self._wire.ask("POST", at("cleanup"), body=body)).read(CleanupAnswer).cleaned
        return cleaned.record(dry_run=dry_run)
