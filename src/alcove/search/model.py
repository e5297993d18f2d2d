"""Search as records."""

from __future__ import annotations

import msgspec

from alcove.clock import Micros


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look. The tenant always holds.

    Attributes:
        tenant: Whose sessions.
        user_id: Of this user only.
        app: Of this app only.
        session_id: In this session only.
    """

    tenant: str = "default"
    user_id: str | None = None
    app: str | None = None
    session_id: str | None = None


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A place that was found.

    Attributes:
        session_id: The session.
        seq: The message; 0 for the session's title.
        role: Who speaks; `title` for a title.
        snippet: The text around what was found, shortened.
        marks: Where in `snippet` it is: first character, and the one after the last.
        score: How well it fits; only to be compared within one answer.
        title: The session's.
        user_id: The session's.
        created_us: Of the message, or of the session.
    """

    session_id: str
    seq: int
    role: str
    snippet: str
    marks: list[tuple[int, int]]
    score: float
    title: str
    user_id: str
    created_us: Micros


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An answer.

    Attributes:
        hits: The best first.
        more: Whether there may be more than were looked at: a narrower query or filter finds them.
        behind: Messages (and titles) that the index does not have yet.
    """

    hits: list[Hit]
    more: bool
    behind: int


class Place(msgspec.Struct, frozen=True):
    """Messages that are found together: `first` to `last` of a session; 0 and 0 for its title."""

    session_id: str
    first: int
    last: int


class Entered(msgspec.Struct, frozen=True):
    """A place on its way into the index.

    Attributes:
        place: Where.
        marks: What it is filtered by.
        texts: What is in it.
    """

    place: Place
    marks: tuple[str, ...]
    texts: tuple[str, ...]


class Behind(msgspec.Struct, frozen=True):
    """A session that the index does not have wholly.

    Attributes:
        session_id, tenant, app, user_id, title: The session.
        indexed_seq: As in the row: up to where it has it, and whether the title waits (see the migration).
        last_seq: Up to where it should.
    """

    session_id: str
    tenant: str
    app: str
    user_id: str
    title: str
    indexed_seq: int
    last_seq: int

    @property
    def from_seq(self) -> int:
        """The last message that the index has."""
        return self.indexed_seq if self.indexed_seq >= 0 else -(self.indexed_seq + 1)

    @property
    def title_waits(self) -> bool:
        """Whether the title is to be indexed."""
        return self.indexed_seq < 0
