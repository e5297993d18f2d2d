"""Which place, key and value are good: plain functions."""

from __future__ import annotations

from typing import Final

import msgspec

from alcove import ids, limits
from alcove.errors import InvalidError, TooLargeError
from alcove.rights.model import ALIASES, SCOPES
from alcove.state.model import Place
from alcove.values import Json

_OWN: Final = frozenset({"session", "run"})  # their ids say whose they are
_encode = msgspec.json.Encoder().encode


def scope_of(scope: str) -> str:
    """Return a scope by its first name.

    Raises:
        InvalidError: There is none of that name.
    """
    found = ALIASES.get(scope, scope)
    if found not in SCOPES:
        known = ", ".join((*SCOPES, *ALIASES))
        raise InvalidError(f"there is no scope {scope[:64]!r}", field="scope", remedy=f"use one of {known}")
    return found


def place(scope: str, of: str, *, tenant: str, app: str) -> Place:
    """Return whose values are meant.

    Raises:
        InvalidError: There is no such scope; the owner is missing, or there is one where an app is its own.
    """
    found = scope_of(scope)
    ids.name(tenant, field="tenant")
    ids.name(app, field="app", empty=True)
    if found == "app":
        if of:
            raise InvalidError("an app's state has no other owner", field="of", remedy="name the app with `app`")
        return Place(found, "", tenant, app)
    if not of:
        raise InvalidError(f"whose state of the scope {found} is not said", field="of", remedy=f"give the {found}'s id")
    owner = ids.session_id(of) if found == "session" else ids.name(of, field="of")
    return Place(found, owner, "", "") if found in _OWN else Place(found, owner, tenant, app)


def key_of(key: str) -> str:
    """Return a key that is one.

    Raises:
        InvalidError: It is empty, too long, or has control characters.
    """
    return ids.name(key, field="key")


def encoded(value: Json) -> str:
    """Return a value as it is kept.

    Raises:
        InvalidError: It is no JSON.
        TooLargeError: It is longer than `limits.STATE_BYTES`.
    """
    try:
        data = _encode(value)
        text = data.decode()
        same = msgspec.json.decode(data) == value  # a set or NaN would come back as something else
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidError(f"the value is no JSON: {error}", field="value", remedy="give JSON") from error
    if not same:
        raise InvalidError("the value would not come back as it is", field="value", remedy="give JSON")
    if len(data) > limits.STATE_BYTES:
        raise TooLargeError(
            f"the value has {len(data)} bytes",
            field="value",
            limit=limits.STATE_BYTES,
            remedy="keep large things in a file of the workspace",
        )
    return text


def check_expected(version: int | None) -> None:
    """Refuse an expected version that no value can have.

    Raises:
        InvalidError: It is below 0.
    """
    if version is not None and not 0 <= version < 2**63:
        raise InvalidError(
            f"expected_version is {version}",
            field="expected_version",
            remedy="give the version that was read, or 0 for no value",
        )
