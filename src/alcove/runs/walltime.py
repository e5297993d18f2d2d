"""How long a run may take: its time stands still while it waits for a person, its authority's does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import isfinite
from typing import final


@final
class WallTime:
    """Ends a run when its time is up. Made in the event loop that it counts in.

    Args:
        timeout_s: Seconds that it may work.
        lifetime_s: Seconds until its grant expires, working or waiting; infinite when that ends with the run.
        end: Is called once either is over.
    """

    def __init__(self, timeout_s: float, lifetime_s: float, end: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = end
        self._left_s = timeout_s
        self._waits = 0
        self._working = self._loop.call_later(timeout_s, end)
        self._living = self._loop.call_later(lifetime_s, end) if isfinite(lifetime_s) else None

    def stand(self) -> None:
        """Stand still, until `go_on` was called as often."""
        self._waits += 1
        if self._waits == 1:
            self._left_s = max(0.0, self._working.when() - self._loop.time())
            self._working.cancel()

    def go_on(self) -> None:
        """Count again, when nothing is waited for any more."""
        self._waits -= 1
        if not self._waits:
            self._working = self._loop.call_later(self._left_s, self._end)

    def cancel(self) -> None:
        """End nothing any more."""
        self._working.cancel()
        if self._living:
            self._living.cancel()
        # What still waits goes on after this, and starts nothing.
        self._waits += 1
