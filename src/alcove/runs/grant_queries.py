"""The transactions of grants: what one is built from, what it is now, and what withdraws of it."""

from __future__ import annotations

import msgspec

from alcove import limits
from alcove.audit.model import Witness
from alcove.audit.queries import record
from alcove.clock import Micros
from alcove.database.op import Statement, Steps
from alcove.errors import ConflictError, RunNotFoundError, SessionNotFoundError
from alcove.rights.model import Rights, read_rights, written
from alcove.runs.model import LIVE, NewRun, RunStatus


class Change(msgspec.Struct, frozen=True):
    """A withdrawal, beside the grant that stays as it was written.

    Attributes:
        run_id: Of which run: this one's, or one above it.
        kind: `revoke`, or `narrow`.
        rights: Within what it is from then on; of a revocation nothing.
        reason: In the words of whoever did it.
        made_by: Who that was.
        created_us: When.
    """

    run_id: str
    kind: str
    rights: Rights
    reason: str
    made_by: str
    created_us: Micros


class Basis(msgspec.Struct, frozen=True):
    """What a grant is built from, at one moment.

    Attributes:
        now: When that was.
        ceilings: Of the session and of those above it.
        parent: The parent run as it stands, None for none.
    """

    now: Micros
    ceilings: tuple[Rights, ...]
    parent: Standing | None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A run's authority as it stands in the database.

    Attributes:
        now: When that was read.
        run_id: The run.
        tenant: Whose.
        user_id: Which user's.
        session_id: Where it works, `''` for nowhere.
        status: Of the run.
        due_us: When a hosted run is lost unless it is heard of before; 0 for others.
        root_id: The run at the top of its tree.
        line: It and the runs above it.
        broken: Whether one of those above is gone: then nobody vouches for what it handed on.
        changes: Withdrawals from it and from those above it.
        body: Its grant, None when the caller knows it already.
    """

    now: Micros
    run_id: str
    tenant: str
    user_id: str
    session_id: str
    status: str
    due_us: Micros
    root_id: str
    line: tuple[str, ...]
    broken: bool
    changes: tuple[Change, ...]
    body: str | None

    @property
    def ended(self) -> bool:
        """Whether the run has ended, or was not heard of in time, whether that has been written or not."""
        return self.status not in LIVE or 0 < self.due_us <= self.now


def standing(now: Micros, run_id: str, known: bool) -> Steps[Standing | None]:
    """Return a run's authority as it stands, None when there is no such run; without its grant when that is known."""
    rows = yield Statement(
        "SELECT tenant, user_id, session_id, status, due_at, root_run, parent_run FROM runs WHERE id = ?", (run_id,)
    )
    if not rows:
        return None
    [(tenant, user_id, session_id, status, due_us, root_id, above)] = rows
    line, broken = [run_id], False
    while above and not broken:
        line.append(above)
        rows = yield Statement("SELECT parent_run FROM runs WHERE id = ?", (above,))
        broken = not rows or len(line) > limits.RUN_DEPTH
        above = rows[0][0] if rows else ""
    changes: list[Change] = []
    for one in line:
        changes += yield from changes_of(now, one)
    body = None
    if not known:
        rows = yield Statement("SELECT body FROM grants WHERE run_id = ?", (run_id,))
        body, broken = (rows[0][0], broken) if rows else ("", True)
    return Standing(
        now=now,
        run_id=run_id,
        tenant=tenant,
        user_id=user_id,
        session_id=session_id,
        status=status,
        due_us=due_us,
        root_id=root_id,
        line=tuple(line),
        broken=broken,
        changes=tuple(changes),
        body=body,
    )


def changes_of(now: Micros, run_id: str) -> Steps[list[Change]]:
    """Return the withdrawals from one run's grant, in order."""
    rows = yield Statement(
        "SELECT kind, rights, reason, made_by, created_at FROM grant_changes WHERE run_id = ? ORDER BY n", (run_id,)
    )
    return [Change(run_id, kind, read_rights(rights), *rest) for kind, rights, *rest in rows]


def basis(now: Micros, session_id: str, parent_run: str) -> Steps[Basis]:
    """Return what a grant is built from.

    Raises:
        RunNotFoundError: There is no such parent.
    """
    ceilings: list[Rights] = []
    above = session_id
    for _ in range(limits.DEPTH + 1):
        rows = yield Statement(
            "SELECT s.parent_id, c.rights FROM sessions s LEFT JOIN ceilings c ON c.session_id = s.id WHERE s.id = ?",
            (above,),
        )
        above = rows[0][0] if rows else ""
        if rows and rows[0][1] is not None:
            ceilings.append(read_rights(rows[0][1]))
    parent = None
    if parent_run:
        parent = yield from standing(now, parent_run, False)
        if parent is None:
            raise RunNotFoundError(f"there is no run {parent_run}", field="parent_run", run_id=parent_run)
    return Basis(now, tuple(ceilings), parent)


def insert(run_id: str, body: str, cuts: str) -> Statement:
    """Return the statement that writes a grant, in the transaction that starts its run."""
    return Statement("INSERT INTO grants (run_id, body, cuts, changes) VALUES (?, ?, ?, 0)", (run_id, body, cuts))


def held(now: Micros, run_id: str) -> Steps[tuple[str, str, str, Standing]]:
    """Return a grant as it was written, its digest, what was cut off it, and how the run's authority stands.

    Raises:
        RunNotFoundError: There is no such run.
        ConflictError: It is queued.
    """
    rows = yield Statement(
        "SELECT g.body, r.digest, g.cuts FROM runs r JOIN grants g ON g.run_id = r.id WHERE r.id = ?", (run_id,)
    )
    stands = yield from standing(now, run_id, False)
    if stands and stands.status == RunStatus.QUEUED:
        raise ConflictError(
            f"run {run_id} is queued: its grant is made when it starts",
            field="run_id",
            remedy="wait for that, or cancel it",
        )
    if not rows or stands is None:
        raise RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)
    return rows[0][0], rows[0][1], rows[0][2], stands


def granted(now: Micros, new: NewRun, witness: Witness | None) -> Steps[None]:
    """Audit a grant, in the transaction that starts its run."""
    yield from record(
        now,
        witness,
        "grant.created",
        f"run:{new.id}",
        tenant=new.tenant,
        user_id=new.user_id,
        session_id=new.session_id,
        agent=new.agent,
        digest=new.digest,
        parent_run=new.parent_run,
    )


_WITHDRAWN = {"revoke": "grant.revoked", "narrow": "grant.narrowed"}


def withdraw(
    now: Micros,
    run_id: str,
    kind: str,
    rights: Rights,
    reason: str,
    made_by: str,
    witness: Witness | None = None,
) -> Steps[bool]:
    """Withdraw from a grant; return whether it made a difference: what is revoked already stays as it is.

    It is audited when it did.

    Raises:
        RunNotFoundError: There is no such run.
    """
    rows = yield Statement("UPDATE grants SET changes = changes + 1 WHERE run_id = ? RETURNING changes", (run_id,))
    if not rows:
        raise RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)
    found = yield Statement("SELECT 1 FROM grant_changes WHERE run_id = ? AND kind = 'revoke' LIMIT 1", (run_id,))
    if found:
        return False
    yield Statement(
        "INSERT INTO grant_changes (run_id, n, kind, rights, reason, made_by, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (run_id, rows[0][0], kind, written(rights), reason, made_by, now),
    )
    if witness:
        [whose] = yield Statement("SELECT tenant, user_id, session_id, digest FROM runs WHERE id = ?", (run_id,))
        tenant, user_id, session_id, digest = whose
        yield from record(
            now,
            witness,
            _WITHDRAWN[kind],
            f"run:{run_id}",
            tenant=tenant,
            user_id=user_id,
            session_id=session_id,
            digest=digest,
            reason=reason,
        )
    return True


def live_below(now: Micros, run_id: str) -> Steps[list[str]]:
    """Return which of a run and those below it are live, at most `limits.RUN_TREE` runs of its tree looked at."""
    rows = yield Statement(
        "SELECT id, parent_run, ended_at FROM runs WHERE root_run = (SELECT root_run FROM runs WHERE id = ?) "
        "ORDER BY created_at, id LIMIT ?",
        (run_id, limits.RUN_TREE),
    )
    parents = {one: parent for one, parent, _ in rows}

    def under(one: str) -> bool:
        for _ in range(limits.RUN_DEPTH + 1):
            if one == run_id:
                return True
            one = parents.get(one, "")
        return False

    return [one for one, _, ended_at in rows if not ended_at and under(one)]


def ceiling(now: Micros, session_id: str) -> Steps[Rights | None]:
    """Return what was set for one session itself."""
    rows = yield Statement("SELECT rights FROM ceilings WHERE session_id = ?", (session_id,))
    return read_rights(rows[0][0]) if rows else None


def set_ceiling(now: Micros, session_id: str, rights: Rights | None, witness: Witness | None = None) -> Steps[None]:
    """Set what runs in a session may be granted at most, or take that away; it is audited.

    Raises:
        SessionNotFoundError: There is no such session, or it is in the trash.
    """
    rows = yield Statement(
        "SELECT h.trashed, s.tenant, s.user_id FROM heads h JOIN sessions s ON s.id = h.session_id "
        "WHERE h.session_id = ?",
        (session_id,),
    )
    if not rows or rows[0][0]:
        raise SessionNotFoundError(f"there is no session {session_id}", field="session_id", session_id=session_id)
    [(_, tenant, user_id)] = rows
    if rights is None:
        yield Statement("DELETE FROM ceilings WHERE session_id = ?", (session_id,))
    else:
        yield Statement(
            "INSERT INTO ceilings (session_id, rights, set_at) VALUES (?, ?, ?) "
            "ON CONFLICT (session_id) DO UPDATE SET rights = excluded.rights, set_at = excluded.set_at",
            (session_id, written(rights), now),
        )
    yield from record(
        now,
        witness,
        "ceiling.removed" if rights is None else "ceiling.set",
        f"session:{session_id}",
        tenant=tenant,
        user_id=user_id or "",
        session_id=session_id,
        rights="" if rights is None else written(rights),
    )
