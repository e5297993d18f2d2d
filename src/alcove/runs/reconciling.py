"""What the database says of things that a dead server may have left: which runs have ended, whose uids are free."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Statement, Steps, Value

_OURS = "hosted = 0 AND rung <> 'in-process'"  # what Alcove started as a program of its own, or was about to


class Ended(msgspec.Struct, frozen=True):
    """Of what was asked, the runs that have ended, and the uids of sessions in which nothing runs."""

    runs: frozenset[str]
    uids: frozenset[int]


def live(now: Micros) -> Steps[list[str]]:
    """Return the ids of all runs that Alcove executes and that have not ended."""
    rows = yield Statement("SELECT id FROM runs WHERE ended_at = 0 AND hosted = 0")
    return [row[0] for row in rows]


def ended(now: Micros, run_ids: Sequence[str], uids: Sequence[int]) -> Steps[Ended]:
    """Return which of these runs have ended, and which of these uids belong to a session in which nothing runs."""
    runs: set[str] = set()
    for some in _chunks(run_ids):
        rows = yield Statement(f"SELECT id FROM runs WHERE {_OURS} AND ended_at > 0 AND id IN ({_marks(some)})", some)
        runs |= {row[0] for row in rows}
    free: set[int] = set()
    for some in _chunks(uids):
        rows = yield Statement(
            f"SELECT u.uid FROM uids u WHERE u.uid IN ({_marks(some)}) AND NOT EXISTS "
            "(SELECT 1 FROM runs r WHERE r.session_id = u.session_id AND r.ended_at = 0 AND r.hosted = 0)",
            some,
        )
        free |= {row[0] for row in rows}
    return Ended(frozenset(runs), frozenset(free))


def ran(now: Micros, session_ids: Sequence[str]) -> Steps[list[str]]:
    """Return those of these sessions in which a program was ever started."""
    found: list[str] = []
    for some in _chunks(session_ids):
        rows = yield Statement(
            f"SELECT s.id FROM sessions s WHERE s.id IN ({_marks(some)}) AND EXISTS "
            f"(SELECT 1 FROM runs WHERE session_id = s.id AND {_OURS})",
            some,
        )
        found += [row[0] for row in rows]
    return found


def runs_of(now: Micros, run_ids: Sequence[str], session_ids: Sequence[str]) -> Steps[set[str]]:
    """Return those of these runs that Alcove executed in one of these sessions."""
    wanted = set(session_ids)
    found: set[str] = set()
    for some in _chunks(run_ids):
        rows = yield Statement(f"SELECT id, session_id FROM runs WHERE {_OURS} AND id IN ({_marks(some)})", some)
        found |= {run_id for run_id, session_id in rows if session_id in wanted}
    return found


def uids(now: Micros) -> Steps[list[int]]:
    """Return every uid that is leased."""
    rows = yield Statement("SELECT uid FROM uids")
    return [row[0] for row in rows]


def uids_of(now: Micros, session_ids: Sequence[str]) -> Steps[list[int]]:
    """Return the uids that are leased to these sessions."""
    found: list[int] = []
    for some in _chunks(session_ids):
        rows = yield Statement(f"SELECT uid FROM uids WHERE session_id IN ({_marks(some)})", some)
        found += [row[0] for row in rows]
    return found


def _marks(some: tuple[Value, ...]) -> str:
    return ", ".join("?" * len(some))


def _chunks(values: Sequence[str] | Sequence[int]) -> list[tuple[Value, ...]]:
    """Return the values in pieces of at most `limits.KNOWN`, each padded to that: one text of a statement for all."""
    pieces = [tuple(values[start : start + limits.KNOWN]) for start in range(0, len(values), limits.KNOWN)]
    return [(*piece, *[piece[-1]] * (limits.KNOWN - len(piece))) for piece in pieces]
