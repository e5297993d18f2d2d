"""The transactions of the trash. A trashing is worked on by one call at a time, which holds its *claim* meanwhile.

Each way leads through steps that a crash may end: `moving`, `restoring` and `purging` tell whoever comes next what is
still to be done.
"""

from __future__ import annotations

import msgspec

from alcove import limits
from alcove.audit.model import Act, Witness
from alcove.audit.queries import append, record
from alcove.clock import SECOND, Micros
from alcove.database.op import Row, Rows, Statement, Steps, Value
from alcove.errors import AlreadyExistsError, ConflictError, InvalidError, SessionNotFoundError
from alcove.lifecycle.model import By, Step, Trashing
from alcove.lifecycle.queries import deeds
from alcove.sessions import queries as sessions
from alcove.sessions.heads import NEVER

TRASHING = "id, tenant, session_id, sessions, why, who, trashed_at, step, step_why, step_who, claim, claimed_until"
CLAIM: Micros = limits.CLAIM_S * SECOND


def trash(
    now: Micros,
    session_id: str,
    trash_id: str,
    limit: int,
    by: By,
    claim: str,
    version: int | None = None,
    witness: Witness | None = None,
) -> Steps[list[str]]:
    """Move a session and its descendants to the trash, at most `limit` of them: see `sessions.queries.trash`."""
    went = yield from sessions.trash(now, session_id, trash_id, limit, version)
    if went:
        [[tenant]] = yield Statement("SELECT tenant FROM sessions WHERE id = ?", (session_id,))
        yield from recorded(now, [(trash_id, tenant, went)], by, claim, witness)
    return went


def recorded(
    now: Micros, trashings: list[tuple[str, str, list[str]]], by: By, claim: str, witness: Witness | None = None
) -> Steps[None]:
    """Record trashings (id, tenant, sessions with the trashed one first) whose folders are still to follow."""
    yield Statement(
        f"INSERT INTO trashings ({TRASHING}) VALUES (?, ?, ?, ?, ?, ?, ?, 'moving', ?, ?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET sessions = trashings.sessions + excluded.sessions, "
        "claimed_until = excluded.claimed_until",
        [
            (trash_id, tenant, went[0], len(went), by.why, by.who, now, by.why, by.who, claim, now + CLAIM)
            for trash_id, tenant, went in trashings
        ],
        many=True,
    )
    yield deeds(now, [(gone, trash_id, tenant, None) for trash_id, tenant, went in trashings for gone in went],
        "trashed", by)  # fmt: skip
    if witness:
        acts = [
            Act(
                act="session.trashed",
                subject=f"session:{went[0]}",
                tenant=tenant,
                session_id=went[0],
                who=by.who,
                times=len(went),
                words={"why": by.why, "trash_id": trash_id},
            )
            for trash_id, tenant, went in trashings
        ]
        yield from append(now, witness.seals, acts)


def kept(now: Micros, trash_ids: list[str], claim: str) -> Steps[None]:
    """Note that trashings are complete."""
    yield Statement(
        "UPDATE trashings SET step = 'kept', claim = '', claimed_until = 0 WHERE id = ? AND claim = ?",
        [(trash_id, claim) for trash_id in trash_ids],
        many=True,
    )


def renew(now: Micros, trash_id: str, claim: str) -> Steps[None]:
    """Keep a claim for another while."""
    yield Statement("UPDATE trashings SET claimed_until = ? WHERE id = ? AND claim = ?", (now + CLAIM, trash_id, claim))


def let_go(now: Micros, trash_id: str, claim: str) -> Steps[None]:
    """Give a claim back without having come to the end: whoever comes next goes on."""
    yield Statement("UPDATE trashings SET claim = '', claimed_until = 0 WHERE id = ? AND claim = ?", (trash_id, claim))


def unfinished(now: Micros, after: str, limit: int) -> Steps[list[tuple[Trashing, bool]]]:
    """Return trashings that are being worked on, by id, each with whether its claim has run out."""
    rows = yield Statement(
        f"SELECT {TRASHING} FROM trashings WHERE step IN ('moving', 'restoring', 'purging') AND id > ? "
        "ORDER BY id LIMIT ?",
        (after, limit),
    )
    return [(found, found.claimed_until <= now) for found in (Trashing(*row) for row in rows)]


def of_session(now: Micros, session_id: str) -> Steps[tuple[Trashing, bool] | None]:
    """Return the trashing that a session is in, and whether the claim on it has run out; None outside the trash."""
    rows = yield Statement(
        f"SELECT {TRASHING} FROM trashings WHERE id = (SELECT trash_id FROM sessions WHERE id = ?)", (session_id,)
    )
    return (found := Trashing(*rows[0]), found.claimed_until <= now) if rows else None


def take_over(now: Micros, found: Trashing, claim: str) -> Steps[Trashing | None]:
    """Take a trashing from a call that is dead; None when somebody else was faster."""
    rows = yield Statement(
        "UPDATE trashings SET claim = ?, claimed_until = ? WHERE id = ? AND claim = ? AND step = ? "
        f"RETURNING {TRASHING}",
        (claim, now + CLAIM, found.id, found.claim, found.step),
    )
    return Trashing(*rows[0]) if rows else None


def members(now: Micros, trash_id: str, limit: int, *, marked: bool = False) -> Steps[list[str]]:
    """Return sessions of a trashing: all, parents first, or those marked for the purge, the lowest first."""
    where, order = ("AND h.trashed = 2", "DESC") if marked else ("", "ASC")
    rows = yield Statement(
        "SELECT s.id FROM sessions s JOIN heads h ON h.session_id = s.id "
        f"WHERE s.trash_id = ? {where} ORDER BY s.depth {order}, s.id LIMIT ?",
        (trash_id, limit),
    )
    return [row[0] for row in rows]


# What is being purged does not come back; what is on its way back can be purged.
_BARS = {Step.RESTORING: Step.PURGING, Step.PURGING: ""}


def _claimed(now: Micros, session_id: str, step: Step, claim: str, by: By) -> Steps[Trashing]:
    """Claim the trashing that a session is in, for a step."""
    rows = yield Statement("SELECT trash_id, trashed_at FROM sessions WHERE id = ?", (session_id,))
    if not rows:
        raise SessionNotFoundError(f"there is no session {session_id}", field="session_id", session_id=session_id)
    if not rows[0][1]:
        raise ConflictError(
            f"session {session_id} is not in the trash", field="session_id", remedy="there is nothing to do"
        )
    taken = yield Statement(
        "UPDATE trashings SET step = ?, step_why = ?, step_who = ?, claim = ?, claimed_until = ? WHERE id = ? "
        f"AND (step = 'kept' OR claim = '' OR claim = ?) AND step <> ? RETURNING {TRASHING}",
        (step, by.why, by.who, claim, now + CLAIM, rows[0][0], claim, _BARS[step]),
    )
    if not taken:
        raise ConflictError(
            f"session {session_id} is being trashed, restored or purged by another call",
            field="session_id",
            remedy="try again in a moment; what is being purged does not come back",
            trash_id=rows[0][0],
        )
    return Trashing(*taken[0])


class Restoring(msgspec.Struct, frozen=True):
    """A trashing that is on its way back, and which of it come back without their key."""

    trashing: Trashing
    keyless: list[str]


def begin_restore(
    now: Micros, session_id: str, claim: str, by: By, *, without_keys: bool, as_root: bool
) -> Steps[Restoring]:
    """Claim the trashing of a session for its way back; its keys are taken here, its place is looked at.

    Raises:
        SessionNotFoundError: There is none of that id.
        ConflictError: It is not in the trash, is being worked on, or has no parent to come back to.
        AlreadyExistsError: A key belongs to another session now.
    """
    trashing = yield from _claimed(now, session_id, Step.RESTORING, claim, by)
    [[marked]] = yield Statement(
        "SELECT COUNT(*) FROM sessions s JOIN heads h ON h.session_id = s.id WHERE s.trash_id = ? AND h.trashed = 2",
        (trashing.id,),
    )
    if marked:
        raise ConflictError(
            f"a purge of sessions that went with {session_id} was interrupted", remedy="purge them to its end"
        )
    if as_root:
        yield Statement(
            "UPDATE sessions SET parent_id = '' WHERE trash_id = ? AND (id = ? OR NOT EXISTS "
            "(SELECT 1 FROM sessions p WHERE p.id = sessions.parent_id))",
            (trashing.id, trashing.session_id),
        )
    [[parent_id]] = yield Statement("SELECT parent_id FROM sessions WHERE id = ?", (trashing.session_id,))
    yield from _parent(trashing.session_id, parent_id, 0)
    taken = yield from _take_keys(trashing.id)
    if taken and not without_keys:
        lost, key, holder = taken[0]
        raise AlreadyExistsError(
            f"key {key!r} of session {lost} belongs to session {holder} now",
            field="key",
            remedy="trash that session first, or restore with without_keys=True",
            session_id=holder,
        )
    yield Statement("UPDATE sessions SET key = NULL WHERE id = ?", [(row[0],) for row in taken], many=True)
    return Restoring(trashing, [row[0] for row in taken])


def _take_keys(trash_id: str) -> Steps[Rows]:
    """Take the keys of a trashing that are free; return session, key and present holder of those that are not."""
    yield Statement(
        "INSERT INTO session_keys (tenant, app, user_id, key, session_id) SELECT tenant, app, user_id, key, id "
        "FROM sessions WHERE trash_id = ? AND key IS NOT NULL ON CONFLICT (tenant, app, user_id, key) DO NOTHING",
        (trash_id,),
    )
    return (
        yield Statement(
            "SELECT s.id, s.key, k.session_id FROM sessions s JOIN session_keys k ON k.tenant = s.tenant "
            "AND k.app = s.app AND k.user_id = s.user_id AND k.key = s.key "
            "WHERE s.trash_id = ? AND s.key IS NOT NULL AND k.session_id <> s.id ORDER BY s.id",
            (trash_id,),
        )
    )


def _parent(session_id: str, parent_id: str, children: int) -> Steps[tuple[str, int]]:
    """Lock the parent that a session comes back to and count the child; return root and depth of the place below it."""
    if not parent_id:
        return session_id, 0
    rows = yield Statement(
        "UPDATE heads SET child_count = child_count + ? WHERE session_id = ? AND trashed = 0 RETURNING child_count",
        (children, parent_id),
    )
    if not rows:
        if (yield Statement("SELECT 1 FROM sessions WHERE id = ?", (parent_id,))):
            raise _parentless(session_id, parent_id, "in the trash", "restore that one first, or ")
        raise _parentless(session_id, parent_id, "gone", "")
    if rows[0][0] > limits.CHILDREN:
        raise InvalidError(
            f"session {parent_id} has {limits.CHILDREN} children",
            field="parent_id",
            limit=limits.CHILDREN,
            remedy="restore with as_root=True",
        )
    [[root_id, depth]] = yield Statement("SELECT root_id, depth FROM sessions WHERE id = ?", (parent_id,))
    return root_id, depth + 1


def _parentless(session_id: str, parent_id: str, where: str, remedy: str) -> ConflictError:
    return ConflictError(
        f"the parent {parent_id} of session {session_id} is {where}",
        field="parent_id",
        remedy=f"{remedy}restore with as_root=True",
        session_id=parent_id,
    )


def bring_back(
    now: Micros, trashing: Trashing, claim: str, limit: int, by: By, witness: Witness | None = None
) -> Steps[list[str]]:
    """Make sessions of a trashing active again, at most `limit` of them, parents first; none when all are back.

    Coming back is activity. One that is past its end gets `limits.RESTORED_S` to be given another.
    """
    held = yield Statement(
        "UPDATE trashings SET claimed_until = ? WHERE id = ? AND claim = ? AND step = 'restoring' RETURNING id",
        (now + CLAIM, trashing.id, claim),
    )
    if not held:
        raise ConflictError(f"another call took trashing {trashing.id} over", remedy="look at the session again")
    rows = yield Statement(
        "SELECT id, parent_id, pinned, ttl, ends_at FROM sessions WHERE trash_id = ? ORDER BY depth, id LIMIT ?",
        (trashing.id, limit),
    )
    if not rows:
        yield Statement("DELETE FROM trashings WHERE id = ?", (trashing.id,))
        return []
    places = yield from _places(trashing, rows)
    yield Statement(
        "UPDATE sessions SET trash_id = '', trashed_at = 0, root_id = ?, depth = ?, ends_at = ?, "
        "version = version + 1 WHERE id = ?",
        [(*places[row[0]], _ends(now, row), row[0]) for row in rows],
        many=True,
    )
    yield Statement(
        "UPDATE heads SET trashed = 0, last_activity = ?, ends_at = ?, due_at = ? WHERE session_id = ?",
        [_back(now, row) for row in rows],
        many=True,
    )
    yield deeds(now, [(row[0], trashing.id, trashing.tenant, None) for row in rows], "restored", by)
    yield from record(
        now,
        witness,
        "session.restored",
        f"session:{trashing.session_id}",
        tenant=trashing.tenant,
        session_id=trashing.session_id,
        times=len(rows),
        trash_id=trashing.id,
    )
    return [row[0] for row in rows]


def _places(trashing: Trashing, rows: Rows) -> Steps[dict[str, tuple[str, int]]]:
    """Return root and depth of each session: its parent may have another place than when it went."""
    places: dict[str, tuple[str, int]] = {}
    for session_id, parent_id, *_ in rows:
        if session_id == trashing.session_id or not parent_id:
            places[session_id] = yield from _parent(session_id, parent_id, 1)
            continue
        if parent_id not in places:
            found = yield Statement("SELECT root_id, depth FROM sessions WHERE id = ? AND trashed_at = 0", (parent_id,))
            if not found:
                raise _parentless(session_id, parent_id, "in the trash or gone", "")
            places[parent_id] = found[0]
        root_id, depth = places[parent_id]
        places[session_id] = (root_id, depth + 1)
    return places


def _ends(now: Micros, row: Row) -> Micros:
    ends = row[4]
    return now + limits.RESTORED_S * SECOND if ends and ends <= now else ends


def _back(now: Micros, row: Row) -> tuple[Value, ...]:
    session_id, _, pinned, ttl, _ = row
    ends = NEVER if pinned else _ends(now, row) or NEVER
    return now, ends, int(not pinned and (ttl > 0 or ends != NEVER)), session_id


def stay(now: Micros, trash_id: str, claim: str) -> Steps[None]:
    """Leave a trashing in the trash that was on its way back: its keys are free again, its folders are to follow."""
    yield Statement(
        "DELETE FROM session_keys WHERE session_id IN (SELECT id FROM sessions WHERE trash_id = ?)", (trash_id,)
    )
    yield Statement("UPDATE trashings SET step = 'moving' WHERE id = ? AND claim = ?", (trash_id, claim))


def begin_purge(now: Micros, session_id: str, claim: str, by: By) -> Steps[Trashing]:
    """Claim the trashing of a session for the purge of that session and what is below it; they never come back."""
    trashing = yield from _claimed(now, session_id, Step.PURGING, claim, by)
    marked = yield Statement(
        "UPDATE heads SET trashed = 2 WHERE session_id = ? AND trashed = 1 RETURNING session_id", (session_id,)
    )
    if marked:
        # One that went with its parent still counts as its child.
        yield Statement(
            "UPDATE heads SET child_count = child_count - 1 WHERE session_id IN (SELECT p.id FROM sessions p "
            "JOIN sessions s ON s.parent_id = p.id AND s.trash_id = p.trash_id WHERE s.id = ?)",
            (session_id,),
        )
    return trashing


def begin_expiry(now: Micros, trash_id: str, claim: str, by: By) -> Steps[Trashing | None]:
    """Claim a trashing for its purge as a whole; None when it is not there any more, or is being worked on."""
    rows = yield Statement(
        "UPDATE trashings SET step = 'purging', step_why = ?, step_who = ?, claim = ?, claimed_until = ? "
        f"WHERE id = ? AND step = 'kept' RETURNING {TRASHING}",
        (by.why, by.who, claim, now + CLAIM, trash_id),
    )
    if not rows:
        return None
    yield Statement(
        "UPDATE heads SET trashed = 2 WHERE session_id = ? AND trashed = 1 "
        "AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = heads.session_id AND s.trash_id = ?)",
        (rows[0][2], trash_id),
    )
    return Trashing(*rows[0])


def mark_below(now: Micros, trash_id: str, limit: int) -> Steps[int]:
    """Mark children of what is marked for the purge, at most `limit` of them; return how many. 0 is the end of it."""
    rows = yield Statement(
        "UPDATE heads SET trashed = 2 WHERE trashed = 1 AND session_id IN (SELECT c.id FROM sessions c "
        "JOIN heads p ON p.session_id = c.parent_id JOIN heads h ON h.session_id = c.id "
        "WHERE c.trash_id = ? AND p.trashed = 2 AND h.trashed = 1 LIMIT ?) RETURNING session_id",
        (trash_id, limit),
    )
    return len(rows)


def end_purge(now: Micros, trash_id: str, claim: str) -> Steps[None]:
    """Forget a trashing of which nothing is left; one with other members waits on."""
    left = yield Statement("SELECT COUNT(*) FROM sessions WHERE trash_id = ?", (trash_id,))
    if left[0][0]:
        yield Statement("UPDATE trashings SET sessions = ? WHERE id = ?", (left[0][0], trash_id))
        yield from kept(now, [trash_id], claim)
    else:
        yield Statement("DELETE FROM trashings WHERE id = ?", (trash_id,))
