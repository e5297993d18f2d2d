"""Denials in memory: whatever happens to them, none is lost or counted twice, and there are never too many."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from alcove import limits
from alcove.audit.denials import Denials, Denied
from alcove.testing.clock import FrozenClock

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 12), st.integers(0, 5)),
        st.tuples(st.just("take"), st.integers(1, 6), st.booleans()),
        st.tuples(st.just("fail"), st.integers(1, 6), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([1, 59, 60, 200]), st.just(0)),
    ),
    max_size=80,
)


@given(STEPS)
def test_every_denial_is_written_once_whatever_fails_meanwhile(steps: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "AUDIT_DISTINCT", 9)
        patch.setattr(limits, "AUDIT_DISTINCT_OF_SUBJECT", 3)
        clock = FrozenClock()
        denials = Denials(clock.now, clock.monotonic)
        added = written = 0
        for what, first, second in steps:
            if what == "add":
                denials.add(Denied("check.denied", "unknown_id", f"run:{second}", words=(("name", str(first)),)))
                added += 1
            elif what == "wait":
                clock.move(first)
            else:
                taken = denials.take(first, everything=bool(second))
                assert len(taken) <= first
                for _, act in taken:
                    assert act.times > 0
                    assert act.first_us <= act.last_us <= clock.now()
                if what == "fail":
                    denials.put_back(taken)
                else:
                    written += sum(act.times for _, act in taken)
            # One more for what is no longer told apart: of each subject, and of all.
            assert denials.waiting <= limits.AUDIT_DISTINCT + 7
        while taken := denials.take(5, everything=True):
            written += sum(act.times for _, act in taken)
        assert written == added
        assert denials.waiting == 0
        assert denials.next_s() is None


def test_what_was_repeated_is_taken_however_many_were_not() -> None:
    clock = FrozenClock()
    denials = Denials(clock.now, clock.monotonic)
    kinds = [Denied("check.denied", "revoked", f"run:{number}") for number in range(9)]
    for denied in kinds:
        denials.add(denied)
    assert len(denials.take(9)) == 9
    denials.add(kinds[-1])
    assert [act.times for _, act in denials.take(5, everything=True)] == [1]
    assert denials.take(5, everything=True) == []
    assert denials.next_s() is None


def test_what_repeats_waits_for_the_end_of_its_window() -> None:
    clock = FrozenClock()
    denials = Denials(clock.now, clock.monotonic)
    denied = Denied("check.denied", "revoked", "run:r")
    assert denials.add(denied), "the first wakes whoever writes"
    assert not denials.add(denied)
    [(_, first)] = denials.take(10)
    assert first.times == 2
    begun = clock.now()
    assert not denials.add(denied)
    clock.move(30)
    assert not denials.add(denied)
    assert denials.take(10) == []
    clock.move(30)
    [(_, rest)] = denials.take(10)
    assert (rest.times, rest.first_us, rest.last_us) == (2, begun, begun + 30_000_000)
