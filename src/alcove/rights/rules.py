"""What may be done with rights: plain functions of records. No right comes out that did not go in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import UNSET, UnsetType

from alcove import limits
from alcove.rights import hosts
from alcove.rights.model import ANY, APPROVED, DEFAULT_STATE, Cut, Network, Resources, Rights
from alcove.rights.writing import topmost, within


def complete(asked: Rights, declared: Rights) -> Rights:
    """Return what is asked for, every part set: a part that nobody asked for is as much as the agent declares.

    What bounds by `*` names nothing that could be granted; where nothing is declared there is nothing, but for the
    usual scopes of state.
    """
    resources = asked.resources
    if isinstance(resources, UnsetType):
        resources = {} if isinstance(declared.resources, UnsetType) else _named(declared.resources)
    return Rights(
        resources=resources,
        storage=_first(asked.storage, declared.storage, ()),
        read=_first(asked.read, declared.read, ()),
        write=_first(asked.write, declared.write, ()),
        network=_first_network(asked.network, declared.network),
        state=_first(asked.state, declared.state, DEFAULT_STATE),
    )


def cut(given: Rights, bound: Rights) -> Rights:
    """Return what of `given` is within a bound; a part that the bound does not set stays as it is.

    `given` has every part set. Of a path and a path below it the lower one is left.
    """
    readable = UNSET if isinstance(bound.read, UnsetType) else topmost((*bound.read, *_set(bound.write)))
    return Rights(
        resources=_cut_resources(_of(given.resources), bound.resources),
        storage=_cut_words(given.storage, bound.storage),
        read=_cut_paths(given.read, readable),
        write=_cut_paths(given.write, bound.write),
        network=_cut_network(_network_of(given.network), bound.network),
        state=_cut_words(given.state, bound.state),
    )


def covers(bound: Rights, given: Rights) -> bool:
    """Return whether `given` is within `bound`: whether cutting takes nothing off."""
    return not any(True for _ in removed(given, cut(given, bound)))


def removed(before: Rights, after: Rights) -> Iterator[str]:
    """Yield as words what `after` has no more of `before`."""
    yield from _removed_resources(_of(before.resources), _of(after.resources))
    for part in ("storage", "state", "read", "write"):
        left = _set(getattr(after, part))
        yield from (f"{part} {word}" for word in _set(getattr(before, part)) if word not in left)
    new = _network_of(after.network)
    if new != "host":
        yield from (f"network {host}" for host in _hosts(_network_of(before.network)) if host not in _hosts(new))


def _removed_resources(before: Resources, after: Resources) -> Iterator[str]:
    for kind, names in before.items():
        left = after.get(kind, {})
        if left is names:
            continue
        for name, operations in names.items():
            still = left.get(name, ())
            if still is not operations:
                yield from (f"{kind} {name} {operation}" for operation in operations if operation not in still)


def bounded(given: Rights, bounds: Iterable[tuple[str, Rights]]) -> tuple[Rights, list[Cut]]:
    """Return what is left of `given` within every bound, and what each of them took off."""
    cuts: list[Cut] = []
    for by, bound in bounds:
        left = cut(given, bound)
        words = list(removed(given, left))
        if words:
            cuts.append(Cut(by, len(words), tuple(words[: limits.CUT_ITEMS])))
        given = left
    return given, cuts


def touches_sandbox(before: Rights, after: Rights) -> bool:
    """Return whether files or network were withdrawn: what the kernel was told when the program started."""
    return any(word.startswith(("read ", "write ", "network ")) for word in removed(before, after))


def reaches(network: Network, host: str) -> bool:
    """Return whether a host, as `name` or `name:port`, may be reached. One listed without a port has every port."""
    if isinstance(network, str):
        return network == "host" and hosts.host(host) is not None
    return hosts.reaches(network, host)


def reaches_loopback(network: Network, port: int) -> bool:
    """Return whether a port of this machine's own loopback may be reached; 0 stands for any port.

    Only by its address: what a name leads to may be reached on loopback only when that is listed itself.
    """
    if isinstance(network, str):
        return network == "host"
    listed = [one for one in map(hosts.host, network) if one is not None and (not port or one.port in {None, port})]
    return any(hosts.is_loopback(address) for one in listed if (address := one.address) is not None)


def _named(resources: Resources) -> Resources:
    """Return the resources that are named: `*` bounds, and grants nothing."""
    found: Resources = {}
    for kind, names in resources.items():
        found[kind] = {}
        for name, operations in names.items():
            plain = tuple(operation for operation in operations if operation.removesuffix(APPROVED) != ANY)
            if name != ANY and plain:
                found[kind][name] = plain
    return {kind: names for kind, names in found.items() if names}


def _cut_resources(given: Resources, bound: Resources | UnsetType) -> Resources:
    if isinstance(bound, UnsetType):
        return given
    found: Resources = {}
    known: dict[tuple[tuple[str, ...], ...], tuple[str, ...]] = {}  # the same few lists come again and again
    for kind, names in given.items():
        allowed = bound.get(kind)
        if not allowed:
            continue
        if allowed == names:
            found[kind] = names
            continue
        any_id = allowed.get(ANY, ())
        left: dict[str, tuple[str, ...]] = {}
        for name, operations in names.items():
            lists = (operations, allowed.get(name, ()), any_id)
            kept = known.get(lists)
            if kept is None:
                kept = known[lists] = _cut_operations(operations, lists[1] + any_id)
            if kept:
                left[name] = kept
        if left:
            found[kind] = left
    return found


def _cut_operations(given: tuple[str, ...], permitted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the operations that are permitted; one that asks, on either side, asks from then on."""
    if not any(one.endswith(APPROVED) for one in (*given, *permitted)):
        return given if ANY in permitted else tuple(one for one in given if one in permitted)
    asks_all = f"{ANY}{APPROVED}" in permitted
    left: set[str] = set()
    for one in given:
        bare = one.removesuffix(APPROVED)
        asking = f"{bare}{APPROVED}"
        if asks_all or asking in permitted:
            left.add(asking)
        elif ANY in permitted or bare in permitted:
            left.add(one)
    return tuple(sorted(left))


def _cut_words(given: tuple[str, ...] | UnsetType, bound: tuple[str, ...] | UnsetType) -> tuple[str, ...]:
    return _set(given) if isinstance(bound, UnsetType) else tuple(word for word in _set(given) if word in bound)


def _cut_paths(given: tuple[str, ...] | UnsetType, bound: tuple[str, ...] | UnsetType) -> tuple[str, ...]:
    if isinstance(bound, UnsetType):
        return _set(given)
    found = {path for path in _set(given) if within(path, bound)}
    found |= {path for path in bound if within(path, _set(given))}
    return tuple(sorted(found))


def _cut_network(given: Network, bound: Network | UnsetType) -> Network:
    if isinstance(bound, UnsetType) or bound == "host":
        return given
    if given == "host" or "none" in {given, bound}:
        return bound if given == "host" else "none"
    return hosts.common(given, bound) or "none"


def _hosts(network: Network) -> tuple[str, ...]:
    if isinstance(network, str):
        return () if network == "none" else (network,)
    return network


def _first(
    asked: tuple[str, ...] | UnsetType, declared: tuple[str, ...] | UnsetType, usual: tuple[str, ...]
) -> tuple[str, ...]:
    if not isinstance(asked, UnsetType):
        return asked
    return usual if isinstance(declared, UnsetType) else declared


def _first_network(asked: Network | UnsetType, declared: Network | UnsetType) -> Network:
    return _network_of(declared if isinstance(asked, UnsetType) else asked)


def _of(resources: Resources | UnsetType) -> Resources:
    return {} if isinstance(resources, UnsetType) else resources


def _set(words: tuple[str, ...] | UnsetType) -> tuple[str, ...]:
    return () if isinstance(words, UnsetType) else words


def _network_of(network: Network | UnsetType) -> Network:
    return "none" if isinstance(network, UnsetType) else network
