"""What may be done: rights, part by part, comparable with each other. Pure records, known to every layer that bounds.

A caller asks for some; what an agent declares, a session allows, a parent run holds or a resolver permits are others,
which bound them. What may be done with rights is in `rules`, how people write them in `writing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

Resources: TypeAlias = dict[str, dict[str, tuple[str, ...]]]
"""Per type, per id: the operations."""

Network: TypeAlias = str | tuple[str, ...]
"""`none`, `host` for whatever the server reaches, or the hosts that may be reached."""

ANY: Final = "*"
"""In what bounds a grant: every id, or every operation. A grant itself names each."""

APPROVED: Final = "?"
"""Ends an operation that needs a person's approval each time: `call?`. As a bound, `*?` says so of every operation."""

OPERATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "model": ("invoke", "rerank", "stream"),
    "tool": ("call", "detail"),
    "knowledge_base": ("list", "retrieve"),
    "skill": ("activate",),
    "file": ("read",),
}
"""What is meant when a resource is named without operations."""

USE: Final = ("use",)
"""The same for every other type."""

SCOPES: Final = ("session", "user", "subject", "agent", "app", "run")
ALIASES: Final[Mapping[str, str]] = {"conversation": "session", "actor": "user", "runner": "agent"}
"""Other words for scopes of state."""

DEFAULT_STATE: Final = ("session", "user")
"""The scopes of state of a run about which nobody said anything."""

STORAGE: Final = ("plugin", "workspace")


class Rights(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What may be done, part by part. A part that is not set says nothing: it neither asks nor bounds.

    Attributes:
        resources: Per type, per id: operations. As a bound, `*` stands for every id or every operation.
        storage: `plugin`, `workspace`.
        read: Absolute paths that may be read, each with all below it.
        write: The same for writing, which includes reading.
        network: `none`, `host`, or hosts (`rights.hosts`): `name`, `*.name`, addresses, each alone or with `:port`.
        state: Scopes of state; none for no state.
    """

    resources: Resources | UnsetType = UNSET
    storage: tuple[str, ...] | UnsetType = UNSET
    read: tuple[str, ...] | UnsetType = UNSET
    write: tuple[str, ...] | UnsetType = UNSET
    network: Network | UnsetType = UNSET
    state: tuple[str, ...] | UnsetType = UNSET


NOTHING: Final = Rights(resources={}, storage=(), read=(), write=(), network="none", state=())


class Cut(msgspec.Struct, frozen=True):
    """What one bound took off a grant that was asked for.

    Attributes:
        by: `agent`, `session`, `parent` or `resolver`.
        count: How many rights.
        first: The first of them, as words: `tool search call`, `network host`.
    """

    by: str
    count: int
    first: tuple[str, ...]


_encode = msgspec.json.Encoder(order="sorted").encode


def written(rights: Rights) -> str:
    """Return rights as they are kept."""
    return _encode(rights).decode()


def read_rights(text: str) -> Rights:
    """Return rights that were kept."""
    return msgspec.json.decode(text, type=Rights)
