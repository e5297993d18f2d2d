"""The only place that reads time. Everything else is given `now`.

Instants are whole microseconds since the epoch, UTC (`Micros`); durations are microseconds too where they meet
the database and `timedelta` where they meet a person.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol, final

Micros = int
SECOND: Micros = 1_000_000


class Clock(Protocol):
    """What tells the time. Users may hand in their own."""

    def now(self) -> Micros:
        """Return the wall clock, in microseconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back; for waiting and for leases held in this process."""
        ...


@final
class SystemClock:
    """The machine's clocks: a `Clock`."""

    def now(self) -> Micros:
        """Return microseconds since the epoch."""
        return time.time_ns() // 1000

    # The function itself: a check of authority reads it on every call.
    monotonic = staticmethod(time.monotonic)


def awake_s() -> float:
    """Return seconds since the machine was started, those included in which it slept: a clock that never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def instant(at: Micros) -> datetime:
    """Return an aware UTC datetime for microseconds since the epoch."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at)


def micros(value: datetime | timedelta) -> Micros:
    """Return microseconds since the epoch for an aware datetime, or the length of a duration."""
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    return (value - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def seconds(at: Micros) -> float:
    """Return epoch seconds (or a duration in seconds) as a float, as the HTTP contract shows instants."""
    return at / 1_000_000
