"""The headers that make a request depend on the state of a file, or ask for a part of it (RFC 9110, 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from alcove.errors import InvalidError
from alcove.server.problems import MediaTypeError, RangeError
from alcove.workspaces.model import Condition, File

_TAGS: Final = re.compile(rb'\s*(?:(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\s*(?:,\s*|$))+')
_TAG: Final = re.compile(rb'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_RANGE: Final = re.compile(rb"bytes=\s*(\d{0,18})-(\d{0,18})\s*", re.IGNORECASE)


def etag(file: File) -> str:
    """Return the entity tag of a state of a file."""
    return f'"{file.version}"'


def condition(head: Mapping[bytes, bytes]) -> Condition | None:
    """Return what If-Match and If-None-Match ask, None when they ask nothing.

    Raises:
        InvalidError: One of them is neither `*` nor a list of entity tags.
    """
    match, none_match = (_tags(head, name, strong=name == b"if-match") for name in (b"if-match", b"if-none-match"))
    return None if match is None and none_match is None else Condition(match=match, none_match=none_match)


def span(head: Mapping[bytes, bytes], file: File) -> tuple[int, int] | None:
    """Return the first byte and the length of the part that is asked for, None for all of it.

    One range is answered. Several, and what is no range, may be answered by the whole, and are.

    Raises:
        RangeError: The range lies behind the end.
    """
    asked = _RANGE.fullmatch(head.get(b"range", b""))
    if asked is None or asked[1] == asked[2] == b"":
        return None
    if (unchanged := head.get(b"if-range")) is not None and unchanged.strip() != etag(file).encode():
        return None
    size = file.size_bytes
    if not asked[1]:
        first, last = max(0, size - int(asked[2])), size - 1
    else:
        first, last = int(asked[1]), min(int(asked[2] or size), size - 1)
        if asked[2] and int(asked[2]) < first:
            return None
    if first > last:
        raise RangeError(f"the file has {size} bytes", field="range", remedy="ask for less", size=size)
    return first, last - first + 1


def check_whole(head: Mapping[bytes, bytes]) -> None:
    """Refuse what would be taken for a whole file and is none: `curl -C - -T` sends the end of one.

    Raises:
        InvalidError: It is a part (Content-Range).
        MediaTypeError: It is packed (Content-Encoding), which nobody would undo.
    """
    if b"content-range" in head:
        raise InvalidError("a part of a file cannot be put", field="content-range", remedy="send the whole file")
    if head.get(b"content-encoding", b"").strip().lower() not in {b"", b"identity"}:
        raise MediaTypeError(field="content-encoding", remedy="send the file as it is, without Content-Encoding")


def _tags(head: Mapping[bytes, bytes], name: bytes, *, strong: bool) -> tuple[str, ...] | None:
    value = head.get(name)
    if value is None:
        return None
    if value.strip() == b"*":
        return ("*",)
    if not _TAGS.fullmatch(value):
        raise InvalidError(
            f"{name.decode()} is neither '*' nor a list of entity tags",
            field=name.decode(),
            remedy='give an ETag as it came, quotes included, such as "1a-2b-3c"',
        )
    # Where a change depends on it, a weak tag is never the same; where only a copy is known, it is.
    return tuple(tag.decode("latin-1") for weak, tag in _TAG.findall(value) if not (weak and strong))
