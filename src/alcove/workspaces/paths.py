"""What may be a path in a workspace. One file has one spelling; nothing here touches the disk."""

from __future__ import annotations

from alcove import limits
from alcove.errors import InvalidError


def check_path(path: str, *, field: str = "path") -> bytes:
    """Return the bytes of `path`, the only form that the file system sees.

    Any name that Linux allows is allowed, control characters and backslashes included. A file system's own view of
    upper case or of composed characters is not foreseen: what it takes for one name is one file.

    Raises:
        InvalidError: It is empty or absolute, has an empty, `.` or `..` part or a NUL, is longer than
            `limits.PATH_BYTES` or has a part longer than `limits.NAME_BYTES`, or is not the spelling that
            `decode` gives to its bytes.
    """
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = b""
    if decode(raw) != path:
        raise InvalidError(
            f"{field} has a lone surrogate that stands for no byte", field=field, remedy="remove the character"
        )
    if len(raw) > limits.PATH_BYTES:
        raise InvalidError(
            f"{field} has {len(raw)} bytes, the longest has {limits.PATH_BYTES}",
            field=field,
            limit=limits.PATH_BYTES,
            remedy="use fewer or shorter folder names",
        )
    if b"\0" in raw:
        raise InvalidError(f"{field} has a NUL character", field=field, remedy="remove the character")
    for part in raw.split(b"/"):
        if part in {b"", b".", b".."}:
            raise InvalidError(
                f"{field} {path[:80]!r} is not a plain relative path",
                field=field,
                remedy="give names with one '/' between them, such as 'notes/today.txt': relative to the workspace, "
                "without '.' and '..', not ending in '/'",
            )
        if len(part) > limits.NAME_BYTES:
            raise InvalidError(
                f"{field} has a name of {len(part)} bytes, the longest has {limits.NAME_BYTES}",
                field=field,
                limit=limits.NAME_BYTES,
                remedy="use a shorter name",
            )
    return raw


def decode(raw: bytes) -> str:
    """Return the spelling of a name or path from the disk: UTF-8, any other byte as U+DC80 to U+DCFF."""
    return raw.decode("utf-8", "surrogateescape")
