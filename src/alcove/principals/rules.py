"""What each role may do: plain functions of records."""

from __future__ import annotations

import hashlib
from typing import Final

from alcove import ids, limits
from alcove.errors import InvalidError, NotPermittedError
from alcove.principals.model import Principal, Role

SECRET_PREFIX: Final = "alcove_"
"""Begins every key, so that scanners for secrets find one that was published by mistake."""

PUBLIC: Final = "public"
_RANKS: Final = {Role.ADMIN: 3, Role.SERVICE: 2, Role.USER: 1}

LEAST: Final[dict[str, Role]] = {
    "agents.read": Role.USER,
    "audit.erase": Role.ADMIN,
    "audit.read": Role.ADMIN,
    # Whoever bounds what an agent may do, or asks what a run may, stands for the program behind it.
    "ceilings.read": Role.SERVICE,
    "ceilings.write": Role.SERVICE,
    "cleanup.run": Role.ADMIN,
    "dialogs.read": Role.USER,
    # An event brings messages and slots as the bot words them, as `messages.append` does.
    "dialogs.write": Role.SERVICE,
    "files.delete": Role.USER,
    "files.read": Role.USER,
    "files.write": Role.USER,
    "grants.read": Role.SERVICE,
    "grants.withdraw": Role.SERVICE,
    "isolation.read": Role.SERVICE,
    "keys.create": Role.ADMIN,
    "keys.read": Role.ADMIN,
    "keys.revoke": Role.ADMIN,
    # Whoever may append may put words into an agent's mouth, which a user must not.
    "messages.append": Role.SERVICE,
    "messages.delete": Role.USER,
    "messages.read": Role.USER,
    "messages.update": Role.USER,
    "metrics.read": Role.ADMIN,
    # A session's own user may say what is done in it; no run has this.
    "runs.approve": Role.USER,
    "runs.ask": Role.SERVICE,
    "runs.authorize": Role.SERVICE,
    "runs.cancel": Role.USER,
    "runs.read": Role.USER,
    "runs.register": Role.SERVICE,
    "runs.report": Role.SERVICE,
    "runs.start": Role.USER,
    "search.read": Role.USER,
    "sessions.create": Role.USER,
    "sessions.delete": Role.USER,
    "sessions.read": Role.USER,
    "sessions.update": Role.USER,
    "state.read": Role.USER,
    # State steers what a bot does next, as a dialog's does.
    "state.write": Role.SERVICE,
    "trash.read": Role.SERVICE,
    "users.read": Role.SERVICE,
}
"""The least role that has a permission. One that is not here is the administrator's."""


def may(principal: Principal, permission: str) -> bool:
    """Return whether a caller's role has a permission. Runs have none here: their socket shows them what they may."""
    if permission == PUBLIC:
        return True
    return _RANKS.get(principal.role, 0) >= _RANKS[LEAST.get(permission, Role.ADMIN)]


def check(principal: Principal, permission: str) -> None:
    """Let a caller pass whose role has a permission.

    Raises:
        NotPermittedError: It has not.
    """
    if not may(principal, permission):
        raise NotPermittedError(
            f"a key of the role {principal.role} may not do this",
            field="role",
            remedy=f"use a key of the role {LEAST.get(permission, Role.ADMIN)}",
            permission=permission,
        )


def sees(principal: Principal, tenant: str, user_id: str) -> bool:
    """Return whether what belongs to that tenant and user exists for a caller. Runs are told apart by session."""
    if principal.role is Role.ADMIN:
        return True
    return principal.tenant == tenant and principal.user_id in {"", user_id}


def own_user(principal: Principal, asked: str | None) -> str | None:
    """Return the user that a request is about: of a `user` key its own, else the one that was asked for, if any.

    Raises:
        NotPermittedError: It asks for another one than its own.
    """
    if not principal.user_id:
        return asked
    if asked not in {None, principal.user_id}:
        raise NotPermittedError(
            "this key is another user's", field="user_id", remedy="leave it out: the user comes from the key"
        )
    return principal.user_id


def digest(secret: str) -> str:
    """Return what is kept of a secret. It has 256 random bits, so nothing slower than SHA-256 is needed."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def check_new(*, tenant: str, role: str, user_id: str, label: str, rate_per_s: int | None) -> int:
    """Return the rate of a key to be, once its fields are known to be right.

    Raises:
        InvalidError: Names the field and the remedy.
    """
    ids.name(tenant, field="tenant")
    ids.name(user_id, field="user_id", empty=True)
    ids.name(label, field="label", empty=True)
    if role not in set(_RANKS):
        raise InvalidError(f"there is no role {role!r}", field="role", remedy=f"use one of {', '.join(_RANKS)}")
    if (role == Role.USER) != bool(user_id):
        raise InvalidError(
            "a key of the role user needs a user" if role == Role.USER else f"a key of the role {role} is no user's",
            field="user_id",
            remedy="name the user" if role == Role.USER else "leave user_id out, or use the role user",
        )
    if rate_per_s is None:
        return limits.USER_KEY_RATE if role == Role.USER else 0
    if not 0 <= rate_per_s <= limits.KEY_RATE:
        raise InvalidError(
            f"rate_per_s is {rate_per_s}",
            field="rate_per_s",
            limit=limits.KEY_RATE,
            remedy="use requests a second, or 0 for any number",
        )
    return rate_per_s
