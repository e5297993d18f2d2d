"""What is known of sessions that went, as records. Instants are microseconds since the epoch."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from alcove.clock import Micros


class Why(StrEnum):
    """Why a session went, or came back."""

    ASKED = "asked"  # somebody asked for this very session
    EXPIRED = "expired"  # idle for longer than its TTL, or past its end
    EMPTY = "empty"  # nothing was ever in it
    OLD = "old"  # idle for longer than an operator wanted to keep any
    GRACE_OVER = "grace over"  # was in the trash for as long as the trash keeps things


class Step(StrEnum):
    """What is being done with a trashing."""

    KEPT = "kept"  # nothing: it waits to be restored or purged
    MOVING = "moving"  # the rows are in the trash, folders follow
    RESTORING = "restoring"  # folders are on their way back, the rows follow
    PURGING = "purging"


class By(msgspec.Struct, frozen=True):
    """Why and by whom something is done: what the log says of it.

    Attributes:
        why: One of `Why`.
        who: `library`, `janitor`, the name of a principal, or whatever the caller names itself.
    """

    why: str = Why.ASKED
    who: str = "library"


class Gone(msgspec.Struct, frozen=True, kw_only=True):
    """What a purge removed.

    Attributes:
        messages: Messages, hidden ones included.
        events: Journal events.
        runs: Runs.
        rows: Rows of every table, those counted above included.
        files: Files of workspaces and homes.
        folders: Folders of workspaces and homes, their own included.
        size_bytes: Room given back to the disk.
    """

    messages: int = 0
    events: int = 0
    runs: int = 0
    rows: int = 0
    files: int = 0
    folders: int = 0
    size_bytes: int = 0

    def __add__(self, other: Gone) -> Gone:
        return Gone(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Receipt(Gone, frozen=True, kw_only=True):
    """What a deletion did.

    Attributes:
        trash_id: Names the trashing; everything of it is restored or purged together.
        sessions: The sessions that went, parents first.
        purged: Whether they are gone for good; the counts are 0 otherwise.
    """

    trash_id: str
    sessions: tuple[str, ...]
    purged: bool


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What came back.

    Attributes:
        trash_id: The trashing that it was.
        session_id: The session that was trashed.
        sessions: All that came back, parents first.
        keyless: Those of them whose key belongs to another session now, so that they came back without.
    """

    trash_id: str
    session_id: str
    sessions: tuple[str, ...]
    keyless: tuple[str, ...] = ()


class Trashing(msgspec.Struct, frozen=True):
    """Sessions that went to the trash together. The fields are in the order of `queries.TRASHING`.

    Attributes:
        id: Its name: of a folder in the trash, too.
        session_id: The session that was trashed, with all its descendants.
        sessions: How many went.
        why: One of `Why`.
        who: By whom.
        step: What is being done with it.
        step_why: Why.
        step_who: For whom.
        claim: The call that is doing it, `''` for none.
        claimed_until: When that call is to be taken for dead.
    """

    id: str
    tenant: str
    session_id: str
    sessions: int
    why: str
    who: str
    trashed_us: Micros
    step: str
    step_why: str
    step_who: str
    claim: str
    claimed_until: Micros


class TrashPage(msgspec.Struct, frozen=True):
    """Trashings, newest first, and the cursor of the next page (None on the last)."""

    trashings: list[Trashing]
    next_cursor: str | None


class Deed(msgspec.Struct, frozen=True):
    """One line of the log: what was done to a session. It stays when the session is gone.

    Attributes:
        what: `trashed`, `restored` or `purged`.
        why: One of `Why`.
        who: By whom.
        removed: What was removed for good, None where nothing was.
    """

    session_id: str
    trash_id: str
    what: str
    tenant: str
    why: str
    who: str
    created_us: Micros
    removed: Gone | None


class DeedPage(msgspec.Struct, frozen=True):
    """Deeds, newest first, and the cursor of the next page (None on the last)."""

    deeds: list[Deed]
    next_cursor: str | None
