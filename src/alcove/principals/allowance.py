"""How many requests a caller may still make."""

from __future__ import annotations

from typing import final

from alcove import limits


@final
class Allowance:
    """A bucket that fills at a rate, and holds what may come at once.

    Args:
        rate_per_s: Requests a second on average, 0 for any number.
        now: The time, in seconds on a clock that never goes back.
    """

    __slots__ = ("left", "rate_per_s", "refilled_at")

    def __init__(self, rate_per_s: int, now: float) -> None:
        self.rate_per_s = rate_per_s
        self.refilled_at = now
        self.left = float(rate_per_s * limits.KEY_BURST_S)

    def spend(self, now: float) -> bool:
        """Take one request; return whether there was one."""
        rate = self.rate_per_s
        if not rate:
            return True
        filled = self.left + (now - self.refilled_at) * rate
        self.left = min(filled, float(rate * limits.KEY_BURST_S))
        self.refilled_at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True
