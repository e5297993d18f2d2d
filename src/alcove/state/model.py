"""The records of state."""

from __future__ import annotations

import msgspec

from alcove.clock import Micros
from alcove.values import Json


class Place(msgspec.Struct, frozen=True):
    """Whose values: the keys of one place are apart from those of every other.

    Attributes:
        scope: `session user subject agent app run`.
        owner: The id of the session, user, subject or run; the name of the agent; `''` for an app.
        tenant: Whose; `''` for a session and a run, whose ids are nobody else's.
        app: Of which app; `''` for a session and a run.
    """

    scope: str
    owner: str
    tenant: str
    app: str


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """A value that is there.

    Attributes:
        place: Whose.
        key: Its name there.
        value: JSON.
        version: Names this value: every change, also a new value after a deletion, has a higher one.
        created_us: When there was a first value.
        updated_us: When this one came.
        expires_us: From when on it is gone; 0 for never.
    """

    place: Place
    key: str
    value: Json
    version: int
    created_us: Micros
    updated_us: Micros
    expires_us: Micros


class ValuePage(msgspec.Struct, frozen=True):
    """A page of values.

    Attributes:
        values: By key.
        next_cursor: For the next page, None on the last.
    """

    values: list[Value]
    next_cursor: str | None
