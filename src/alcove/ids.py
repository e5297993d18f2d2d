"""The only place that makes and checks identifiers."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection

from alcove.errors import InvalidError
from alcove.limits import ID_CHARS

_SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def new_id() -> str:
    """Return a UUIDv7 (RFC 9562): sorts by creation time, 74 random bits. An identifier, never a credential."""
    random = int.from_bytes(os.urandom(10), "big")
    value = (time.time_ns() // 1_000_000) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_secret() -> str:
    """Return 256 random bits as 64 hex digits: a credential."""
    return os.urandom(32).hex()


def session_id(value: str, *, field: str = "session_id") -> str:
    """Return `value` when it may be a session id and the name of a folder.

    Raises:
        InvalidError: It does not match `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
    """
    if not _SESSION_ID.fullmatch(value):
        raise InvalidError(
            f"{field} {value[:40]!r} is not a session id",
            field=field,
            limit="[A-Za-z0-9][A-Za-z0-9._-]{0,127}",
            remedy="use letters, digits, '.', '_' and '-', at most 128 of them, the first a letter or digit; "
            "or leave it out and get a UUIDv7",
        )
    return value


def name(value: str, *, field: str, empty: bool = False) -> str:
    """Return `value` when it may be a key, user id, app or other name that a caller chose.

    Raises:
        InvalidError: It is empty (unless `empty`), longer than `limits.ID_CHARS`, or has control characters.
    """
    if (not value and not empty) or len(value) > ID_CHARS:
        raise InvalidError(
            f"{field} must have {0 if empty else 1} to {ID_CHARS} characters, got {len(value)}",
            field=field,
            limit=ID_CHARS,
            remedy="shorten it" if value else "give one",
        )
    if _CONTROL.search(value):
        raise InvalidError(
            f"{field} has a control character or a lone surrogate", field=field, remedy="remove the character"
        )
    return value


def names(values: Collection[str], *, field: str) -> None:
    """Let many names pass that callers chose, at a fraction of what `name` takes for each.

    Raises:
        InvalidError: One of them is no name; `field` and the name say which.
    """
    if not values or (
        min(map(len, values)) and max(map(len, values)) <= ID_CHARS and not _CONTROL.search("".join(values))
    ):
        return
    for value in values:
        name(value, field=field)
