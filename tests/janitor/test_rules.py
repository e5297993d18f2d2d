"""Who goes and who stays: trees and clocks of any kind."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from alcove.janitor import rules
from alcove.janitor.model import Candidate, Choice, What
from alcove.sessions.heads import NEVER

YEAR = 365 * 86400 * 1_000_000


def one(name: str, parent: str = "", **facts: int) -> Candidate:
    values = {"last_activity": 0, "idle_limit": 0, "ends_at": NEVER, "due_at": 0, "pinned": 0, "free": 1, **facts}
    return Candidate(
        id=name, tenant="default", parent_id=parent, root_id="r", depth=0, child_count=0, last_seq=0, **values
    )


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=30), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_what_goes_together_is_whole_subtrees_and_all_that_can(shape: list[tuple[int, bool]], limit: int) -> None:
    tree = [one(f"{at}", f"{above % at}" if at else "") for at, (above, _) in enumerate(shape)]
    leaving = {f"{at}" for at, (_, goes) in enumerate(shape) if goes}
    below: dict[str, list[str]] = {member.id: [] for member in tree}
    for member in tree:
        if member.parent_id:
            below[member.parent_id].append(member.id)

    def all_leave(name: str) -> bool:
        return name in leaving and all(all_leave(child) for child in below[name])

    found = rules.groups(tree, lambda member: member.id in leaving, limit)
    went = [member.id for group in found for member in group]
    assert len(went) == len(set(went))
    assert set(went) == {member.id for member in tree if all_leave(member.id)}
    gone: set[str] = set()
    for group in found:
        names = {member.id for member in group}
        assert len(names) <= max(limit, 1)
        for at, member in enumerate(group):
            # Parents first, and nobody stays below.
            assert at == 0 or member.parent_id in {before.id for before in group[:at]}
            assert set(below[member.id]) <= names | gone
        gone |= names


def test_a_clock_that_never_jumped_delays_nothing() -> None:
    assert rules.delay(5, [rules.periods([])]) == 0
    assert rules.delay(5, []) == 0


def test_a_jump_forward_delays_what_was_before_it() -> None:
    clocks = [rules.periods([(100, 100 + YEAR, YEAR)])]
    assert rules.delay(50, clocks) == YEAR
    assert rules.delay(101 + YEAR, clocks) == 0


def test_forth_and_back_is_as_if_nothing_had_been() -> None:
    clocks = [rules.periods([(100, 100 + YEAR, YEAR), (200 + YEAR, 200, -YEAR)])]
    assert rules.delay(50, clocks) == 0
    assert rules.delay(300, clocks) == 0
    assert rules.delay(150 + YEAR, clocks) == 0, "what seems to be in the future stays until it is over"


def test_back_and_forth_keeps_what_was_used_under_the_wrong_clock() -> None:
    clocks = [rules.periods([(YEAR + 100, 100, -YEAR), (200, YEAR + 200, YEAR)])]
    assert rules.delay(YEAR + 50, clocks) == 0
    assert rules.delay(150, clocks) == YEAR
    assert rules.delay(YEAR + 300, clocks) == 0


def test_of_several_machines_the_one_that_jumped_most_counts() -> None:
    clocks = [rules.periods([(100, 100 + YEAR, YEAR)]), rules.periods([(100, 101 + 2 * YEAR, 2 * YEAR)])]
    assert rules.delay(50, clocks) == 2 * YEAR


def test_an_end_and_an_idle_time_are_both_kept() -> None:
    choice = Choice(what=What.EXPIRED)
    assert rules.due(one("a", idle_limit=10, last_activity=5), choice, []) == 15
    assert rules.due(one("a", idle_limit=10, last_activity=5, ends_at=12), choice, []) == 12
    assert rules.due(one("a"), choice, []) == NEVER
    assert rules.due(one("a", ends_at=12, pinned=1), choice, []) == NEVER
    assert not rules.goes(one("a", ends_at=12, free=0), choice, 20, [])
