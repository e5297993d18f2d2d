"""Progress: where somebody watches, and nowhere else."""

from __future__ import annotations

import io
import sys

import pytest

from alcove.cli import output


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.mark.parametrize(("terminal", "shown"), [(True, True), (True, False), (False, True)])
def test_a_long_work_shows_how_far_it_is_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, shown: bool
) -> None:
    stream = Stream(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with output.progress("a \x1b[2J", 4, shown=shown) as step:
        step(1)
        step(3)
    assert ("100%" in stream.getvalue(), "a \\x1b[2J" in stream.getvalue()) == (terminal and shown,) * 2


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("of", [0, 7])
def test_a_work_that_counts_for_itself_ends_full(monkeypatch: pytest.MonkeyPatch, terminal: bool, of: int) -> None:
    stream = Stream(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with output.progress_of("importing") as show:
        show(0, of)
        show(of, of)
    assert ("100%" in stream.getvalue()) == terminal
