"""What a definition's form cannot show: states that nobody reaches or leaves, slots that nothing sets, hidden ways."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from alcove.dialogs.document import Fault
from alcove.dialogs.model import Definition, State, Transition


def check(definition: Definition) -> list[Fault]:
    """Return what is wrong with a definition as a whole, in the order of its states and slots."""
    return [*_states(definition), *_ways(definition), *_slots(definition), *_events(definition)]


def targets(definition: Definition, state: State) -> set[str]:
    """Return the states that come right after one: by its events, and by its time-out."""
    found = {way.target for ways in state.on.values() for way in ways}
    if state.timeout and state.timeout.reset:
        found.add(definition.start)
    return found


def _states(definition: Definition) -> Iterator[Fault]:
    reached, left = {definition.start}, [definition.start]
    while left:
        new = targets(definition, definition.states[left.pop()]) - reached
        reached |= new
        left += new
    for name, state in definition.states.items():
        if name not in reached:
            yield Fault(("states", name), f"is unreachable: no event leads to it from {definition.start!r}")
        if not state.final and not targets(definition, state) - {name}:
            yield Fault(
                ("states", name), "is a dead end: nothing leads out of it; say `final = true` if the dialog ends here"
            )


def _ways(definition: Definition) -> Iterator[Fault]:
    """Find alternatives behind one that is always taken."""
    for name, state in definition.states.items():
        for event, ways in state.on.items():
            for i, way in enumerate(ways[:-1]):
                if not way.when:
                    yield Fault(
                        ("states", name, "on", event, i + 1), "is never looked at: the way before it has no `when`"
                    )
                    break


def _slots(definition: Definition) -> Iterator[Fault]:
    brought: set[str] = set()
    for way in _all_ways(definition):
        trigger = definition.events[way.event]
        brought |= {*trigger.needs, *trigger.takes, *way.set}
    for name, slot in definition.slots.items():
        if name not in brought and slot.default is msgspec.UNSET:
            yield Fault(("slots", name), "is never set: no event brings it and no transition sets it")


def _events(definition: Definition) -> Iterator[Fault]:
    used = {way.event for way in _all_ways(definition)}
    for name in definition.events:
        if name not in used:
            yield Fault(("events", name), "is never taken: no state has a transition for it")


def _all_ways(definition: Definition) -> Iterator[Transition]:
    for state in definition.states.values():
        for ways in state.on.values():
            yield from ways
