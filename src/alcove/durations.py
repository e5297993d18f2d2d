"""Durations: as people write them (`30s`, `15m`, `24h`, `7d`, `never`), and as rows keep them."""

from __future__ import annotations

import re
from typing import Final

from alcove import limits
from alcove.clock import Micros
from alcove.errors import InvalidError

_WRITTEN = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_S: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def duration_s(text: str, *, field: str = "duration") -> int | None:
    """Return the seconds of `30s`, `15m`, `24h` or `7d`; None for `never`.

    Raises:
        InvalidError: It is written otherwise, or is longer than `limits.TTL_S`.
    """
    if text == "never":
        return None
    found = _WRITTEN.fullmatch(text)
    if not found:
        raise InvalidError(
            f"{text[:40]!r} is not a duration",
            field=field,
            remedy="write a whole number and a unit: 30s, 15m, 24h, 7d; or never",
        )
    seconds = int(found[1]) * _UNIT_S[found[2]]
    if seconds > limits.TTL_S:
        raise InvalidError(
            f"{text!r} is longer than {limits.TTL_S // 86400} days",
            field=field,
            limit=limits.TTL_S,
            remedy="shorten it, or write never",
        )
    return seconds


def duration_text(seconds: int | None) -> str:
    """Return seconds as `duration_s` reads them, in the largest unit that divides them."""
    if seconds is None:
        return "never"
    unit = next(unit for unit, size in _UNIT_S.items() if seconds % size == 0 and (seconds or unit == "s"))
    return f"{seconds // _UNIT_S[unit]}{unit}"


def ttl_us(ttl_s: float | None, *, field: str = "ttl_s") -> Micros:
    """Return a time to live, or a lifetime, in microseconds; 0 stands for never.

    Raises:
        InvalidError: Not above 0, or longer than `limits.TTL_S`.
    """
    if ttl_s is None:
        return 0
    if not 0 < ttl_s <= limits.TTL_S:
        raise InvalidError(
            f"{field} is {ttl_s}",
            field=field,
            limit=limits.TTL_S,
            remedy="give seconds above 0, or null for what never expires",
        )
    return max(1, int(ttl_s * 1_000_000))
