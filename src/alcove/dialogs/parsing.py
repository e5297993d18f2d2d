"""From a document (what TOML, JSON or Python gave) to a definition: its form, and that every name leads somewhere.

All faults are collected, each with the path to where it is, so that `loading` can say the line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, cast, final, get_args

import msgspec

from alcove import limits
from alcove.clock import SECOND
from alcove.dialogs import rules
from alcove.dialogs.document import Document, Fault, Path, Table
from alcove.dialogs.model import (
    FREE_FORM,
    Change,
    Definition,
    Guard,
    Kind,
    Operator,
    Slot,
    State,
    Timeout,
    Transition,
    Trigger,
)
from alcove.durations import duration_s
from alcove.errors import InvalidError
from alcove.patterns import may_explode
from alcove.values import Json

_KINDS: Final = get_args(Kind)
_OPERATORS: Final = get_args(Operator)
_ORDERED: Final = frozenset({"at_least", "at_most", "above", "below"})
_ALIASES: Final = {"string": "text", "str": "text", "int": "integer", "float": "number", "bool": "boolean"}
_TOP: Final = ("name", "version", "description", "start", "slots", "events", "states", "on", "reset", "migrations")


def parse(document: object) -> tuple[Definition | None, list[Fault]]:
    """Return the definition in a document and its faults; there is no definition when its form has faults."""
    reader = _Reader()
    source = reader.source(document)
    if reader.faults:
        return None, reader.faults
    # What is read is what is stored: dates of TOML are text, tuples of Python are lists.
    definition = reader.definition(msgspec.json.decode(source), source)
    return (None if reader.faults else definition), reader.faults


@final
class _Reader(Document):
    def __init__(self) -> None:
        super().__init__()
        self.slots: dict[str, Slot] = {}
        self.events: dict[str, Trigger] = {}
        self.states: list[str] = []
        self.start = ""
        self.declared = False  # whether the document lists its events

    # -- sections --------------------------------------------------------------------------------------------------

    def definition(self, document: object, source: str) -> Definition:
        top = self.table(document, (), _TOP)
        name = self.name(top.get("name"), ("name",), "name")
        if name == FREE_FORM:
            self.bad(("name",), f"{FREE_FORM!r} is the name of no definition")
        number = top.get("version", 1)
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number < 2**31:
            self.bad(("version",), "has to be a whole number from 1")
            number = 1
        self.read_slots(top.get("slots", {}))
        self.declared = "events" in top
        self.read_events(top.get("events", {}))
        tables = self.tables(top.get("states"), ("states",), "state", limits.DIALOG_STATES)
        if not tables:
            self.bad(("states",), "there has to be at least one state")
        self.states = list(tables)
        self.start = self.one_of(top.get("start"), ("start",), self.states, "state")
        everywhere = self.ways(top.get("on", {}), ("on",), "")
        many = sum(map(len, everywhere.values())) * len(tables)
        if many > limits.DIALOG_TRANSITIONS:
            self.bad(("on",), f"makes {many} transitions, one in each state; at most {limits.DIALOG_TRANSITIONS}")
            everywhere = {}
        states = {state: self.state(state, value, everywhere) for state, value in tables.items()}
        changes = self.changes(top.get("migrations", {}), number)
        kept = self.table(top.get("reset", {}), ("reset",), ("keep",)).get("keep", [])
        return Definition(
            name=name,
            number=number,
            start=self.start,
            states=states,
            slots=self.slots,
            events=self.events,
            kept=self.names(kept, ("reset", "keep"), self.slots, "slot"),
            changes=changes,
            source=source,
            digest=hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest(),
        )

    def source(self, document: object) -> str:
        """Return the document as JSON, in its own order: it is drawn so."""
        try:
            source = msgspec.json.encode(document).decode()
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self.bad((), f"is not JSON: {error}")
            return ""
        if len(source) > limits.DIALOG_BYTES:
            self.bad((), f"is {len(source)} characters of JSON; at most {limits.DIALOG_BYTES}")
        return source

    def read_slots(self, value: object) -> None:
        for name, entry in self.tables(value, ("slots",), "slot", limits.DIALOG_SLOTS).items():
            path = ("slots", name)
            table: Table = (
                {"type": entry} if isinstance(entry, str) else self.table(entry, path, Slot.__struct_fields__)
            )
            kind = table.get("type")
            if kind not in _KINDS:
                hint = _ALIASES.get(str(kind))
                told = f"; say {hint!r}" if hint else f"; there are: {', '.join(_KINDS)}"
                self.bad((*path, "type"), f"there is no type {kind!r}{told}" if kind else f"needs a type{told}")
                kind = "any"
            self.slots[name] = self.slot(name, cast("Kind", kind), table, path)

    def slot(self, name: str, kind: Kind, table: Table, path: Path) -> Slot:
        bounds = {key: self.bound(kind, key, table[key], path) for key in ("min", "max") if key in table}
        if len(bounds) == 2 and None not in bounds.values() and bounds["min"] > bounds["max"]:  # type: ignore[operator]
            self.bad((*path, "max"), f"is below min, {bounds['min']:g}")
        choices = table.get("choices")
        if choices is not None and (not isinstance(choices, list) or not choices):
            self.bad((*path, "choices"), "has to be a list that is not empty")
            choices = None
        slot = Slot(
            name=name,
            type=kind,
            pattern=self.pattern(kind, table["pattern"], (*path, "pattern")) if "pattern" in table else None,
            description=str(table.get("description", "")),
            min=bounds.get("min"),
            max=bounds.get("max"),
        )
        for i, one in enumerate(cast("list[Any]", choices or [])):
            if wrong := rules.fault(slot, one):
                self.bad((*path, "choices", i), wrong)
        slot = msgspec.structs.replace(slot, choices=tuple(cast("list[Any]", choices)) if choices else None)
        if "default" in table:
            if wrong := rules.fault(slot, table["default"]):
                self.bad((*path, "default"), wrong)
            slot = msgspec.structs.replace(slot, default=table["default"])
        return slot

    def bound(self, kind: Kind, key: str, value: object, path: Path) -> float | None:
        if kind in {"boolean", "object", "any"}:
            self.bad((*path, key), f"a slot of type {kind} has no {key}")
        elif not isinstance(value, int | float) or isinstance(value, bool):
            self.bad((*path, key), "has to be a number")
        else:
            return value
        return None

    def pattern(self, kind: Kind, value: object, path: Path) -> str | None:
        pattern = self.text(value, path)
        if kind != "text":
            self.bad(path, f"a slot of type {kind} has no pattern")
            return None
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            self.bad(path, f"is not a regex: {error}")
            return None
        if may_explode(pattern):
            self.bad(path, "repeats a group with a repeat or a choice in it, which may take for ever")
            return None
        return pattern

    def read_events(self, value: object) -> None:
        for name, entry in self.tables(value, ("events",), "event", limits.DIALOG_EVENTS).items():
            path = ("events", name)
            table = self.table(entry, path, ("needs", "takes", "description"))
            needs = self.names(table.get("needs", []), (*path, "needs"), self.slots, "slot")
            takes = self.names(table.get("takes", []), (*path, "takes"), self.slots, "slot")
            self.events[name] = Trigger(name=name, needs=needs, takes=takes)

    def event(self, name: object, path: Path) -> str:
        """Return the name of an event: one of the list, where the document has one."""
        if self.declared:
            return self.one_of(name, path, self.events, "event")
        text = self.name(name, path, "event")
        self.events.setdefault(text, Trigger(name=text))
        return text

    def state(self, name: str, value: object, everywhere: Mapping[str, tuple[Transition, ...]]) -> State:
        path = ("states", name)
        table = self.table(value, path, ("on", "timeout", "final", "description"))
        own = self.ways(table.get("on", {}), (*path, "on"), name)
        final = self.flag(table.get("final", False), (*path, "final"))
        if final and (own or "timeout" in table):
            self.bad(path, "is final, so nothing happens in it: take out its transitions and its timeout, or `final`")
        rest = {
            event: tuple(msgspec.structs.replace(way, target=way.target or name) for way in ways)
            for event, ways in everywhere.items()
        }
        on = {} if final else {**rest, **own}
        timeout = self.timeout(table["timeout"], (*path, "timeout"), on) if "timeout" in table else None
        return State(name=name, on=on, timeout=timeout, final=final, description=str(table.get("description", "")))

    def ways(self, value: object, path: Path, here: str) -> dict[str, tuple[Transition, ...]]:
        """Return the transitions of a table `on`. With no state to be `here`, one that stays has no target yet."""
        found: dict[str, tuple[Transition, ...]] = {}
        for key, entry in self.table(value, path).items():
            event = self.event(key, (*path, key))
            if isinstance(entry, list) and entry:
                ways = cast("list[object]", entry)
                found[event] = tuple(self.way(event, one, (*path, key, i), here) for i, one in enumerate(ways))
            else:
                found[event] = (self.way(event, cast("object", entry), (*path, key), here),)
        return found

    def way(self, event: str, value: object, path: Path, here: str) -> Transition:
        if isinstance(value, str):
            return Transition(event=event, target=self.one_of(value, path, self.states, "state"))
        table = self.table(value, path, ("to", "when", "set", "clear", "keep", "reset"))
        back = self.flag(table.get("reset", False), (*path, "reset"))
        if back and table.keys() & {"to", "clear", "keep"}:
            self.bad(path, "resets, so it has no `to`, `clear` or `keep` of its own")
        target = self.one_of(table["to"], (*path, "to"), self.states, "state") if "to" in table else here
        return Transition(
            event=event,
            target=self.start if back else target,
            when=self.guards(table.get("when", {}), (*path, "when")),
            set=self.constants(table.get("set", {}), (*path, "set")),
            clear=self.cleared(table, path),
            reset=back,
        )

    def constants(self, value: object, path: Path) -> dict[str, Any]:
        table = self.table(value, path)
        for name, one in table.items():
            known = self.one_of(name, (*path, name), self.slots, "slot") in self.slots
            if known and (wrong := rules.fault(self.slots[name], one)):
                self.bad((*path, name), wrong)
        return table

    def cleared(self, table: Table, path: Path) -> tuple[str, ...]:
        if "clear" in table and "keep" in table:
            self.bad(path, "`clear` and `keep` exclude each other")
        if "keep" in table:
            kept = self.names(table["keep"], (*path, "keep"), self.slots, "slot")
            return tuple(name for name in self.slots if name not in kept)
        if table.get("clear") == "all":
            return tuple(self.slots)
        return self.names(table.get("clear", []), (*path, "clear"), self.slots, "slot")

    def guards(self, value: object, path: Path) -> tuple[Guard, ...]:
        found: list[Guard] = []
        for name, entry in self.table(value, path).items():
            here = (*path, name)
            self.one_of(name, here, self.slots, "slot")
            slot = self.slots.get(name)
            if slot is None:
                continue
            table = cast("Table", entry) if isinstance(entry, dict) else None
            compared = table is not None and len(table) == 1 and next(iter(table)) in _OPERATORS
            if table is not None and (compared or slot.type not in {"object", "any"}):
                if not table:
                    self.bad(here, f"compares with nothing; there are: {', '.join(_OPERATORS)}")
                found += [self.guard(slot, operator, other, (*here, operator)) for operator, other in table.items()]
            else:
                found.append(self.guard(slot, "is", entry, here))
        return tuple(found)

    def guard(self, slot: Slot, operator: str, value: Any, path: Path) -> Guard:
        if operator not in _OPERATORS:
            self.bad(path, f"there is no comparison {operator!r}{self.hint(operator, _OPERATORS)}")
        elif operator == "set":
            self.flag(value, path)
        elif operator in {"in", "not_in"}:
            if not isinstance(value, list) or not value:
                self.bad(path, "has to be a list that is not empty")
                value = []
            for i, one in enumerate(cast("list[Any]", value)):
                self.comparable(slot, one, (*path, i))
        elif operator in _ORDERED and slot.type not in {"integer", "number"}:
            self.bad(path, f"compares numbers, and slot {slot.name!r} is of type {slot.type}")
        elif operator in _ORDERED and (not isinstance(value, int | float) or isinstance(value, bool)):
            self.bad(path, "has to be a number")
        elif operator not in _ORDERED:
            self.comparable(slot, value, path)
        return Guard(slot.name, cast("Operator", operator), cast("Json", value))

    def comparable(self, slot: Slot, value: Any, path: Path) -> None:
        if wrong := rules.fault(slot, value):
            self.bad(path, f"can never be: slot {slot.name!r} {wrong}")

    def timeout(self, value: object, path: Path, on: Mapping[str, tuple[Transition, ...]]) -> Timeout:
        table = self.table(value, path, ("after", "event", "reset", "message"))
        after_s = 0
        try:
            after_s = duration_s(self.text(table.get("after"), (*path, "after")) or "1s", field="after") or 0
        except InvalidError as error:
            self.bad((*path, "after"), str(error))
        else:
            if not after_s:
                self.bad((*path, "after"), "has to be longer than nothing, and not never: leave out the timeout then")
        back = self.flag(table.get("reset", False), (*path, "reset"))
        event = ""
        if "event" in table:
            event = self.event(table["event"], (*path, "event"))
            self.leads(event, (*path, "event"), on)
        if "event" in table and back:
            self.bad(path, "`event` and `reset` exclude each other")
        message = self.text(table["message"], (*path, "message")) if "message" in table else ""
        if len(message.encode("utf-8", "surrogatepass")) > limits.DIALOG_MESSAGE_BYTES:
            self.bad((*path, "message"), f"is longer than {limits.DIALOG_MESSAGE_BYTES} bytes")
        if not (event or back or message):
            self.bad(path, "has no effect: give it an `event`, `reset = true` or a `message`")
        return Timeout(after_us=after_s * SECOND, event=event, reset=back, message=message)

    def leads(self, event: str, path: Path, on: Mapping[str, tuple[Transition, ...]]) -> None:
        if event and event not in on:
            self.bad(path, f"leads to nowhere: the state takes no event {event!r}{self.hint(event, on)}")
        elif event and self.events.get(event, Trigger(name="")).needs:
            self.bad(path, f"event {event!r} has to bring slots, and a timeout brings none")

    def changes(self, value: object, number: int) -> dict[int, Change]:
        found: dict[int, Change] = {}
        for key, entry in self.table(value, ("migrations",)).items():
            path = ("migrations", key)
            if not re.fullmatch(r"[1-9][0-9]{0,9}", key) or int(key) >= number:
                self.bad(path, f"has to be the number of a version before {number}")
                continue
            table = self.table(entry, path, ("states", "slots", "drop"))
            states = self.table(table.get("states", {}), (*path, "states"))
            slots = self.table(table.get("slots", {}), (*path, "slots"))
            for old, new in states.items():
                self.one_of(new, (*path, "states", old), self.states, "state")
            for old, new in slots.items():
                self.one_of(new, (*path, "slots", old), self.slots, "slot")
            drop = table.get("drop", [])
            found[int(key)] = Change(states=states, slots=slots, drop=self.names(drop, (*path, "drop"), drop, "slot"))
        return found
