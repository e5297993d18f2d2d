"""What a session is, as records. Instants are microseconds since the epoch; the properties give datetimes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from alcove.clock import Micros, instant
from alcove.values import Metadata


class Status(StrEnum):
    """Where a session is in its life."""

    ACTIVE = "active"
    EXPIRED = "expired"  # idle for longer than its TTL, or past its end: readable, takes no activity
    TRASHED = "trashed"  # waits to be restored or purged; not readable. Of a purged one nothing but its deeds is left


class Session(msgspec.Struct, frozen=True):
    """A session as it stood when it was read. The fields are in the order of `queries.COLUMNS`.

    Attributes:
        id: UUIDv7, or the caller's own id; also the name of its folder.
        tenant: Who pays.
        app: Which application, `''` for none.
        user_id: Whose session, `''` for nobody's.
        key: The caller's own name for it, unique per tenant, app and user outside the trash.
        parent_id: `''` for a root.
        root_id: The root of its tree; its own id for a root.
        depth: 0 for a root, its parent's plus one for a child.
        agent: The agent that answers by default, `''` for the installation's.
        metadata_json: `metadata` as stored.
        version: Counts the changes to title, agent, metadata, pin, TTL and lifetime, from 1: the ETag.
        created_us: When it was created, microseconds since the epoch.
        last_seq: The `seq` of the last message ever appended, 0 when there is none.
        message_count: Messages that are visible.
        turn_count: Turns ever opened.
        child_count: Direct children outside the trash.
        last_activity_us: The last append, run, file write, touch or `live()`; never a read.
        ttl_us: How long it may be idle before it expires, 0 for ever.
        ends_us: When it expires whatever happens, 0 for never.
        epoch: Raised whenever somebody takes the right to write.
        lease_run: The run that holds the session, `''` when none does.
        dialog_state: The state of its dialog, `''` when it has none; as of the last thing that happened in it.
        status: As of the read.
    """

    id: str
    tenant: str
    app: str
    user_id: str
    key: str | None
    parent_id: str
    root_id: str
    depth: int
    title: str
    agent: str
    metadata_json: str
    pinned: int
    ttl_us: Micros
    ends_us: Micros
    version: int
    created_us: Micros
    last_seq: int
    message_count: int
    turn_count: int
    child_count: int
    last_activity_us: Micros
    epoch: int
    lease_run: str
    dialog_state: str
    status: str

    @property
    def metadata(self) -> Metadata:
        """The caller's own facts about the session, a fresh copy."""
        return msgspec.json.decode(self.metadata_json)

    @property
    def created_at(self) -> datetime:
        """When it was created."""
        return instant(self.created_us)

    @property
    def last_activity(self) -> datetime:
        """When something last happened in it."""
        return instant(self.last_activity_us)

    @property
    def expires_at(self) -> datetime | None:
        """When it expires unless something happens; None for never. A pinned session does not expire."""
        return None if self.expires_us is None else instant(self.expires_us)

    @property
    def expires_us(self) -> Micros | None:
        """The same in microseconds since the epoch."""
        ends = [self.ends_us] if self.ends_us else []
        ends += [self.last_activity_us + self.ttl_us] if self.ttl_us else []
        return min(ends) if ends and not self.pinned else None


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a session before it exists; checked by `rules.check_new`.

    An app, user or agent that is None is the parent's, and `''` for a root.
    """

    id: str
    tenant: str = "default"
    app: str | None = None
    user_id: str | None = None
    key: str | None = None
    parent_id: str = ""
    title: str = ""
    agent: str | None = None
    metadata_json: str = "{}"
    indexed: tuple[tuple[str, str], ...] = ()
    ttl_us: Micros = 0
    lifetime_us: Micros = 0


class Changes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Changes to a session; what is UNSET stays as it is.

    Attributes:
        ttl_s: Seconds it may be idle before it expires; None for ever.
        lifetime_s: Seconds from now on after which it expires whatever happens; None for never.
    """

    title: str | msgspec.UnsetType = msgspec.UNSET
    agent: str | msgspec.UnsetType = msgspec.UNSET
    metadata: Metadata | msgspec.UnsetType = msgspec.UNSET
    pinned: bool | msgspec.UnsetType = msgspec.UNSET
    ttl_s: float | msgspec.UnsetType | None = msgspec.UNSET
    lifetime_s: float | msgspec.UnsetType | None = msgspec.UNSET


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions to list; None means any.

    Attributes:
        status: `active`, `expired` or `trashed`; None: all but the trashed.
        metadata: Every name must have exactly this scalar value.
        active_since_us: Inclusive.
        active_before_us: Exclusive.
    """

    tenant: str = "default"
    app: str | None = None
    user_id: str | None = None
    parent_id: str | None = None
    root_id: str | None = None
    status: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    active_since_us: Micros | None = None
    active_before_us: Micros | None = None


class Page(msgspec.Struct, frozen=True):
    """Sessions, newest first, and the cursor of the next page (None on the last)."""

    sessions: list[Session]
    next_cursor: str | None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A session in a few words, for logs and prompts."""

    session_id: str
    parent_id: str
    root_id: str
    depth: int
    user_id: str
    title: str
    status: str
    created_at: datetime
    last_activity: datetime
    message_count: int
    turn_count: int
    child_count: int
