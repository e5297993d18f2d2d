"""Who goes and who stays: plain functions of records and `now`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from alcove.clock import Micros
from alcove.janitor.model import Candidate, Choice, Period, Span, What
from alcove.sessions.heads import NEVER

Periods = Sequence[Sequence[Period]]
"""For each machine that was looked at, the times in which its clock did not jump."""


def periods(jumps: Iterable[tuple[Micros, Micros, Micros]]) -> list[Period]:
    """Return the times between the jumps of one clock, in the order in which they happened.

    Args:
        jumps: Of each the last instant before it, the first one after it, and by how much it jumped.
    """
    known = list(jumps)
    later = sum(jump for _, _, jump in known)
    found: list[Period] = []
    begins = -NEVER
    for before, after, jump in known:
        found.append(Period(begins, before, later))
        begins, later = after, later - jump
    found.append(Period(begins, NEVER, later))
    return found


def delay(at: Micros, clocks: Periods) -> Micros:
    """Return how much of the time since an instant has passed only because a clock jumped.

    Where an instant may have been in several of the periods, the one that makes it the youngest counts: what is kept
    for too long can still be removed.
    """
    most = 0
    for known in clocks:
        if len(known) > 1:
            fitting = [one.later for one in known if one.begins <= at <= one.ends]
            most = max(most, *fitting) if fitting else max(most, *(one.later for one in known))
    return most


def ripe(before: Micros, clocks: Periods) -> list[Span]:
    """Return which instants lie before another one even when what clocks have jumped since is not counted."""
    edges = {-NEVER, NEVER}
    for one in (one for known in clocks for one in known):
        edges |= {one.begins, min(one.ends, NEVER - 1) + 1}  # between two of them the delay is the same
    found: list[Span] = []
    for first, edge in pairwise(sorted(edges)):
        end = min(edge, before - delay(first, clocks))
        if found and found[-1].end == first < end:
            found[-1] = Span(found[-1].first, end)
        elif first < end:
            found.append(Span(first, end))
    return found


def expires(one: Candidate) -> Micros:
    """Return when a session expires; `NEVER` for one that does not."""
    idle = one.last_activity + one.idle_limit if one.idle_limit else NEVER
    return min(idle, one.ends_at)


def due(one: Candidate, choice: Choice, clocks: Periods) -> Micros:
    """Return when a session is to go by a choice, if nothing happens in it and nothing holds it; `NEVER` if never."""
    if one.pinned:
        return NEVER
    at = expires(one) if choice.what is What.EXPIRED else one.last_activity + choice.older_us
    return NEVER if at == NEVER else at + delay(one.last_activity, clocks)


def goes(one: Candidate, choice: Choice, now: Micros, clocks: Periods) -> bool:
    """Return whether a session is to go by itself, its descendants left aside."""
    return bool(one.free) and due(one, choice, clocks) <= now


def groups(tree: Sequence[Candidate], leaving: Callable[[Candidate], bool], limit: int) -> list[list[Candidate]]:
    """Return what goes of a tree: the largest subtrees in which everybody leaves, each with its top first.

    One with more than `limit` sessions goes in several, the lower ones first: each group goes at once or not at all.

    Args:
        tree: Whole trees, outside the trash.
        leaving: Whether a session goes, its descendants left aside.
        limit: Sessions in one group at most; more than any has children that do not leave on their own.
    """
    below: defaultdict[str, list[Candidate]] = defaultdict(list)
    ids = {one.id for one in tree}
    for one in tree:
        below[one.parent_id if one.parent_id in ids else ""].append(one)
    order = list(below[""])
    for one in order:
        order += below[one.id]
    whole: dict[str, list[Candidate]] = {}  # of those with whom all descendants leave: what goes with them, in order
    found: list[list[Candidate]] = []
    for one in reversed(order):
        parts = [whole.get(child.id) for child in below[one.id]]
        if not leaving(one) or None in parts:
            found += [part for part in parts if part]
            continue
        kept = sorted((part for part in parts if part), key=len)
        while 1 + sum(map(len, kept)) > limit and kept:
            found.append(kept.pop())
        whole[one.id] = [one, *(member for part in kept for member in part)]
    found += [whole[top.id] for top in below[""] if top.id in whole]
    return found
