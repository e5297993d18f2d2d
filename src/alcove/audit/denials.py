"""Denials on their way to the database: counted in memory, never more than so many, and never repeated row by row."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple, final

from alcove import limits
from alcove.audit.model import Act
from alcove.clock import Micros


class Denied(NamedTuple):
    """What was denied: two that are equal are told as one.

    Attributes:
        act: What was tried, as `noun.verb`.
        code: Why not.
        subject: What it was about.
        tenant: Whose.
        user_id: Which user's.
        session_id: In which session.
        who: Who tried.
        words: What else is to be told, as pairs.
    """

    act: str
    code: str
    subject: str = ""
    tenant: str = ""
    user_id: str = ""
    session_id: str = ""
    who: str = ""
    words: tuple[tuple[str, str], ...] = ()

    @property
    def crowd(self) -> str:
        """What many different denials may come from: their subject, or else who tries."""
        return self.subject or self.who


_MORE = (("more", "further denials, which are counted and not told apart"),)


@final
class _Count:
    __slots__ = ("first_us", "last_us", "times", "until")

    def __init__(self, now: Micros) -> None:
        self.times = 0
        self.first_us = now
        self.last_us = now
        self.until = 0.0


@final
class Denials:
    """Counts denials until they are written. Any thread may add.

    The first of its kind is to be written at once. What repeats it within `limits.AUDIT_WINDOW_S` is counted, and
    written as one row when that is over. Past `limits.AUDIT_DISTINCT_OF_SUBJECT` kinds of one subject (or of one
    principal), and past `limits.AUDIT_DISTINCT` in all, they are no longer told apart, so that neither memory nor
    database is filled by whoever asks for ever new things; they are still counted.

    Args:
        now: The wall clock.
        monotonic: Seconds that never go back.
    """

    def __init__(self, now: Callable[[], Micros], monotonic: Callable[[], float]) -> None:
        self._now = now
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._fresh: dict[Denied, _Count] = {}
        self._told: dict[Denied, _Count] = {}
        self._crowds: Counter[str] = Counter()

    def add(self, denied: Denied) -> bool:
        """Count one; return whether something waits now and nothing did before."""
        now = self._now()
        with self._lock:
            count = self._told.get(denied) or self._fresh.get(denied)
            if count is not None:
                self._repeat(count, now)
                return False
            return self._begin(denied, now)

    def _begin(self, denied: Denied, now: Micros) -> bool:
        if len(self._fresh) + len(self._told) >= limits.AUDIT_DISTINCT:
            denied = Denied(denied.act, denied.code, words=_MORE)
        elif self._crowds[denied.crowd] >= limits.AUDIT_DISTINCT_OF_SUBJECT:
            denied = denied._replace(who="" if denied.subject else denied.who, words=_MORE)
        count = self._told.get(denied) or self._fresh.get(denied)
        if count is not None:
            self._repeat(count, now)
            return False
        first = not self._fresh
        count = self._fresh[denied] = _Count(now)
        count.times = 1
        self._crowds[denied.crowd] += 1
        return first

    def _repeat(self, count: _Count, now: Micros) -> None:
        if not count.times:
            count.first_us = now
        count.times += 1
        count.last_us = now

    @property
    def waiting(self) -> int:
        """How many rows are to be written at once."""
        return len(self._fresh)

    def next_s(self) -> float | None:
        """Return seconds until a window is over, None when nothing is counted."""
        with self._lock:
            first = next(iter(self._told.values()), None)
            return None if first is None else max(0.0, first.until - self._monotonic())

    def take(self, most: int, *, everything: bool = False) -> list[tuple[Denied, Act]]:
        """Take what is to be written: what is fresh, and what was repeated in a window that is over.

        Args:
            most: How many rows at most.
            everything: Windows that are not over, too: nothing will be counted any more.
        """
        with self._lock:
            now = self._monotonic()
            taken: list[tuple[Denied, Act]] = []
            for denied in list(self._told):  # those that nothing repeated are no rows, and may stand before one that is
                count = self._told[denied]
                if len(taken) == most or (count.until > now and not everything):
                    break
                del self._told[denied]
                if count.times:
                    taken.append(self._emitted(denied, count, now))
                else:
                    self._ended(denied)
            fresh = list(islice(self._fresh, most - len(taken)))
            return taken + [self._emitted(denied, self._fresh.pop(denied), now) for denied in fresh]

    def put_back(self, taken: Iterable[tuple[Denied, Act]]) -> None:
        """Take back what could not be written: it is counted together with what came meanwhile."""
        with self._lock:
            for denied, act in taken:
                count = self._told.pop(denied, None) or self._fresh.get(denied)
                if count is None:
                    count = _Count(act.last_us)
                    self._crowds[denied.crowd] += 1
                count.first_us = act.first_us
                count.last_us = max(act.last_us, count.last_us if count.times else 0)
                count.times += act.times
                self._fresh[denied] = count

    def _emitted(self, denied: Denied, count: _Count, now: float) -> tuple[Denied, Act]:
        """Return the row, and go on counting for another window."""
        act = Act(
            act=denied.act,
            code=denied.code,
            subject=denied.subject,
            tenant=denied.tenant,
            user_id=denied.user_id,
            session_id=denied.session_id,
            who=denied.who,
            words=dict(denied.words),
            times=count.times,
            first_us=count.first_us,
            last_us=count.last_us,
        )
        count.times = 0
        count.until = now + limits.AUDIT_WINDOW_S
        self._told[denied] = count
        return denied, act

    def _ended(self, denied: Denied) -> None:
        self._crowds[denied.crowd] -= 1
        if not self._crowds[denied.crowd]:
            del self._crowds[denied.crowd]
