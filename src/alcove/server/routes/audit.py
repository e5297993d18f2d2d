"""The audit: what was denied, and what was done with authority, keys and sessions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Final, Literal

import msgspec

from alcove import limits
from alcove.audit.lines import line
from alcove.audit.model import AuditFilters, Recorded
from alcove.clock import SECOND, Micros, seconds
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.routes.views import Name, PageLimit, Unset, given
from alcove.server.streaming import Made
from alcove.values import Json

_LINES: Final = "application/x-ndjson"
Instant = Annotated[float, msgspec.Meta(ge=0, le=253402300799)]


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows; every filter that is given must hold.

    Attributes:
        act: What: `check.denied`, `grant.revoked`, `key.created`.
        code: `done`, or why it was denied.
        outcome: `denied` for denials only, `done` for what was done.
        subject: What it was about: `run:…`, `session:…`, `key:…`; found after an erasure, too.
        tenant: Of this tenant.
        user_id: Of this user.
        session_id: In this session.
        who: By this principal: `key:…`, `local`, `library`, `janitor`; found after an erasure, too.
        node: In the chain of this node.
        after: Epoch seconds: not before this.
        before: Epoch seconds: before this.
        limit: How many at most.
        cursor: The `next_cursor` of the page before.
    """

    act: Name | Unset = msgspec.UNSET
    code: Name | Unset = msgspec.UNSET
    outcome: Literal["denied", "done"] | Unset = msgspec.UNSET
    subject: Name | Unset = msgspec.UNSET
    tenant: Name | Unset = msgspec.UNSET
    user_id: Name | Unset = msgspec.UNSET
    session_id: Name | Unset = msgspec.UNSET
    who: Name | Unset = msgspec.UNSET
    node: Name | Unset = msgspec.UNSET
    after: Instant | Unset = msgspec.UNSET
    before: Instant | Unset = msgspec.UNSET
    limit: PageLimit = limits.PAGE_DEFAULT
    cursor: str | Unset = msgspec.UNSET


class RowView(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    Attributes:
        node: Whose chain.
        n: Its number there.
        created_at: Epoch seconds; of several, of the last.
        first_at: Epoch seconds, of the first.
        act: What.
        code: `done`, or why it was denied.
        times: How often.
        subject: What it was about; a digest once the words are erased.
        who: Who did it, or was denied; a digest once the words are erased.
        tenant: Whose.
        user_id: Which user's.
        session_id: In which session.
        words: What else is known; empty once erased.
        erased: Whether the words were erased.
        digests: What is chained in place of the words: the keyed digests of `subject`, of `who` and of all words.
        prev: The hash of the row before.
        hash: The row's own hash.
        seal: Its seal, by the node's key.
    """

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
    digests: list[str]
    prev: str
    hash: str
    seal: str


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the audit.

    Attributes:
        rows: Newest first. There may be fewer than asked for, even none, before the last page.
        next_cursor: Goes into `cursor` for the next page; null on the last.
    """

    rows: list[RowView]
    next_cursor: str | None


class FindingView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong with the audit.

    Attributes:
        node: In whose chain.
        n: Which row, or the first that is missing.
        what: `altered`, `missing`, `misplaced`, `unsealed`, `words_altered`, `words_missing`, `checkpoint_altered` or
            `rewound`.
        message: The same for a person.
    """

    node: str
    n: int
    what: str
    message: str


class VerifiedView(msgspec.Struct, frozen=True, kw_only=True):
    """What a look through the whole audit found.

    Attributes:
        intact: Whether nothing is wrong.
        nodes: How many chains there are.
        rows: How many rows.
        erased: Of how many the words were erased.
        foreign: How many rows are sealed with a key that is not here, so that only their hashes could be checked.
        findings: What is wrong, at most a hundred.
    """

    intact: bool
    nodes: int
    rows: int
    erased: int
    foreign: int
    findings: list[FindingView]


class Erasing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose words to erase: exactly one of these.

    Attributes:
        subject: Of what was about this: `run:…`, `key:…`.
        session_id: Of what was in this session.
        user_id: Of what was this user's.
        before: Epoch seconds: of all that was before.
    """

    subject: Name | Unset = msgspec.UNSET
    session_id: Name | Unset = msgspec.UNSET
    user_id: Name | Unset = msgspec.UNSET
    before: Instant | Unset = msgspec.UNSET


class ErasedView(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure did.

    Attributes:
        rows: Of how many rows the words are gone.
    """

    rows: int


async def list_audit(call: Call, query: Which) -> AuditView:
    """List what was denied, and what was done with authority, keys and sessions: newest first."""
    outcome = given(query.outcome)
    filters = AuditFilters(
        act=given(query.act),
        code=given(query.code),
        subject=given(query.subject),
        tenant=given(query.tenant),
        user_id=given(query.user_id),
        session_id=given(query.session_id),
        who=given(query.who),
        node=given(query.node),
        after_us=_micros(given(query.after)),
        before_us=_micros(given(query.before)),
        denied=None if outcome is None else outcome == "denied",
    )
    page = await call.hub.audit.list(filters, limit=query.limit, cursor=given(query.cursor))
    return AuditView(rows=[_row(row) for row in page.rows], next_cursor=page.next_cursor)


class Since(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows to export.

    Attributes:
        after: Epoch seconds: not before this.
    """

    after: Instant | Unset = msgspec.UNSET


async def export(call: Call, query: Since) -> Made:
    """Download every row as a line of JSON, node by node in the order of its chain, with all that its hash is made of.

    It is read while it is sent. When that fails, the connection ends before the file does.
    """
    return Made("audit.jsonl", _LINES, _lines(call, _micros(given(query.after)) or 0))


async def _lines(call: Call, after_us: Micros) -> AsyncGenerator[bytes]:
    lines: list[bytes] = []
    async for row in call.hub.audit.records(after_us=after_us):
        lines.append(line(row))
        if len(lines) == limits.AUDIT_PAGE:
            yield b"".join(lines)
            lines.clear()
    yield b"".join(lines)


async def verify(call: Call) -> VerifiedView:
    """Look through the whole audit: was a row altered, lost, moved or forged? Each finding names its row."""
    found = await call.hub.audit.verify()
    return VerifiedView(
        intact=not found.findings,
        nodes=found.nodes,
        rows=found.rows,
        erased=found.erased,
        foreign=found.foreign,
        findings=[FindingView(node=one.node, n=one.n, what=one.what, message=one.message) for one in found.findings],
    )


async def erase(call: Call, body: Erasing) -> ErasedView:
    """Erase the words of rows. The rows stay, with codes, times and digests, and that it was done is audited."""
    erased = await call.hub.audit.erase(
        subject=given(body.subject),
        session_id=given(body.session_id),
        user_id=given(body.user_id),
        before_us=_micros(given(body.before)),
        by=call.principal.name,
    )
    return ErasedView(rows=erased.rows)


def _row(row: Recorded) -> RowView:
    one, words = row.chained, row.words
    return RowView(
        node=one.node,
        n=one.n,
        created_at=seconds(one.created_us),
        first_at=seconds(one.first_us),
        act=one.act,
        code=one.code,
        times=one.times,
        subject=words.subject if words else one.subject,
        who=words.who if words else one.who,
        tenant=words.tenant if words else "",
        user_id=words.user_id if words else "",
        session_id=words.session_id if words else "",
        words=row.told,
        erased=bool(words and words.erased),
        digests=[one.subject, one.who, one.words],
        prev=one.prev,
        hash=one.hash,
        seal=one.seal,
    )


def _micros(at: float | None) -> Micros | None:
    return None if at is None else round(at * SECOND)


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", "/api/v1/audit", list_audit, permission="audit.read"),
    Route("GET", "/api/v1/audit/export", export, permission="audit.read", media=_LINES),
    Route("GET", "/api/v1/audit/verification", verify, permission="audit.read"),
    Route("POST", "/api/v1/audit/erase", erase, permission="audit.erase"),
)
