"""The trash: what waits in it, how it comes back, and the log of what went."""

from __future__ import annotations

from typing import Final

import msgspec

from alcove import limits
from alcove.clock import seconds
from alcove.errors import AlreadyExistsError, ConflictError, SessionNotFoundError
from alcove.lifecycle.model import Deed, Gone, Restored, Trashing
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import PageLimit, Paging, Unset, given


class Restoring(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to restore.

    Attributes:
        without_keys: Sessions whose key belongs to another session now come back without it.
        as_root: The session that was trashed comes back as a root, its descendants below it.
    """

    without_keys: bool = False
    as_root: bool = False


class TrashingView(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions that went to the trash together.

    Attributes:
        trash_id: Its id.
        session_id: The session that was trashed, with all its descendants.
        sessions: How many are in it.
        why: `asked`, `expired`, `empty` or `old`.
        who: By whom.
        trashed_at: Epoch seconds.
        step: `kept`, or what is being done with it: `moving`, `restoring` or `purging`.
    """

    trash_id: str
    session_id: str
    sessions: int
    why: str
    who: str
    trashed_at: float
    step: str


class TrashView(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the trash.

    Attributes:
        trashings: Newest first.
        next_cursor: Goes into `cursor` for the next page; null on the last.
    """

    trashings: list[TrashingView]
    next_cursor: str | None


class DeedView(msgspec.Struct, frozen=True, kw_only=True):
    """What was done to a session; it stays when the session is gone.

    Attributes:
        session_id: To which one.
        trash_id: The trashing that it went with.
        what: `trashed`, `restored` or `purged`.
        why: `asked`, `expired`, `empty`, `old` or `grace over`.
        who: By whom.
        created_at: Epoch seconds.
        removed: What was removed for good; null where nothing was.
    """

    session_id: str
    trash_id: str
    what: str
    why: str
    who: str
    created_at: float
    removed: Gone | None


class DeedsView(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the log.

    Attributes:
        deeds: Newest first.
        next_cursor: Goes into `cursor` for the next page; null on the last.
    """

    deeds: list[DeedView]
    next_cursor: str | None


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Which page of the log.

    Attributes:
        session_id: What was done to this session only.
        limit: How many at most.
        cursor: The `next_cursor` of the page before.
    """

    session_id: str | Unset = msgspec.UNSET
    limit: PageLimit = limits.PAGE_DEFAULT
    cursor: str | Unset = msgspec.UNSET


async def restore(call: Call, body: Restoring) -> Restored:
    """Bring back from the trash exactly what went with one trashing, whichever session of it is named."""
    waiting = await call.hub.sessions.trashing(call.session_id)
    if waiting is not None:
        await call.reach(waiting.session_id)
    return await call.hub.sessions.restore(
        call.session_id, without_keys=body.without_keys, as_root=body.as_root, by=call.principal.name
    )


async def list_trash(call: Call, query: Paging) -> TrashView:
    """List what is in the trash, newest first."""
    page = await call.hub.sessions.trashings(
        limit=query.limit, cursor=given(query.cursor), tenant=call.principal.tenant
    )
    return TrashView(trashings=[_trashing(one) for one in page.trashings], next_cursor=page.next_cursor)


async def list_deeds(call: Call, query: Which) -> DeedsView:
    """List what went to the trash, came back and was purged, when, why and by whom: newest first."""
    page = await call.hub.sessions.deeds(
        given(query.session_id), limit=query.limit, cursor=given(query.cursor), tenant=call.principal.tenant
    )
    return DeedsView(deeds=[_deed(one) for one in page.deeds], next_cursor=page.next_cursor)


def _trashing(record: Trashing) -> TrashingView:
    return TrashingView(
        trash_id=record.id,
        session_id=record.session_id,
        sessions=record.sessions,
        why=record.why,
        who=record.who,
        trashed_at=seconds(record.trashed_us),
        step=record.step,
    )


def _deed(record: Deed) -> DeedView:
    return DeedView(
        session_id=record.session_id,
        trash_id=record.trash_id,
        what=record.what,
        why=record.why,
        who=record.who,
        created_at=seconds(record.created_us),
        removed=record.removed,
    )


ROUTES: Final = (
    Route(
        "POST",
        "/api/v1/sessions/{session_id}/restore",
        restore,
        permission="sessions.delete",
        errors=(SessionNotFoundError, AlreadyExistsError, ConflictError),
    ),
    Route("GET", "/api/v1/trash", list_trash, permission="trash.read"),
    Route("GET", "/api/v1/deeds", list_deeds, permission="trash.read"),
)
