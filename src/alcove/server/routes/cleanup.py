"""Clean-up: what a sweep does, looked at first or done at once."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from alcove import limits
from alcove.clock import seconds
from alcove.janitor.model import Cleaned, What
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import Unset, given

Limit = Annotated[int, msgspec.Meta(ge=1, le=limits.CLEANED)]


class Cleaning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to clean up.

    Attributes:
        what: `expired`, `old` or `empty` sessions go to the trash, what is in the `trash` for long enough and `strays`,
            folders without a session, are removed for good. Without it: what the server's own sweep does.
        dry_run: Only look. False does it.
        older_than_s: How old it has to be, in seconds. Of `old` sessions it has to be said; the trash keeps things for
            its grace by default, what is empty or a stray is left alone for an hour.
        tenant: Only sessions of this tenant; all by default.
        limit: Stop after about so many sessions; `more` says whether to go on.
    """

    what: What | Unset = msgspec.UNSET
    dry_run: bool = True
    older_than_s: float | Unset = msgspec.UNSET
    tenant: str | Unset = msgspec.UNSET
    limit: Limit | Unset = msgspec.UNSET


class GroupView(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions that go together.

    Attributes:
        session_id: The one above all others.
        sessions: How many they are.
        tenant: Whose.
        since: Epoch seconds: when something last happened in the one above, or when they went to the trash.
        trash_id: The trashing; null in a preview of what is outside the trash.
    """

    session_id: str
    sessions: int
    tenant: str
    since: float
    trash_id: str | None


class CleanedView(msgspec.Struct, frozen=True, kw_only=True):
    """What went of one kind, or would go.

    Attributes:
        what: Of which kind.
        sessions: How many sessions.
        groups: Which, at most a thousand groups.
        strays: Folders without a session, at most a thousand.
        size_bytes: Room given back to the disk.
        more: Whether the limit stopped it.
        problems: What could not be done; it is tried again by the next sweep.
    """

    what: str
    sessions: int
    groups: list[GroupView]
    strays: list[str]
    size_bytes: int
    more: bool
    problems: list[str]


class DiskView(msgspec.Struct, frozen=True, kw_only=True):
    """How full a disk is.

    Attributes:
        holds: `base`, `home` or `database`.
        size_bytes: Its size.
        free_bytes: What may still be written.
        low: Whether that is little.
    """

    holds: str
    size_bytes: int
    free_bytes: int
    low: bool


class CleanupView(msgspec.Struct, frozen=True, kw_only=True):
    """What a clean-up did, or would do.

    Attributes:
        dry_run: Whether nothing was done.
        cleaned: By kind.
        lost_runs: Runs whose process is gone, which a sweep marks lost.
        values: Of state: expired, or of runs that have ended.
        journals: Runs that ended long ago, whose output a sweep forgets.
        runs: Runs that belonged to no session and ended a year ago, which a sweep removes.
        folderless: Sessions whose workspace is gone; told with `strays`, never changed.
        disks: How full they are.
    """

    dry_run: bool
    cleaned: list[CleanedView]
    lost_runs: int = 0
    journals: int = 0
    values: int = 0
    runs: int = 0
    folderless: tuple[str, ...] = ()
    disks: list[DiskView]


async def clean_up(call: Call, body: Cleaning) -> CleanupView:
    """Tell what a clean-up would do, or with `dry_run` false do it."""
    janitor = call.hub.janitor
    what = given(body.what)
    if what is None:
        swept = await janitor.sweep(dry_run=body.dry_run, by=call.principal.name)
        return CleanupView(
            dry_run=body.dry_run,
            cleaned=[_cleaned(swept.expired), _cleaned(swept.trash)],
            lost_runs=swept.lost_runs,
            journals=swept.journals,
            values=swept.values,
            runs=swept.runs,
            disks=await _disks(call),
        )
    cleaned = await janitor.clean(
        what,
        older_s=given(body.older_than_s),
        tenant=given(body.tenant),
        limit=given(body.limit),
        dry_run=body.dry_run,
        by=call.principal.name,
    )
    folderless = (await janitor.findings()).folderless if what is What.STRAYS else ()
    return CleanupView(
        dry_run=body.dry_run, cleaned=[_cleaned(cleaned)], folderless=folderless, disks=await _disks(call)
    )


def _cleaned(record: Cleaned) -> CleanedView:
    return CleanedView(
        what=record.what,
        sessions=record.sessions,
        groups=[
            GroupView(
                session_id=one.session_id,
                sessions=one.sessions,
                tenant=one.tenant,
                since=seconds(one.since_us),
                trash_id=one.trash_id,
            )
            for one in record.groups
        ],
        strays=list(record.strays),
        size_bytes=record.size_bytes,
        more=record.more,
        problems=list(record.problems),
    )


async def _disks(call: Call) -> list[DiskView]:
    return [
        DiskView(holds=one.holds, size_bytes=one.size_bytes, free_bytes=one.free_bytes, low=one.low)
        for one in await call.hub.janitor.disks()
    ]


ROUTES: Final = (Route("POST", "/api/v1/cleanup", clean_up, permission="cleanup.run"),)
