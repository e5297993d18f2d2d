"""A clock that stands still until it is moved."""

from __future__ import annotations

import time
from typing import final

from alcove.clock import SECOND, Clock, Micros


@final
class FrozenClock(Clock):
    """Tells the same instant until a test moves it.

    `monotonic` goes on by itself, plus what was moved: waiting for a lock must end in a test too.

    Args:
        at: Where it starts, microseconds since the epoch.
    """

    def __init__(self, at: Micros = 1_700_000_000 * SECOND) -> None:
        self.at = at
        self._moved_s = 0.0

    def now(self) -> Micros:
        """Return the instant at which it stands."""
        return self.at

    def monotonic(self) -> float:
        """Return seconds that go on, and jump with every move."""
        return time.monotonic() + self._moved_s

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.at += round(seconds * SECOND)
        self._moved_s += seconds
