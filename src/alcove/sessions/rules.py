"""What a session may be: plain functions of records."""

from __future__ import annotations

import msgspec

from alcove import ids, limits
from alcove.errors import InvalidError, TooLargeError
from alcove.sessions.model import Filters, NewSession, Status
from alcove.values import Json, Metadata, Scalar

_ORDERED = msgspec.json.Encoder(order="sorted")


def check_new(new: NewSession) -> NewSession:
    """Return `new` when every field may be stored.

    Raises:
        InvalidError: Names the field, its limit and the remedy.
    """
    ids.session_id(new.id)
    ids.name(new.tenant, field="tenant")
    for field, value in (("app", new.app), ("user_id", new.user_id), ("agent", new.agent), ("key", new.key)):
        if value is not None:
            ids.name(value, field=field, empty=True)
    if new.parent_id:
        ids.session_id(new.parent_id, field="parent_id")
    check_title(new.title)
    return new


def check_title(title: str) -> str:
    """Return `title` when it is at most `limits.TITLE_CHARS` long and has no lone surrogate."""
    if len(title) > limits.TITLE_CHARS:
        raise InvalidError(
            f"title has {len(title)} characters", field="title", limit=limits.TITLE_CHARS, remedy="shorten it"
        )
    encodable(title, "title")
    return title


def encodable(text: str, field: str) -> bytes:
    """Return `text` as UTF-8.

    Raises:
        InvalidError: It has a lone surrogate, which no database and no client could read back.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidError(
            f"{field} has a lone surrogate at character {error.start}", field=field, remedy="send valid Unicode"
        ) from error


def encode_metadata(metadata: Metadata) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return metadata as JSON, and the rows that make it findable: name and JSON value of each top-level scalar.

    Raises:
        InvalidError: Not JSON, too many names, or a name that may not be one.
        TooLargeError: Past `limits.METADATA_BYTES`.
    """
    if len(metadata) > limits.METADATA_NAMES:
        raise InvalidError(
            f"metadata has {len(metadata)} names", field="metadata", limit=limits.METADATA_NAMES, remedy="nest them"
        )
    for name in metadata:
        ids.name(name, field="metadata name")
    text = _json(metadata, "metadata")
    if len(text) > limits.METADATA_BYTES:
        raise TooLargeError(
            f"metadata is {len(text)} bytes of JSON",
            field="metadata",
            limit=limits.METADATA_BYTES,
            remedy="keep large values in messages or files",
        )
    rows = ((name, scalar(value)) for name, value in metadata.items() if not isinstance(value, dict | list))
    return text.decode(), tuple(row for row in rows if len(row[1].encode()) <= limits.METADATA_INDEXED_BYTES)


def metadata_filter(metadata: Metadata) -> tuple[tuple[str, str], ...]:
    """Return the index rows that a listing looks for.

    Raises:
        InvalidError: Too many names, or a value that is not indexed: no scalar, or too long.
    """
    if len(metadata) > limits.METADATA_NAMES:
        raise InvalidError(
            f"{len(metadata)} metadata filters", field="metadata", limit=limits.METADATA_NAMES, remedy="use fewer"
        )
    for name, value in metadata.items():
        if isinstance(value, dict | list):
            raise InvalidError(
                f"metadata filter {name!r} is not a scalar", field="metadata", remedy="filter by a scalar"
            )
        if len(scalar(value).encode()) > limits.METADATA_INDEXED_BYTES:
            raise InvalidError(
                f"metadata filter {name!r} is too long, and so are the values that it could find",
                field="metadata",
                limit=limits.METADATA_INDEXED_BYTES,
                remedy="filter by a shorter value, e.g. a digest of it",
            )
    return tuple((name, scalar(value)) for name, value in metadata.items())


def scalar(value: Scalar | Json) -> str:
    """Return a metadata value as it is stored in the index. 1 and 1.0 are the same value, 1 and true are not."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return _json(value, "metadata").decode()


def _json(value: Json, field: str) -> bytes:
    try:
        return _ORDERED.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidError(f"{field} is not JSON: {error}", field=field, remedy="use JSON values only") from error


def check_filters(filters: Filters) -> Filters:
    """Return `filters` when a listing can answer them."""
    if filters.status is not None and filters.status not in set(Status):
        raise InvalidError(
            f"status {filters.status!r} is unknown", field="status", remedy=f"use one of {', '.join(Status)}"
        )
    return filters
