"""The transition table: plain functions of a definition, a position, what happened and `now`.

Everything that moves a dialog is in this file. Events in, positions out; what may not be is an error, and then nothing
has happened.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.dialogs.model import Change, Definition, Event, Guard, Position, Slot, State, Timeout, Transition
from alcove.errors import EventRefusedError, InvalidError, TooLargeError
from alcove.values import Json

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
}
_encode = msgspec.json.Encoder(order="sorted").encode


def begin(definition: Definition, now: Micros) -> Position:
    """Return the position at the start."""
    slots = {name: slot.default for name, slot in definition.slots.items() if slot.default is not msgspec.UNSET}
    return _enter(definition, definition.start, slots, now)


def step(definition: Definition, position: Position, event: Event, now: Micros) -> Position:
    """Return the position after an event.

    Raises:
        EventRefusedError: The state does not take it, or no guard lets it through; names what would be taken.
        InvalidError: It brings a slot of the wrong type, one that is not its own, or not all that it has to.
    """
    alternatives = definition.states[position.state].on.get(event.name)
    if alternatives is None:
        raise _refused(definition, position, event)
    brought = check_brought(definition, event)
    seen = {**position.slots, **brought}
    for transition in alternatives:
        if all(holds(guard, seen) for guard in transition.when):
            return _taken(definition, position, transition, brought, now)
    told = " or ".join(" and ".join(map(guard_text, one.when)) for one in alternatives)
    raise EventRefusedError(
        f"state {position.state!r} takes event {event.name!r} only when {told}",
        field="event",
        remedy=_remedy(definition, position),
        state=position.state,
        takes=", ".join(takes(definition, position)),
    )


def reset(definition: Definition, position: Position, now: Micros) -> Position:
    """Return the position at the start, with the slots that a reset keeps."""
    fresh = begin(definition, now)
    kept = {name: position.slots[name] for name in definition.kept if name in position.slots}
    return Position(fresh.state, {**fresh.slots, **kept}, fresh.due_us)


def time_out(definition: Definition, position: Position, now: Micros) -> tuple[Position, Timeout]:
    """Return the position after the time-out of a state, and that time-out. Nothing of it is due twice."""
    timeout = definition.states[position.state].timeout
    assert timeout is not None, f"{definition.name}: {position.state} has no time-out"
    still = Position(position.state, position.slots, 0)
    if timeout.reset:
        return reset(definition, position, now), timeout
    if timeout.event:
        try:
            return step(definition, still, Event(timeout.event), now), timeout
        except EventRefusedError:
            # Its guards do not hold: the time is over, and the user is told what there is to tell.
            return still, timeout
    return still, timeout


def change(new: Definition, how: Change, position: Position) -> Position | None:
    """Return a position of an older version in the new one; None when it does not fit there, and stays where it is."""
    state = how.states.get(position.state, position.state)
    if state not in new.states:
        return None
    slots: dict[str, Json] = {}
    for name, value in position.slots.items():
        if name in how.drop:
            continue
        slot = new.slots.get(how.slots.get(name, name))
        if slot is None or fault(slot, value):
            return None
        slots[slot.name] = value
    return Position(state, slots, position.due_us)


def takes(definition: Definition, position: Position) -> tuple[str, ...]:
    """Return the events that would be taken now, given the right slots."""
    state = definition.states[position.state]
    return tuple(name for name, ways in state.on.items() if _may(definition, position, name, ways))


def _may(definition: Definition, position: Position, event: str, ways: tuple[Transition, ...]) -> bool:
    trigger = definition.events[event]
    open_slots = {*trigger.needs, *trigger.takes}
    return any(all(g.slot in open_slots or holds(g, position.slots) for g in way.when) for way in ways)


def holds(guard: Guard, slots: Mapping[str, Json]) -> bool:
    """Return whether a guard lets pass with these slots. A slot that is not set passes `set = false` only."""
    is_set = guard.slot in slots
    if guard.operator == "set":
        return is_set == guard.value
    return is_set and _compare(guard.operator, slots[guard.slot], guard.value)


def _compare(operator: str, value: Any, other: Any) -> bool:
    match operator:
        case "is":
            return same(value, other)
        case "is_not":
            return not same(value, other)
        case "in":
            return any(same(value, one) for one in other)
        case "not_in":
            return not any(same(value, one) for one in other)
        case "at_least":
            return value >= other
        case "at_most":
            return value <= other
        case "above":
            return value > other
        case _:
            return value < other


def same(one: Json, other: Json) -> bool:
    """Return whether two JSON values are the same. 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    return one == other


def check_brought(definition: Definition, event: Event) -> dict[str, Json]:
    """Return the slots that an event brings.

    Raises:
        InvalidError: One is missing, not its own, or may not have that value; `field` is `slots.NAME`.
    """
    trigger = definition.events[event.name]
    for name in trigger.needs:
        if name not in event.slots:
            raise InvalidError(
                f"event {event.name!r} has to bring slot {name!r}", field=f"slots.{name}", remedy="give it a value"
            )
    known = (*trigger.needs, *trigger.takes)
    for name, value in event.slots.items():
        if name not in known:
            shown = str(name)[:80]
            raise InvalidError(
                f"event {event.name!r} does not bring slot {shown!r}",
                field=f"slots.{shown}",
                remedy=f"it brings: {', '.join(known)}" if known else "it brings none",
            )
        if wrong := fault(definition.slots[name], value):
            raise InvalidError(f"slot {name!r} {wrong}", field=f"slots.{name}", remedy=_told(definition.slots[name]))
    return dict(event.slots)


def fault(slot: Slot, value: Json) -> str:
    """Return why a slot may not have a value, `''` when it may."""
    types = _TYPES.get(slot.type)
    if types and (not isinstance(value, types) or (isinstance(value, bool) and slot.type != "boolean")):
        return f"takes {_a(slot.type)}, not {_a(_type_of(value))}"
    if slot.choices is not None and not any(same(value, one) for one in slot.choices):
        return f"takes one of {', '.join(map(_text, slot.choices))}, not {_text(value)}"
    if slot.type in {"text", "list"} and isinstance(value, str | list):
        size, unit = len(value), "characters" if slot.type == "text" else "items"
    elif slot.type in {"integer", "number"} and isinstance(value, int | float):
        # No infinity, nothing that is not a number, and no integer that other programs could not read.
        if not abs(value) < limits.SLOT_NUMBER:
            return f"takes a number below {limits.SLOT_NUMBER:.3g}, not {_text(value)}"
        size, unit = value, ""
    else:
        return ""
    if slot.min is not None and size < slot.min:
        return f"takes at least {slot.min:g} {unit}".rstrip() + f", not {size}"
    if slot.max is not None and size > slot.max:
        return f"takes at most {slot.max:g} {unit}".rstrip() + f", not {size}"
    return _mismatch(slot, value) if slot.pattern is not None and isinstance(value, str) else ""


def _mismatch(slot: Slot, value: str) -> str:
    if len(value) > limits.SLOT_PATTERN_CHARS:
        return f"has a pattern, so it takes at most {limits.SLOT_PATTERN_CHARS} characters, not {len(value)}"
    return "" if _compiled(slot.pattern or "").fullmatch(value) else f"has to match {slot.pattern}"


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def encoded(slots: Mapping[str, Json]) -> str:
    """Return slots as JSON.

    Raises:
        InvalidError: A value is not JSON.
        TooLargeError: They are more than `limits.SLOTS_BYTES` together.
    """
    try:
        text = _encode(slots)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidError(f"slots are not JSON: {error}", field="slots", remedy="use JSON values only") from error
    if len(text) > limits.SLOTS_BYTES:
        raise TooLargeError(
            f"the slots are {len(text)} bytes of JSON",
            field="slots",
            limit=limits.SLOTS_BYTES,
            remedy="keep large values in messages or files, and their names in slots",
        )
    # JSON has no NaN and no infinity: written as null, they would come back as something else.
    if b"null" in text and not _finite(slots):
        raise InvalidError("slots have a number that is not finite", field="slots", remedy="use null or a text")
    return text.decode()


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_finite, cast("Mapping[str, Any]", value).values()))
    return not isinstance(value, list | tuple) or all(map(_finite, cast("list[Any]", value)))


def guard_text(guard: Guard) -> str:
    """Return a guard as a person reads it."""
    if guard.operator == "set":
        return f"{guard.slot} is {'set' if guard.value else 'not set'}"
    return f"{guard.slot} {guard.operator.replace('_', ' ')} {_text(guard.value)}"


def _taken(
    definition: Definition, position: Position, way: Transition, brought: dict[str, Json], now: Micros
) -> Position:
    if way.reset:
        position = reset(definition, position, now)
        brought = {name: value for name, value in brought.items() if name in definition.kept}
    slots = {name: value for name, value in position.slots.items() if name not in way.clear}
    return _enter(definition, way.target, {**slots, **way.set, **brought}, now)


def _enter(definition: Definition, state: str, slots: Mapping[str, Json], now: Micros) -> Position:
    timeout = definition.states[state].timeout
    return Position(state, dict(slots), now + timeout.after_us if timeout else 0)


def _refused(definition: Definition, position: Position, event: Event) -> EventRefusedError:
    state: State = definition.states[position.state]
    what = f"event {event.name[:80]!r}"
    if state.final:
        text = f"the dialog has ended in state {state.name!r} and takes no {what}"
    elif event.name not in definition.events:
        text = f"dialog {definition.name!r} knows no {what}"
    else:
        text = f"state {state.name!r} takes no {what}"
    return EventRefusedError(
        text,
        field="event",
        remedy="reset it to begin again" if state.final else _remedy(definition, position),
        state=state.name,
        takes=", ".join(takes(definition, position)),
    )


def _remedy(definition: Definition, position: Position) -> str:
    return f"it takes: {', '.join(takes(definition, position)) or 'nothing now'}"


def _told(slot: Slot) -> str:
    return slot.description or f"give {_a(slot.type)}"


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    words: dict[type, str] = {
        str: "text",
        int: "integer",
        float: "number",
        list: "list",
        dict: "object",
        type(None): "null",
    }
    return words.get(type(value), type(value).__name__)


def _a(word: str) -> str:
    if word in {"text", "null", "any"}:
        return word if word != "any" else "any JSON value"
    return f"an {word}" if word[0] in "aio" else f"a {word}"


def _text(value: Json) -> str:
    try:
        text = _encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        text = _a(_type_of(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
