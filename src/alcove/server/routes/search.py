"""Search."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from alcove import limits
from alcove.clock import seconds
from alcove.errors import InvalidError
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import Name, Unset, given

UNSET = msgspec.UNSET


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for, and where.

    Attributes:
        q: Words that all have to be there; `word*` for words that begin so, `"some words"` for words together.
        user_id: Of this user only; of a key of the role `user` it is always its own.
        app: Of this app only.
        session_id: In this session only.
        limit: How many at most.
    """

    q: str
    user_id: Name | Unset = UNSET
    app: Name | Unset = UNSET
    session_id: Name | Unset = UNSET
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.SEARCH_HITS)] = 20


class HitView(msgspec.Struct, frozen=True, kw_only=True):
    """A place that was found.

    Attributes:
        session_id: The session.
        seq: The message; 0 for the session's title.
        role: Who speaks; `title` for a title.
        snippet: The text around what was found.
        marks: Where in `snippet` it is: pairs of the first character and the one after the last.
        score: How well it fits; only to be compared within one answer.
        title: The session's.
        user_id: The session's.
        created_at: Epoch seconds.
    """

    session_id: str
    seq: int
    role: str
    snippet: str
    marks: list[list[int]]
    score: float
    title: str
    user_id: str
    created_at: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        hits: The best first.
        more: Whether there may be more: a narrower query finds them.
        behind: Messages and titles that the index does not have yet.
    """

    hits: list[HitView]
    more: bool
    behind: int


async def find(call: Call, query: Query) -> Answer:
    """Find messages and titles by their words. Case, width and accents do not count."""
    found = await call.hub.search.find(
        query.q,
        tenant=call.principal.tenant,
        user_id=call.user(given(query.user_id)),
        app=given(query.app),
        session_id=given(query.session_id),
        limit=query.limit,
    )
    hits = [
        HitView(
            session_id=one.session_id,
            seq=one.seq,
            role=one.role,
            snippet=one.snippet,
            marks=[[*mark] for mark in one.marks],
            score=one.score,
            title=one.title,
            user_id=one.user_id,
            created_at=seconds(one.created_us),
        )
        for one in found.hits
    ]
    return Answer(hits=hits, more=found.more, behind=found.behind)


ROUTES: Final = (Route("GET", "/api/v1/search", find, permission="search.read", errors=(InvalidError,)),)
