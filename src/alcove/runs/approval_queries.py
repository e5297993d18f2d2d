"""The transactions of approvals: what a run asks a person, and the answer.

Each begins with the UPDATE of the run's row, so that an answer and the end of the run are one after the other.
"""

from __future__ import annotations

import msgspec

from alcove import limits
from alcove.audit.model import Witness
from alcove.audit.queries import record
from alcove.clock import Micros
from alcove.database.idempotency import Once, remember
from alcove.database.op import Statement, Steps, Value
from alcove.errors import (
    AlcoveError,
    ApprovalDecidedError,
    ApprovalNotFoundError,
    ConflictError,
    RunEndedError,
    RunNotFoundError,
    TooLargeError,
)
from alcove.events import queries as events
from alcove.events.model import NewEvent
from alcove.pages import decode_cursor, encode_cursor
from alcove.rights.approvals import Approval, ApprovalStatus, Question
from alcove.sessions import heads
from alcove.sessions.heads import Fence

_COLUMNS = (
    "id, run_id, tenant, user_id, session_id, agent, kind, name, operation, arguments, digest, message, status, "
    "reason, decided_by, created_at, expires_at, decided_at, used_at"
)
# One whose time has run out is denied from then on, whether that has been written or not.
_READ = _COLUMNS.replace(
    " status,", " CASE WHEN status = 'waiting' AND expires_at <= ? THEN 'expired' ELSE status END,"
)


class Place(msgspec.Struct, frozen=True):
    """Where the event of a run is written that is executed here.

    Attributes:
        session_id: Its session.
        fence: Its right to write.
        n: The number of the event.
    """

    session_id: str
    fence: Fence
    n: int


class Put(msgspec.Struct, frozen=True):
    """What asking came to; also the answer kept under an idempotency key.

    Attributes:
        approval_id: The request.
        new: Whether it was written now; the same question that is still open is not asked twice.
        replayed: Whether an earlier call with the same idempotency key wrote it.
    """

    approval_id: str
    new: bool
    replayed: bool = False


class ApprovalFilters(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests; every one that is given must hold.

    Attributes:
        run_id: Of this run.
        tenant: Of this tenant.
        user_id: Of this user.
        session_id: Of this session.
        waiting: Only those that nobody has answered.
    """

    run_id: str | None = None
    tenant: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    waiting: bool = False


class ApprovalPage(msgspec.Struct, frozen=True):
    """Requests, newest first, and the cursor of the next page (None on the last)."""

    approvals: list[Approval]
    next_cursor: str | None


def ask(
    now: Micros, asked: Question, place: Place | None, request: Once | None, witness: Witness | None = None
) -> Steps[Put]:
    """Record what a run asks, and that it waits; it is audited. The run goes on, by that.

    Raises:
        RunNotFoundError, RunEndedError: There is no such run any more.
        ConflictError: It is to be cancelled, or Alcove executes it and not here.
        StaleEpochError: It has lost its lease.
        TooLargeError: It asks too much.
    """
    if place:
        yield from heads.take(now, place.session_id, 0, 0, place.fence)
    hosted = 0 if place else 1
    rows = yield Statement(
        "UPDATE runs SET due_at = CASE WHEN hosted = 1 THEN ? + stale_after ELSE due_at END "
        "WHERE id = ? AND ended_at = 0 AND cancelling = 0 AND hosted = ? AND (hosted = 0 OR due_at > ?) "
        "RETURNING tenant, user_id, session_id, agent",
        (now, asked.run_id, hosted, now),
    )
    if not rows:
        raise (yield from _refusal(now, asked.run_id))
    [(tenant, user_id, session_id, agent)] = rows
    digest = asked.digest
    # One of these whose time has run out makes room for the same question.
    yield from _settle(now, asked.run_id, witness)
    found = yield Statement(
        "SELECT id FROM approvals WHERE run_id = ? AND digest = ? AND status = 'waiting'", (asked.run_id, digest)
    )
    put = Put(found[0][0] if found else asked.id, not found)
    if put.new:
        yield from _check_room(asked.run_id)
        marks = ", ".join("?" * 19)
        yield Statement(
            f"INSERT INTO approvals ({_COLUMNS}) VALUES ({marks})",
            (asked.id, asked.run_id, tenant, user_id, session_id, agent, asked.kind, asked.name, asked.operation)
            + (
                asked.arguments_json,
                digest,
                asked.message,
                ApprovalStatus.WAITING,
                "",
                "",
                now,
                now + asked.lasts,
                0,
                0,
            ),
        )
        yield Statement("UPDATE runs SET status = 'waiting' WHERE id = ?", (asked.run_id,))
        entry = _requested(asked, digest, now + asked.lasts)
        if place:
            yield events.insert(now, asked.run_id, place.n, [entry])
        else:
            yield from events.add_last(now, asked.run_id, [entry])
    if request:
        yield remember(now, request, put)
    if put.new:
        yield from _audited(now, witness, "approval.asked", (yield from get(now, asked.run_id, asked.id)))
    return put


def decide(
    now: Micros, run_id: str, approval_id: str, status: str, reason: str, by: str, witness: Witness | None = None
) -> Steps[tuple[Approval, bool]]:
    """Answer a request; it is audited. The same answer again is the first one; return it, and whether it is that.

    Raises:
        ApprovalNotFoundError: The run has not asked that.
        ApprovalDecidedError: It was answered otherwise, or nobody did in time, or the run is to end.
    """
    yield Statement("UPDATE runs SET status = status WHERE id = ?", (run_id,))
    rows = yield Statement(
        "UPDATE approvals SET status = ?, reason = ?, decided_by = ?, decided_at = ? "
        "WHERE id = ? AND run_id = ? AND status = 'waiting' AND expires_at > ? RETURNING id",
        (status, reason, by, now, approval_id, run_id, now),
    )
    found = yield from get(now, run_id, approval_id)
    if not rows:
        if found.status == status:
            return found, True
        raise ApprovalDecidedError(
            f"request {approval_id} is {found.status} already",
            field="approval_id",
            remedy="an answer stands; let the run ask again",
            approval_id=approval_id,
            status=found.status,
        )
    yield from _go_on(now, found)
    yield from _audited(now, witness, "approval.approved" if found else "approval.denied", found, reason=reason)
    return found, False


def use(now: Micros, run_id: str, approval_id: str, digest: str, witness: Witness | None = None) -> Steps[str]:
    """Use an approval up: it serves once, for what it is about, until it expires; audited.

    Returns:
        `''`, or why it does not serve.
    """
    rows = yield Statement(
        "UPDATE approvals SET used_at = ? WHERE id = ? AND run_id = ? AND digest = ? AND status = 'approved' "
        "AND used_at = 0 AND expires_at > ? AND EXISTS (SELECT 1 FROM runs WHERE id = ? AND ended_at = 0) "
        "RETURNING id",
        (now, approval_id, run_id, digest, now, run_id),
    )
    found = yield Statement(f"SELECT {_READ} FROM approvals WHERE id = ? AND run_id = ?", (now, approval_id, run_id))
    if not found:
        return "the run has no such request"
    approval = Approval(*found[0])
    if rows:
        yield from _audited(now, witness, "approval.used", approval)
        return ""
    if approval.digest != digest:
        return "the approval is about something else"
    if approval.used_us:
        return "the approval has served already"
    return f"the request is {approval.status}" if not approval else "the approval has expired, or its run has ended"


def expire(now: Micros, approval_id: str, witness: Witness | None = None) -> Steps[Approval | None]:
    """Write that a request was not answered in time; it is audited. None when there is nothing to write."""
    rows = yield Statement(
        "UPDATE runs SET status = status WHERE id = (SELECT run_id FROM approvals WHERE id = ?) RETURNING id",
        (approval_id,),
    )
    if not rows:
        return None
    return (yield from _expire(now, rows[0][0], approval_id, witness))


def due(now: Micros, limit: int) -> Steps[list[str]]:
    """Return the ids of requests that were not answered in time."""
    rows = yield Statement(
        "SELECT id FROM approvals WHERE status = 'waiting' AND expires_at <= ? ORDER BY expires_at LIMIT ?",
        (now, limit),
    )
    return [row[0] for row in rows]


def close(now: Micros, run_id: str) -> Statement:
    """Return the statement that ends what a run waits for, in the transaction that ends or cancels the run."""
    return Statement(
        "UPDATE approvals SET status = 'cancelled', decided_at = ? WHERE run_id = ? AND status = 'waiting'",
        (now, run_id),
    )


def get(now: Micros, run_id: str, approval_id: str) -> Steps[Approval]:
    """Return a request of a run.

    Raises:
        ApprovalNotFoundError: The run has not asked that.
    """
    rows = yield Statement(f"SELECT {_READ} FROM approvals WHERE id = ? AND run_id = ?", (now, approval_id, run_id))
    if not rows:
        raise ApprovalNotFoundError(
            f"run {run_id} has no request {approval_id[: limits.ID_CHARS]}", field="approval_id", run_id=run_id
        )
    return Approval(*rows[0])


def page(now: Micros, filters: ApprovalFilters, limit: int, cursor: str | None) -> Steps[ApprovalPage]:
    """Return the requests that fit every filter, newest first."""
    created, after = decode_cursor(cursor) if cursor else (2**63 - 1, "")
    names = ("run_id", "tenant", "user_id", "session_id")
    given = {name: value for name in names if (value := getattr(filters, name)) is not None}
    condition = "".join(f"{column} = ? AND " for column in given)
    values: tuple[Value, ...] = (now, *given.values())
    if filters.waiting:
        condition += "status = 'waiting' AND expires_at > ? AND "
        values += (now,)
    rows = yield Statement(
        f"SELECT {_READ} FROM approvals WHERE {condition}(created_at, id) < (?, ?) "
        "ORDER BY created_at DESC, id DESC LIMIT ?",
        (*values, created, after, limit + 1),
    )
    found = [Approval(*row) for row in rows[:limit]]
    return ApprovalPage(found, encode_cursor(found[-1].created_us, found[-1].id) if len(rows) > limit else None)


def decided(approval: Approval) -> NewEvent:
    """Return the event that says how a request was answered."""
    return NewEvent(
        "approval.decided",
        {
            "approval_id": approval.id,
            "status": approval.status,
            "reason": approval.reason,
            "decided_by": approval.decided_by,
        },
    )


def _requested(asked: Question, digest: str, expires: Micros) -> NewEvent:
    """Say what is asked; arguments that are too long for an event are read by the request's id."""
    fits = len(asked.arguments_json) <= limits.EVENT_BYTES // 4
    return NewEvent(
        "approval.requested",
        {
            "approval_id": asked.id,
            "type": asked.kind,
            "id": asked.name,
            "operation": asked.operation,
            "arguments": msgspec.json.decode(asked.arguments_json) if fits else None,
            "digest": digest,
            "message": asked.message,
            "expires_at": expires / 1_000_000,
        },
    )


def _settle(now: Micros, run_id: str, witness: Witness | None) -> Steps[None]:
    rows = yield Statement(
        "SELECT id FROM approvals WHERE run_id = ? AND status = 'waiting' AND expires_at <= ?", (run_id, now)
    )
    for [approval_id] in rows:
        yield from _expire(now, run_id, approval_id, witness)


def _expire(now: Micros, run_id: str, approval_id: str, witness: Witness | None) -> Steps[Approval | None]:
    rows = yield Statement(
        "UPDATE approvals SET status = 'expired', decided_at = ? "
        "WHERE id = ? AND status = 'waiting' AND expires_at <= ? RETURNING id",
        (now, approval_id, now),
    )
    if not rows:
        return None
    found = yield from get(now, run_id, approval_id)
    yield from _go_on(now, found)
    yield from _audited(now, witness, "approval.expired", found)
    return found


def _go_on(now: Micros, approval: Approval) -> Steps[None]:
    """Let a run go on that waits for nothing more; a hosted one has nobody else who would say so in its journal."""
    yield Statement(
        "UPDATE runs SET status = 'running' WHERE id = ? AND status = 'waiting' "
        "AND NOT EXISTS (SELECT 1 FROM approvals WHERE run_id = ? AND status = 'waiting')",
        (approval.run_id, approval.run_id),
    )
    hosted = yield Statement("SELECT 1 FROM runs WHERE id = ? AND hosted = 1", (approval.run_id,))
    if hosted:
        yield from events.add_last(now, approval.run_id, [decided(approval)])


def _check_room(run_id: str) -> Steps[None]:
    [[count, waiting]] = yield Statement(
        "SELECT COUNT(*), COALESCE(SUM(CASE WHEN status = 'waiting' THEN 1 ELSE 0 END), 0) "
        "FROM approvals WHERE run_id = ?",
        (run_id,),
    )
    for number, most, what in (
        (waiting, limits.APPROVALS_WAITING, "requests that wait"),
        (count, limits.APPROVALS, "requests"),
    ):
        if number >= most:
            raise TooLargeError(
                f"run {run_id} has {number} {what}", field="run_id", limit=most, remedy="wait for answers, or ask less"
            )


def _audited(now: Micros, witness: Witness | None, act: str, approval: Approval, *, reason: str = "") -> Steps[None]:
    yield from record(
        now,
        witness,
        act,
        f"run:{approval.run_id}",
        tenant=approval.tenant,
        user_id=approval.user_id,
        session_id=approval.session_id,
        approval_id=approval.id,
        type=approval.kind,
        id=approval.name,
        operation=approval.operation,
        digest=approval.digest,
        reason=reason,
    )


def _refusal(now: Micros, run_id: str) -> Steps[AlcoveError]:
    rows = yield Statement("SELECT status, ended_at, hosted, cancelling, due_at FROM runs WHERE id = ?", (run_id,))
    if not rows:
        return RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)
    [(status, ended_at, hosted, cancelling, due_at)] = rows
    if ended_at or (hosted and due_at <= now):
        how = f"has ended ({status})" if ended_at else "was not heard of in time: it is lost"
        return RunEndedError(f"run {run_id} {how}", field="run_id", run_id=run_id)
    if cancelling:
        return ConflictError(
            f"run {run_id} is to be cancelled: it asks no more", field="run_id", remedy="end it", run_id=run_id
        )
    return ConflictError(f"another process executes run {run_id}", field="run_id", remedy="ask there", run_id=run_id)
