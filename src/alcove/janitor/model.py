"""What the janitor is asked for and what it says, as records. Instants are microseconds since the epoch."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from alcove.clock import Micros


class What(StrEnum):
    """What can be cleaned up."""

    EXPIRED = "expired"  # sessions past their TTL or their end go to the trash
    OLD = "old"  # sessions idle for longer than the caller wants to keep any, whatever their TTL, go to the trash
    EMPTY = "empty"  # sessions in which nothing ever was go to the trash
    TRASH = "trash"  # what was in the trash for long enough is removed for good
    STRAYS = "strays"  # folders that belong to no session are removed for good


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions are to go to the trash.

    Attributes:
        what: `expired`, `old` or `empty`.
        older_us: Idle for longer than this; says nothing about expired ones.
        tenant: Only this one's; None for all.
    """

    what: What
    older_us: Micros = 0
    tenant: str | None = None


class Candidate(msgspec.Struct, frozen=True):
    """A session that may have to go, as it was found. The fields are in the order of `queries.COLUMNS`.

    Attributes:
        free: Whether nothing holds it: no lease, no run that has not ended.
    """

    id: str
    tenant: str
    parent_id: str
    root_id: str
    depth: int
    pinned: int
    child_count: int
    last_activity: Micros
    idle_limit: Micros
    ends_at: Micros
    due_at: Micros
    last_seq: int
    free: int


class Period(msgspec.Struct, frozen=True):
    """A time in which the clock of a machine did not jump.

    Attributes:
        begins: The first instant that it can have shown then.
        ends: The last one.
        later: By how much it has jumped since, forward and back together.
    """

    begins: Micros
    ends: Micros
    later: Micros


class Span(NamedTuple):
    """Instants from `first` on, up to `end`, which is not one of them."""

    first: Micros
    end: Micros


class Group(msgspec.Struct, frozen=True):
    """Sessions that go together: a session and what is below it.

    Attributes:
        session_id: The one above all others.
        sessions: How many they are.
        tenant: Whose they are.
        since_us: When something last happened in the one above, or when they went to the trash.
        trash_id: The trashing; None in a preview of what is still outside the trash.
    """

    session_id: str
    sessions: int
    tenant: str
    since_us: Micros
    trash_id: str | None = None


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """What was cleaned up, or would be.

    Attributes:
        what: One of `What`.
        dry_run: Whether nothing was done.
        sessions: How many sessions went.
        groups: Which, at most `limits.CLEANED`; what goes together is one group.
        strays: Folders that belong to no session, for `strays`.
        size_bytes: Room given back to the disk, for `trash` and `strays`.
        more: Whether there is more to do than was asked for at once.
        problems: What could not be done, a sentence each; it is tried again by the next sweep.
    """

    what: What
    dry_run: bool
    sessions: int = 0
    groups: tuple[Group, ...] = ()
    strays: tuple[str, ...] = ()
    size_bytes: int = 0
    more: bool = False
    problems: tuple[str, ...] = ()


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """How full a disk is that holds something of the installation.

    Attributes:
        holds: What of it: `base`, `home` or `database`.
        free_bytes: What may still be written.
        low: Whether that is less than `limits.DISK_LOW_BYTES`, or than `limits.DISK_LOW` of all of it.
    """

    holds: str
    size_bytes: int
    free_bytes: int
    low: bool


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep did, or would do.

    Attributes:
        dry_run: Whether nothing was done.
        expired: What went to the trash.
        trash: What was removed for good.
        lost_runs: Runs whose holder is gone, or whose host was not heard of: marked lost, their processes ended.
        values: Of state: expired, or of runs that have ended.
        journals: Runs whose output was forgotten, because they ended more than `limits.JOURNAL_DAYS` ago.
        runs: Runs without a session that were removed, because they ended more than `limits.LEDGER_DAYS` ago.
        disks: How full the disks are.
        problems: What could not be done, a sentence each; it is tried again by the next sweep.
    """

    dry_run: bool
    expired: Cleaned
    trash: Cleaned
    lost_runs: int
    journals: int
    values: int
    runs: int
    disks: tuple[Disk, ...]
    problems: tuple[str, ...]


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What does not belong together.

    Attributes:
        strays: Paths below the base or the home that belong to no session, at most `limits.CLEANED`.
        folderless: Sessions whose workspace is gone, at most `limits.CLEANED`.
    """

    strays: tuple[str, ...]
    folderless: tuple[str, ...]
