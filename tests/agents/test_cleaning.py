from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given, strategies as st

from alcove import limits
from alcove.agents.cleaning import plain, without
from alcove.patterns import may_explode

PIECES = st.sampled_from(
    [
        "\x1b",
        "[",
        "]",
        "0;",
        "31m",
        "2K",
        "K",
        "G",
        "\x07",
        "\x1b\\",
        "\x9b",
        "\x9d",
        "\x9c",
        "P",
        "(B",
        "\r",
        "\n",
        "\b",
        "\t",
    ]
)
TERMINAL = st.lists(PIECES | st.text(max_size=4)).map("".join)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[38:2::1:2:3mrgb\x1b[?25h", "rgb"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;no end", "0;no end"),
        ("\x1bP1;2q#0\x1b\\text", "text"),
        ("\x1b(Btext\x1b=\x1b>", "text"),
        ("\x9b31mtext\x9d0;t\x9c", "text"),
        ("\x1b\x1b[0m[0m", "[0m"),
        ("text\x1b", "text"),
        ("text\x1b[12", "text12"),
        ("line\r\nline\r\r\n", "line\nline\n"),
        ("10%\r50%\r100%", "100%"),
        ("100%\r5", "500%"),
        ("⠋ Thinking\r          \rdone", "done"),
        ("⠋ Thinking\r\x1b[Kdone", "done"),
        ("⠋ Thinking\r\x1b[2Kdone", "done"),
        ("⠋ Thinking\x1b[2K\x1b[1Gdone", "done"),
        ("kept\x1b[1K", "kept"),
        ("bold\b\b\b\bbold", "bold"),
        ("\b\b\bx", "x"),
        ("a\x00b\x01c\x07d\x7fe\x85f\x0bg", "abcdefg"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("  indented  ", "  indented  "),
    ],
)
def test_plain_is_what_a_terminal_would_show(written: str, read: str) -> None:
    assert plain(written) == read


@given(TERMINAL)
def test_plain_leaves_no_control_character_and_has_nothing_left_to_do(text: str) -> None:
    once = plain(text)
    assert not [c for c in once if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert plain(once) == once


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from("\n\t")))
def test_plain_leaves_plain_text_alone(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    "unit",
    [
        "\x1b",
        "\x1b[",
        "\x1b]",
        "\x1b[0",
        "\x1bP",
        "\x9d",
        "\b",
        "\r",
        "x\r",
        "\x1b[2K",
        "\x1b[2Kx",
        "x\x1b[K",
        "\n",
        "[" * 64,
        "0;1",
    ],
)
@pytest.mark.parametrize("first", ["\x1b[", "x" * 100_000])
def test_plain_takes_linear_time_on_any_repeated_beginning(first: str, unit: str) -> None:
    began = time.thread_time()
    plain(first + unit * (limits.MIB // len(unit)))
    assert time.thread_time() - began < 5


def test_a_line_of_which_nothing_is_left_is_dropped_and_an_empty_one_stays() -> None:
    patterns = [re.compile("^> "), re.compile("^Welcome.*")]
    assert without("Welcome to it\n> one\n\n> \ntwo", patterns) == "one\n\ntwo"


def test_a_long_line_is_not_matched() -> None:
    long = "> " + "x" * limits.PATTERN_LINE_CHARS
    assert without(f"> short\n{long}", [re.compile("^> ")]) == f"short\n{long}"


def test_patterns_stop_when_their_time_is_up() -> None:
    slow = re.compile(r"a.*a.*a.*b$")
    began = time.thread_time()
    text = "\n".join(["a" * 150] * 20_000)
    assert without(text, [slow]) == text
    assert time.thread_time() - began < limits.PATTERN_BUDGET_S + 4


@pytest.mark.parametrize(
    "pattern", ["(a+)+", "(a*)*$", "(?:a|a)*b", "((a?)b?)+", "(?P<n>x{2,})+y", "(a+){2,}", r"(\w|\d)*"]
)
def test_a_pattern_that_may_explode_is_found(pattern: str) -> None:
    assert may_explode(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(> )+",
        "(a+)++",
        "(a|b)",
        "(a+)?",
        r"\(a+\)+",
        "[(a+)]+",
        "[]|(]+(x)+",
        r"^\s*>.*$",
        "(?:ab)+(?:cd)*",
        "(?i)(ab)+",
        ")",
        "(",
    ],
)
def test_a_pattern_that_may_not_explode_is_left_alone(pattern: str) -> None:
    assert not may_explode(pattern)


@given(st.text("()[]{}*+?|\\ax^1,:<>=!P", max_size=30))
def test_looking_at_a_pattern_ends_and_never_raises(pattern: str) -> None:
    may_explode(pattern)
