"""Values of secrets in output, whole, cut anywhere, side by side and inside each other."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings, strategies as st

from alcove.agents.redaction import Redaction, Redactor

KEY, TOKEN = "sk-abcabcabd", "中文-schlüssel"
REDACTOR = Redactor({KEY: "KEY", TOKEN: "TOKEN"})


def passed(redactor: Redactor, data: bytes, cuts: list[int]) -> bytes:
    redaction = Redaction(redactor)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return b"".join(redaction.feed(data[a:b]) for a, b in pairwise(places)) + redaction.end()


@pytest.mark.parametrize("value", [KEY, TOKEN])
def test_a_value_is_found_wherever_it_is_cut(value: str) -> None:
    data = f"a {value}{value}, sk-abc {value}".encode()
    mark = f"[secret {'KEY' if value == KEY else 'TOKEN'}]"
    for first in range(len(data) + 1):
        for second in (first, first + 1, len(data)):
            assert passed(REDACTOR, data, [first, second]).decode() == f"a {mark}{mark}, sk-abc {mark}"
    assert passed(REDACTOR, data, list(range(len(data)))).decode() == f"a {mark}{mark}, sk-abc {mark}"


def test_without_secrets_the_same_output_has_them() -> None:
    """The negative control: what the tests feed holds the value, and nothing else takes it out."""
    data = f"a {KEY}".encode()
    assert passed(Redactor({}), data, [4]) == data


def test_only_what_may_be_the_beginning_of_a_value_waits() -> None:
    redaction = Redaction(REDACTOR)
    assert redaction.feed(b"name? ") == b"name? "
    assert redaction.feed(b"x sk-abc") == b"x "
    assert redaction.feed(b"abcabd.") == b"[secret KEY]."
    assert redaction.feed(b"sk-ab") == b""
    assert redaction.feed(b"out") == b"sk-about"
    assert (redaction.feed(b"sk-"), redaction.end()) == (b"", b"sk-")


def test_a_value_inside_of_another_gives_nothing_of_that_away() -> None:
    redactor = Redactor({"abcdefgh": "SHORT", "abcdefghijkl": "LONG", "ghijklmnop": "NEXT"})
    for cut in range(20):
        assert passed(redactor, b"<abcdefghijkl>", [cut]) in {b"<[secret LONG]>", b"<[secret SHORT]>"}
        assert passed(redactor, b"<abcdefghijklmnop>", [cut]) in {b"<[secret LONG]>", b"<[secret SHORT]>"}
        assert passed(redactor, b"<abcdefghij>", [cut]) == b"<[secret SHORT]ij>"


def test_text_keeps_what_is_no_valid_unicode() -> None:
    assert REDACTOR.text(f"\ud800{TOKEN}\x00") == "\ud800[secret TOKEN]\x00"


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from([b"aaaaaaaa", b"aaaabaaa", b"a", b"b", b"aab", b"\xff", b"xyz"])).map(b"".join),
    st.lists(st.integers(0, 200), max_size=12),
)
@example(b"a" * 40, [3, 9, 17])
def test_no_value_gets_through_and_nothing_else_is_lost(data: bytes, cuts: list[int]) -> None:
    redactor = Redactor({"aaaaaaaa": "A", "aaaabaaa": "B"})
    whole = passed(redactor, data, [])
    cut = passed(redactor, data, cuts)
    for value in (b"aaaaaaaa", b"aaaabaaa"):
        assert value not in cut
    # The marks of values that overlap may differ with the cuts; what is outside of all of them does not.
    assert cut.replace(b"[secret B]", b"[secret A]") == whole.replace(b"[secret B]", b"[secret A]")
    if b"[" not in whole:
        assert whole == data
