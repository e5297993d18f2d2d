"""From what people write to rights in their one form: every name looked at, every list sorted, aliases resolved."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import UNSET, UnsetType

from alcove import ids, limits
from alcove.errors import InvalidError, TooLargeError
from alcove.rights.hosts import host
from alcove.rights.model import ALIASES, ANY, APPROVED, OPERATIONS, SCOPES, STORAGE, USE, Network, Resources, Rights

Written: TypeAlias = Mapping[str, Sequence[str] | Mapping[str, Sequence[str]]]
"""Resources as people write them: per type a list of ids, or ids with operations."""

PARTS: Final = frozenset({"network", "path", "state", "storage"})
"""What is asked of a check for the parts of a grant that are no resources."""


def rights(
    *,
    resources: Written | UnsetType = UNSET,
    storage: Collection[str] | UnsetType = UNSET,
    read: Collection[str] | UnsetType = UNSET,
    write: Collection[str] | UnsetType = UNSET,
    network: str | Collection[str] | UnsetType = UNSET,
    state: Collection[str] | UnsetType = UNSET,
    bound: bool = False,
) -> Rights:
    """Return rights in their one form: sorted, each once, aliases resolved.

    Args:
        resources: Per type a list of ids, which get the type's usual operations, or ids with operations.
        storage: `plugin`, `workspace`.
        read: Absolute paths.
        write: Absolute paths.
        network: `none`, `host`, or hosts.
        state: Scopes, or their aliases.
        bound: Whether they bound a grant: then `*` may stand for every id or operation.

    Raises:
        InvalidError: Names the field and the remedy.
        TooLargeError: More than a grant holds.
    """
    return Rights(
        resources=resources if isinstance(resources, UnsetType) else _resources(resources, bound=bound),
        storage=storage if isinstance(storage, UnsetType) else _words("storage", storage, STORAGE),
        read=read if isinstance(read, UnsetType) else _paths("read", read),
        write=write if isinstance(write, UnsetType) else _paths("write", write),
        network=network if isinstance(network, UnsetType) else _network(network),
        state=state
        if isinstance(state, UnsetType)
        else _words("state", [ALIASES.get(scope, scope) for scope in state], SCOPES),
    )


def bound(
    *,
    resources: Written | UnsetType = UNSET,
    storage: Collection[str] | UnsetType = UNSET,
    read: Collection[str] | UnsetType = UNSET,
    write: Collection[str] | UnsetType = UNSET,
    network: str | Collection[str] | UnsetType = UNSET,
    state: Collection[str] | UnsetType = UNSET,
) -> Rights:
    """Return rights that bound others, in their one form: see `rights`. A part that is left out bounds nothing."""
    return rights(
        resources=resources, storage=storage, read=read, write=write, network=network, state=state, bound=True
    )


def checked(given: Rights, *, bound: bool) -> Rights:
    """Return rights that came from elsewhere in their one form. Raises what `rights` does."""
    return rights(
        resources=given.resources,
        storage=given.storage,
        read=given.read,
        write=given.write,
        network=given.network,
        state=given.state,
        bound=bound,
    )


def _resources(written: Written, *, bound: bool) -> Resources:
    ids.names(written, field="resources")
    found: Resources = {}
    for kind, names in written.items():
        if kind in PARTS:
            raise InvalidError(
                f"{kind!r} is no type of resource", field=f"resources.{kind}", remedy=f"it is a part of its own: {kind}"
            )
        usual = OPERATIONS.get(kind, USE)
        field = f"resources.{kind}"
        ids.names(names, field=field)
        if not bound and ANY in names:
            raise InvalidError(f"{field}: a grant names each id", field=field, remedy="list the ids instead of '*'")
        if isinstance(names, Mapping):
            # The same few lists of operations come again and again, and are looked at once.
            lists = list(map(tuple, names.values()))
            looked = {of: _operations(field, of, usual, bound=bound) for of in set(lists)}
            found[kind] = dict(zip(names, map(looked.__getitem__, lists), strict=True))
        else:
            found[kind] = dict.fromkeys(names, usual)
    return {kind: names for kind, names in found.items() if names}


def _operations(field: str, given: tuple[str, ...], usual: tuple[str, ...], *, bound: bool) -> tuple[str, ...]:
    """Return operations, sorted; the usual ones for none."""
    if not given:
        return usual
    if len(given) > limits.GRANT_OPERATIONS:
        raise TooLargeError(
            f"{field}: {len(given)} operations", field=field, limit=limits.GRANT_OPERATIONS, remedy="give fewer"
        )
    ids.names(given, field=field)
    bare = {one.removesuffix(APPROVED) for one in given}
    if "" in bare or any(one.endswith(APPROVED) for one in bare):
        raise InvalidError(
            f"{field}: {APPROVED!r} marks an operation, and is none", field=field, remedy="write it once, behind it"
        )
    if not bound and ANY in bare:
        raise InvalidError(f"{field}: a grant names each operation", field=field, remedy="list them")
    # Where both are written, the one that asks is meant.
    return tuple(sorted({one for one in given if f"{one}{APPROVED}" not in given}))


def _words(field: str, given: Collection[str], known: tuple[str, ...]) -> tuple[str, ...]:
    for word in given:
        if word not in known:
            raise InvalidError(f"{field}: {word[:40]!r}", field=field, remedy=f"use {', '.join(known)}")
    return tuple(sorted(set(given)))


def _paths(field: str, given: Collection[str]) -> tuple[str, ...]:
    _few(field, given)
    for path in given:
        if posixpath.normpath(path) != path or not path.startswith("/") or path.startswith("//"):
            raise InvalidError(
                f"{field}: {path[:200]!r} is not an absolute path in its plain form",
                field=field,
                remedy="begin with one '/', without '..', '.' or a '/' at the end",
            )
        if len(path) > limits.PATH_BYTES or "\x00" in path or not path.isprintable():
            raise InvalidError(f"{field}: not a path that can be granted", field=field, remedy="name another")
    return topmost(given)


def topmost(paths: Collection[str]) -> tuple[str, ...]:
    """Return paths without those that lie below another of them."""
    found: list[str] = []
    for path in sorted(set(paths), key=lambda one: (one.count("/"), one)):
        if not within(path, found):
            found.append(path)
    return tuple(sorted(found))


def within(path: str, folders: Collection[str]) -> bool:
    """Return whether an absolute, plain path is one of the folders or below one: by component, never by prefix."""
    if posixpath.normpath(path) != path or not path.startswith("/"):
        return False
    while path not in folders:
        above = path.rpartition("/")[0] or "/"
        if above == path:
            return False
        path = above
    return True


def _network(given: str | Collection[str]) -> Network:
    if isinstance(given, str):
        if given in {"none", "host"}:
            return given
        raise InvalidError(f"network: {given[:40]!r}", field="network", remedy="use none, host, or a list of hosts")
    _few("network", given)
    found: set[str] = set()
    for written in given:
        one = host(written)
        if one is None:
            raise InvalidError(
                f"network: {written[:80]!r} is no host",
                field="network",
                remedy="write name or name:port; *.name for all below it; addresses in full, IPv6 ones in brackets",
            )
        found.add(str(one))
    return tuple(sorted(found)) or "none"


def _few(field: str, given: Collection[str]) -> None:
    if len(given) > limits.GRANT_PATHS:
        raise TooLargeError(f"{field}: {len(given)}", field=field, limit=limits.GRANT_PATHS, remedy="give fewer")
