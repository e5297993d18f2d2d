"""The transactions of the janitor."""

from __future__ import annotations

from collections.abc import Sequence

from alcove import limits
from alcove.audit.model import Witness
from alcove.clock import SECOND, Micros
from alcove.database.op import Rows, Statement, Steps, Value
from alcove.errors import ConflictError
from alcove.janitor.model import Candidate, Choice, Span, What
from alcove.lifecycle.model import By, Trashing
from alcove.lifecycle.queries import purge_run
from alcove.lifecycle.trashing import TRASHING, recorded

COLUMNS = (
    "s.id, s.tenant, s.parent_id, s.root_id, s.depth, s.pinned, h.child_count, h.last_activity, h.idle_limit, "
    "h.ends_at, h.due_at, h.last_seq, CASE WHEN h.lease_until <= ? AND NOT EXISTS "
    "(SELECT 1 FROM runs r WHERE r.session_id = s.id AND r.ended_at = 0) THEN 1 ELSE 0 END"
)
_FROM = "FROM heads h JOIN sessions s ON s.id = h.session_id"
# Where two values say from where on, and one is `now` or the age.
_WHERE = {
    # The index holds them by when they are to be looked at. One that is held was active, whatever its clock says.
    # From where on comes first: of two lower bounds SQLite seeks by the first, and many may be due at one time.
    What.EXPIRED: "(h.due_at, h.session_id) > (?, ?) AND h.due_at <= ? AND h.due_at > 0",
    What.OLD: "h.last_activity < ? AND h.session_id > ? AND h.session_id > ? AND h.trashed = 0",
    # A child in the trash counts: what is empty only since this sweep began is the next one's.
    What.EMPTY: "h.last_activity < ? AND h.session_id > ? AND h.session_id > ? AND h.trashed = 0 AND h.last_seq = 0 "
    "AND s.pinned = 0 AND NOT EXISTS (SELECT 1 FROM sessions c WHERE c.parent_id = s.id) "
    "AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.session_id = s.id) "
    "AND NOT EXISTS (SELECT 1 FROM workspaces w WHERE w.session_id = s.id AND w.files > 0)",
}


def candidates(
    now: Micros, choice: Choice, after: Candidate | None, limit: int
) -> Steps[tuple[Micros, list[Candidate]]]:
    """Return `now` and the next sessions that a choice may concern: by when they are due, or by id."""
    begin: tuple[Value, ...]
    if choice.what is What.EXPIRED:
        order, begin = "h.due_at, h.session_id", (after.due_at if after else 0, after.id if after else "", now)
    else:
        order, begin = "h.session_id", (now - choice.older_us, after.id if after else "", "")
    where = _WHERE[choice.what]
    if choice.tenant is not None:
        where, begin = f"{where} AND s.tenant || '' = ?", (*begin, choice.tenant)
    rows = yield Statement(f"SELECT {COLUMNS} {_FROM} WHERE {where} ORDER BY {order} LIMIT ?", (now, *begin, limit))
    return now, [Candidate(*row) for row in rows]


def tree(now: Micros, root_id: str) -> Steps[list[Candidate]]:
    """Return every session of a tree outside the trash."""
    rows = yield Statement(f"SELECT {COLUMNS} {_FROM} WHERE s.root_id = ? AND s.trashed_at = 0", (now, root_id))
    return [Candidate(*row) for row in rows]


def take(
    now: Micros,
    going: Sequence[tuple[str, list[Candidate]]],
    by: By,
    claim: str,
    witness: Witness | None = None,
) -> Steps[list[str]]:
    """Move groups to the trash, each under its trash id, as long as nothing has happened in them since they were found.

    Their folders are still to follow.

    Returns:
        The trash ids of those that went. One that is a single session and is not as it was found stays.

    Raises:
        ConflictError: One of several sessions is not as it was found: nothing took effect.
    """
    went: list[tuple[str, list[Candidate]]] = []
    for trash_id, members in going:
        for one in members:
            inside = sum(child.parent_id == one.id for child in members) if len(members) > 1 else 0
            if (yield _taken(now, one, inside)):
                continue
            if len(members) > 1:
                raise ConflictError(f"session {one.id} is in use again", session_id=one.id)
            break
        else:
            went.append((trash_id, members))
    yield Statement(
        "UPDATE sessions SET trash_id = ?, trashed_at = ? WHERE id = ?",
        [(trash_id, now, one.id) for trash_id, members in went for one in members],
        many=True,
    )
    yield Statement(
        "UPDATE heads SET child_count = child_count - 1 WHERE session_id = ?",
        [(members[0].parent_id,) for _, members in went if members[0].parent_id],
        many=True,
    )
    gone = [(one.id,) for _, members in went for one in members]
    yield Statement("DELETE FROM session_keys WHERE session_id = ?", gone, many=True)
    if went:
        groups = [(trash_id, members[0].tenant, [one.id for one in members]) for trash_id, members in went]
        yield from recorded(now, groups, by, claim, witness)
    return [trash_id for trash_id, _ in went]


def _taken(now: Micros, one: Candidate, children: int) -> Statement:
    return Statement(
        "UPDATE heads SET trashed = 1, due_at = 0 WHERE session_id = ? AND trashed = 0 AND lease_until <= ? "
        "AND last_activity = ? AND idle_limit = ? AND ends_at = ? AND last_seq = ? AND child_count = ? "
        "AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.session_id = heads.session_id AND r.ended_at = 0) "
        "AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = heads.session_id AND s.pinned = 0) RETURNING session_id",
        (one.id, now, one.last_activity, one.idle_limit, one.ends_at, one.last_seq, children),
    )


def postpone(now: Micros, later: Sequence[tuple[str, Micros, Micros]]) -> Steps[None]:
    """Look at sessions again later: each by id, when it was due and when it will be, unless that was changed since."""
    yield Statement(
        "UPDATE heads SET due_at = ? WHERE session_id = ? AND due_at = ?",
        [(due, session_id, was) for session_id, was, due in later],
        many=True,
    )


def waiting(
    now: Micros, tenant: str | None, after: tuple[Micros, str], limit: int
) -> Steps[tuple[Micros, list[Trashing]]]:
    """Return `now` and what waits in the trash, oldest first."""
    where, values = ("AND tenant || '' = ? ", (tenant,)) if tenant is not None else ("", ())
    rows = yield Statement(
        f"SELECT {TRASHING} FROM trashings WHERE step = 'kept' AND (trashed_at, id) > (?, ?) "
        f"{where}ORDER BY trashed_at, id LIMIT ?",
        (*after, *values, limit),
    )
    return now, [Trashing(*row) for row in rows]


def past(now: Micros, ago: Micros) -> Steps[Micros]:
    """Return the instant so long ago."""
    yield Statement("SELECT 1")
    return now - ago


_SAID = "FROM runs WHERE whole = 1 AND ended_at > 0 AND ended_at >= ? AND ended_at < ?"


def forget_journals(now: Micros, span: Span, limit: int) -> Steps[tuple[int, bool]]:
    """Forget what runs said that ended in a time, but for their last event; at most `limit` events.

    Returns:
        Of how many runs the rest was forgotten, and whether there is more.
    """
    done = 0
    while limit > 0:
        runs = yield Statement(f"SELECT id {_SAID} ORDER BY ended_at, id LIMIT 1", span)
        if not runs:
            return done, False
        [(run_id,)] = runs
        gone = yield Statement(
            "DELETE FROM events WHERE run_id = ? AND n IN (SELECT n FROM events WHERE run_id = ? AND n < "
            "(SELECT MAX(n) FROM events WHERE run_id = ?) ORDER BY n LIMIT ?) RETURNING n",
            (run_id, run_id, run_id, limit),
        )
        if len(gone) < limit:
            yield Statement("UPDATE runs SET whole = 0 WHERE id = ?", (run_id,))
            done += 1
        limit -= len(gone) + 1
    return done, True


def old_journals(now: Micros, span: Span) -> Steps[int]:
    """Return how many runs have a whole journal and ended in a time."""
    [[count]] = yield Statement(f"SELECT COUNT(*) {_SAID}", span)
    return int(count)


# The index holds them by when they were made. One whose clock was set back before it ended waits a little longer.
_OLD_RUNS = (
    "FROM runs r WHERE r.session_id = '' AND r.created_at < ? AND r.ended_at > 0 AND r.ended_at >= ? "
    "AND r.ended_at < ? "
    "AND NOT EXISTS (SELECT 1 FROM runs o WHERE o.root_run = r.root_run AND (o.ended_at = 0 OR o.ended_at >= ?))"
)


def old_runs(now: Micros, span: Span) -> Steps[int]:
    """Return how many runs without a session ended in a time, and nothing of their tree after it."""
    [[count]] = yield Statement(f"SELECT COUNT(*) {_OLD_RUNS}", (span.end, *span, span.end))
    return int(count)


def forget_runs(now: Micros, span: Span, limit: int) -> Steps[tuple[int, bool]]:
    """Remove one of the runs that `old_runs` counts, with its grant and what is left of its journal; bounded.

    Returns:
        How many went, and whether there is more.
    """
    rows = yield Statement(f"SELECT r.id {_OLD_RUNS} ORDER BY r.created_at, r.id LIMIT 1", (span.end, *span, span.end))
    if not rows:
        return 0, False
    gone = yield from purge_run(now, rows[0][0], limit)
    return gone.runs, True


def look(now: Micros, place: str, steady: Micros) -> Steps[Micros]:
    """Look at the clock of a machine: when it has jumped since the last look, note by how much; return that, 0 for not.

    Args:
        now: What it shows.
        place: Names the machine since its start.
        steady: What a clock shows there that never jumps.
    """
    rows = yield Statement(
        "INSERT INTO clocks (place, wall, steady) VALUES (?, ?, ?) "
        "ON CONFLICT (place) DO UPDATE SET wall = clocks.wall RETURNING wall, steady",
        (place, now, steady),
    )
    [(wall, then)] = rows
    passed = steady - then
    if passed < 0:
        return 0  # another process looked in between
    expected = wall + passed
    jump = now - expected
    if abs(jump) < limits.JUMP_S * SECOND:
        # Small steps add up to what the machine's time was set right by: they are no jump.
        yield Statement("UPDATE clocks SET wall = ?, steady = ? WHERE place = ?", (now, steady, place))
        return 0
    yield Statement(
        "INSERT INTO jumps (place, number, before_at, after_at, jump) "
        "SELECT ?, COALESCE(MAX(number), 0) + 1, ?, ?, ? FROM jumps WHERE place = ?",
        (place, expected, now - passed, jump, place),
    )
    yield Statement("UPDATE clocks SET wall = ?, steady = ? WHERE place = ?", (now, steady, place))
    return jump


def jumps(now: Micros) -> Steps[dict[str, Rows]]:
    """Return how clocks have jumped, by machine: the last instant before, the first one after, and by how much."""
    rows = yield Statement("SELECT place, before_at, after_at, jump FROM jumps ORDER BY place, number")
    found: dict[str, Rows] = {}
    for place, *jump in rows:
        found.setdefault(place, []).append(tuple(jump))
    return found


def known(now: Micros, names: Sequence[str]) -> Steps[set[str]]:
    """Return which names are of sessions, in the trash or outside it, or of trashings; at most `limits.KNOWN` names."""
    marks = ", ".join("?" * limits.KNOWN)
    padded = [*names, *[""] * (limits.KNOWN - len(names))]
    rows = yield Statement(
        f"SELECT id FROM sessions WHERE id IN ({marks}) UNION SELECT id FROM trashings WHERE id IN ({marks})",
        (*padded, *padded),
    )
    return {row[0] for row in rows}


def furnished(now: Micros, after: str, limit: int) -> Steps[list[str]]:
    """Return sessions outside the trash that were given a folder, by id."""
    rows = yield Statement(
        "SELECT w.session_id FROM workspaces w JOIN heads h ON h.session_id = w.session_id "
        "WHERE w.session_id > ? AND h.trashed = 0 ORDER BY w.session_id LIMIT ?",
        (after, limit),
    )
    return [row[0] for row in rows]
