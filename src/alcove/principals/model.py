"""Who may call, as records. Instants are microseconds since the epoch."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from alcove.clock import Micros, instant


class Role(StrEnum):
    """What a caller is; each of the first three may do all that the next one may."""

    ADMIN = "admin"  # runs the installation: every tenant's sessions, keys, clean-up, figures
    SERVICE = "service"  # a program that acts for all users of its tenant
    USER = "user"  # one user of a tenant: that user's own sessions only
    RUN = "run"  # a program in a run, on the run's socket: reads its own session
    NOBODY = "nobody"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling.

    Attributes:
        role: What it may do.
        tenant: Whose sessions it makes and, unless it is an administrator, the only ones that it sees.
        user_id: The only user whose sessions it sees, `''` when it is not bound to one.
        key_id: The key that it came with, `''` for the local administrator and for runs.
        session_id: The session of a run, `''` otherwise.
        run_id: The run itself.
        subject: Whom the token of a provider is for, `''` without one.
    """

    role: Role
    tenant: str = "default"
    user_id: str = ""
    key_id: str = ""
    session_id: str = ""
    run_id: str = ""
    subject: str = ""

    @property
    def name(self) -> str:
        """Who that is, for logs and records: `key:…`, `oidc:…`, `run:…` or `local`."""
        if self.role is Role.RUN:
            return f"run:{self.run_id}"
        if self.subject:
            return f"oidc:{self.subject}"
        return f"key:{self.key_id}" if self.key_id else "local"


LOCAL: Final = Principal(role=Role.ADMIN)
"""Whoever may use this machine's own command line and, while there are no keys, its loopback port."""

NOBODY: Final = Principal(role=Role.NOBODY)


class Key(msgspec.Struct, frozen=True):
    """A key, without its secret, which nobody but its holder has. The fields are in the order of `queries._COLUMNS`.

    Attributes:
        tenant: Whose sessions its holder sees.
        role: `admin`, `service` or `user`.
        user_id: The user of a `user` key, `''` otherwise.
        label: For people: who holds it, and for what.
        rate_per_s: Requests a second that it may make on average, 0 for any number.
        created_us: When it was made.
        expires_us: From when on it is refused, 0 for never.
        revoked_us: When it was revoked, 0 when it was not.
        used_us: When it was last used, to the hour; 0 for never.
    """

    id: str
    tenant: str
    role: str
    user_id: str
    label: str
    rate_per_s: int
    created_us: Micros
    expires_us: Micros
    revoked_us: Micros
    used_us: Micros

    @property
    def created_at(self) -> datetime:
        """When it was made."""
        return instant(self.created_us)

    def refused(self, now: Micros) -> str:
        """Return why it is not taken at that time, `''` when it is."""
        if self.revoked_us:
            return "revoked"
        return "expired" if self.expires_us and self.expires_us <= now else ""


class Issued(msgspec.Struct, frozen=True):
    """A new key and its secret, which is told once and kept nowhere."""

    key: Key
    secret: str


class KeyPage(msgspec.Struct, frozen=True):
    """Keys, newest first, and the cursor of the next page (None on the last)."""

    keys: list[Key]
    next_cursor: str | None
