"""What a dialog is, as records: its definition, and where one stands. Instants are microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from alcove.clock import Micros, instant
from alcove.values import Json

Kind = Literal["text", "integer", "number", "boolean", "list", "object", "any"]
Operator = Literal["is", "is_not", "in", "not_in", "set", "at_least", "at_most", "above", "below"]
Cause = Literal["start", "event", "timeout", "reset", "set", "restore", "leave"]

FREE_FORM: Final = "free-form"
"""The name of no definition: any state, any slots. It has to be asked for."""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A value that a dialog collects.

    Attributes:
        name: Its name.
        type: What it may be; JSON's types under plain names.
        choices: The only values; None for any of the type.
        pattern: A regex that the whole of a text has to match; None for none.
        min: Least characters of a text, items of a list, or number; None for none.
        max: The most of the same.
        default: Its value until something sets it; UNSET for none.
        description: For people.
    """

    name: str
    type: Kind
    choices: tuple[Json, ...] | None = None
    pattern: str | None = None
    min: float | None = None
    max: float | None = None
    default: Json | msgspec.UnsetType = msgspec.UNSET
    description: str = ""


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a definition knows.

    Attributes:
        name: Its name.
        needs: Slots that it has to bring.
        takes: Slots that it may bring.
    """

    name: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


class Guard(msgspec.Struct, frozen=True):
    """A condition on one slot, looked at with what the event brings.

    Attributes:
        slot: Which slot.
        operator: How it is compared.
        value: With what.
    """

    slot: str
    operator: Operator
    value: Json


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """What one event does in one state.

    Attributes:
        event: The event.
        target: The state after it; the same one for "stays".
        when: All of these have to hold.
        set: Slots that it sets, to these values.
        clear: Slots that it clears, before the event's own are set.
        reset: Whether it is a reset: back to the start, with what a reset keeps.
    """

    event: str
    target: str
    when: tuple[Guard, ...] = ()
    set: Mapping[str, Json] = {}
    clear: tuple[str, ...] = ()
    reset: bool = False


class Timeout(msgspec.Struct, frozen=True, kw_only=True):
    """What happens when nothing does for a while in a state.

    Attributes:
        after_us: How long, microseconds since the state was entered or last took an event.
        event: The event that then happens, `''` for none.
        reset: Whether the dialog is reset instead.
        message: What the user is told: a message of the assistant; `''` for nothing.
    """

    after_us: Micros
    event: str = ""
    reset: bool = False
    message: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One state.

    Attributes:
        name: Its name.
        on: Its transitions by event, those that hold everywhere included; the first whose guards hold is taken.
        timeout: None for none.
        final: Whether the dialog has ended here.
        description: For people.
    """

    name: str
    on: Mapping[str, tuple[Transition, ...]] = {}
    timeout: Timeout | None = None
    final: bool = False
    description: str = ""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """How a session in an older version comes into this one.

    Attributes:
        states: New names of states; the others keep theirs.
        slots: New names of slots; the others keep theirs.
        drop: Slots of the older version whose values go.
    """

    states: Mapping[str, str] = {}
    slots: Mapping[str, str] = {}
    drop: tuple[str, ...] = ()


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A dialog as declared and checked; `loading.load` makes one.

    Attributes:
        name: What it is called.
        number: Its version, from 1.
        start: The first state.
        states: By name, in the order of the declaration.
        slots: By name.
        events: By name.
        kept: Slots that a reset keeps.
        changes: By the number of the older version whose sessions come into this one.
        source: The declaration as JSON.
        digest: SHA-256 of its canonical JSON, in hex.
    """

    name: str
    number: int
    start: str
    states: Mapping[str, State]
    slots: Mapping[str, Slot]
    events: Mapping[str, Trigger]
    kept: tuple[str, ...] = ()
    changes: Mapping[int, Change] = {}
    source: str = ""
    digest: str = ""


class Event(msgspec.Struct, frozen=True):
    """Something that happened, for a dialog to take.

    Attributes:
        name: What.
        slots: What it brings.
    """

    name: str
    slots: Mapping[str, Json] = {}


class Position(msgspec.Struct, frozen=True):
    """Where a dialog stands.

    Attributes:
        state: Its state.
        slots: What it has collected.
        due_us: When the state times out; 0 for never.
    """

    state: str
    slots: Mapping[str, Json]
    due_us: Micros = 0


class Dialog(msgspec.Struct, frozen=True, kw_only=True):
    """The dialog of a session, as it stood when it was read.

    Attributes:
        session_id: Whose.
        name: Of the definition; `free-form` for none.
        number: The version of the definition; 0 for free-form.
        version: Counts what happened in it, from 1: what `expected_version` is compared with.
        state: Its state.
        slots: What it has collected.
        takes: Events that its state takes now, with the right slots; empty at the end, and for free-form.
        final: Whether it has ended.
        due_us: When the state times out; 0 for never.
        changed_us: When something last happened in it.
    """

    session_id: str
    name: str
    number: int
    version: int
    state: str
    slots: dict[str, Json]
    takes: tuple[str, ...] = ()
    final: bool = False
    due_us: Micros = 0
    changed_us: Micros = 0

    @property
    def due_at(self) -> datetime | None:
        """When the state times out; None for never."""
        return instant(self.due_us) if self.due_us else None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened in a dialog: what a step answers, and what subscribers read.

    Attributes:
        session_id: Where.
        version: Its number, dense from 1 in a session.
        cause: `start event timeout reset set`; `restore` by a rewind, `leave` by one to before the dialog began.
        event: The event, `''` where none was taken.
        before: The state before, `''` for a start.
        state: The state after.
        slots: The slots after.
        message: What a timeout told the user, `''` for nothing.
        first_seq: Of the messages that were appended with it; 0 for none.
        last_seq: The session's last message after it.
        due_us: When the new state times out; 0 for never.
        created_us: When.
        replayed: Whether this is the stored answer to an earlier request with the same idempotency key.
    """

    session_id: str
    version: int
    cause: Cause
    event: str
    before: str
    state: str
    slots: dict[str, Json]
    message: str
    first_seq: int
    last_seq: int
    due_us: Micros
    created_us: Micros
    replayed: bool = False


class Kept(msgspec.Struct, frozen=True):
    """A definition as it is stored, by name and number."""

    id: str
    name: str
    number: int
    digest: str
