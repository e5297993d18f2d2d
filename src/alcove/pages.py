"""Pages of a listing: their size, and the cursors that lead from one to the next."""

from __future__ import annotations

import base64
import binascii
import re

from alcove import limits
from alcove.errors import InvalidError


def page_limit(limit: int, most: int = limits.PAGE) -> int:
    """Return `limit` when it is a size for a page.

    Raises:
        InvalidError: Below 1 or above `most`.
    """
    if not 1 <= limit <= most:
        raise InvalidError(f"limit is {limit}", field="limit", limit=most, remedy=f"use 1 to {most}")
    return limit


def encode_cursor(created_us: int, session_id: str) -> str:
    """Return the cursor of the page after this session."""
    return base64.urlsafe_b64encode(f"{created_us}:{session_id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, str]:
    """Return the instant and the id in a cursor.

    Raises:
        InvalidError: Not a cursor of ours.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    match = re.fullmatch(r"([0-9]{1,18}):(.+)", text)
    if not match:
        raise InvalidError("cursor is not one of ours", field="cursor", remedy="pass next_cursor as it came")
    return int(match[1]), match[2]
