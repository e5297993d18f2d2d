"""Whatever the definition and the events: the dialog and a plain model say the same."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from alcove.clock import SECOND
from alcove.database.opening import open_database
from alcove.dialogs import rules
from alcove.dialogs.loading import examine, load
from alcove.dialogs.model import Event, Slot
from alcove.dialogs.parsing import parse
from alcove.dialogs.service import Dialogs
from alcove.errors import EventRefusedError, InvalidError
from alcove.sessions.service import Sessions
from alcove.testing.clock import FrozenClock

STATES = ["a", "b", "c"]
EVENTS = ["e", "f", "g"]
SLOTS = ["x", "y"]

_GUARDS = st.dictionaries(
    st.sampled_from(SLOTS),
    st.integers(0, 2)
    | st.sampled_from([{"at_least": 1}, {"set": True}, {"set": False}, {"in": [0, 2]}, {"is_not": 1}]),
    max_size=1,
)
_WAYS = st.fixed_dictionaries(
    {},
    optional={
        "to": st.sampled_from(STATES),
        "when": _GUARDS,
        "set": st.dictionaries(st.sampled_from(SLOTS), st.integers(0, 2), max_size=1),
        "clear": st.just("all") | st.lists(st.sampled_from(SLOTS), max_size=1),
    },
) | st.fixed_dictionaries({"reset": st.just(True)}, optional={"when": _GUARDS})
_ON = st.dictionaries(st.sampled_from(EVENTS), st.lists(_WAYS, min_size=1, max_size=2), max_size=3)
_TIMEOUTS = st.fixed_dictionaries({"after": st.just("10s"), "reset": st.just(True)}) | st.fixed_dictionaries(
    {"after": st.just("20s"), "message": st.just("still there?")}
)
_STATES = st.fixed_dictionaries({"on": _ON}, optional={"timeout": _TIMEOUTS})
DOCUMENTS = st.fixed_dictionaries(
    {
        "name": st.just("any"),
        "start": st.just("a"),
        "slots": st.just({"x": "integer", "y": {"type": "integer", "default": 0}}),
        "events": st.just({"e": {"takes": ["x"]}, "f": {"takes": ["y"]}, "g": {}}),
        "states": st.fixed_dictionaries(dict.fromkeys(STATES, _STATES)),
        "on": _ON,
        "reset": st.fixed_dictionaries({"keep": st.lists(st.sampled_from(SLOTS), max_size=1)}),
    }
)
HAPPENINGS = st.lists(
    st.tuples(st.sampled_from(EVENTS), st.integers(0, 2) | st.none(), st.sampled_from([0, 1, 5, 11, 30, -7])),
    max_size=12,
)


class Plain:
    """A dialog, as one would write it by hand."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.slots: dict[str, int] = {}
        self.reset()

    def reset(self) -> None:
        kept = {name: self.slots[name] for name in self.document["reset"]["keep"] if name in self.slots}
        self.slots = {"y": 0, **kept}
        self.enter("a")

    def enter(self, state: str) -> None:
        self.state = state
        self.waits = {"10s": 10, "20s": 20}.get(self.document["states"][state].get("timeout", {}).get("after"), 0)
        self.since = 0

    def time_passes(self, seconds: int) -> None:
        self.since += seconds
        if self.waits and self.since >= self.waits:
            if self.document["states"][self.state]["timeout"].get("reset"):
                self.reset()
            else:
                self.waits = 0

    def happens(self, event: str, brought: dict[str, int]) -> bool:
        ways = {**self.document["on"], **self.document["states"][self.state]["on"]}.get(event)
        seen = {**self.slots, **brought}
        for way in ways or []:
            if all(self._passes(seen.get(name), test) for name, test in way.get("when", {}).items()):
                if way.get("reset"):
                    self.reset()
                    self.slots |= {k: v for k, v in brought.items() if k in self.document["reset"]["keep"]}
                else:
                    gone = SLOTS if way.get("clear") == "all" else way.get("clear", [])
                    self.slots = {k: v for k, v in self.slots.items() if k not in gone}
                    self.slots |= way.get("set", {})
                    self.slots |= brought
                    self.enter(way.get("to", self.state))
                return True
        return False

    @staticmethod
    def _passes(value: int | None, test: Any) -> bool:
        if not isinstance(test, dict):
            return value == test
        [(operator, other)] = test.items()
        match operator:
            case "set":
                return (value is not None) == other
            case "at_least":
                return value is not None and value >= other
            case "in":
                return value is not None and value in other
            case _:
                assert operator == "is_not"
                return value is not None and value != other


async def _compared(url: str, document: dict[str, Any], happenings: list[tuple[str, int | None, int]]) -> None:
    clock = FrozenClock()
    database = await open_database(url, clock=clock)
    session_id = (await Sessions(database).create()).id
    dialogs = Dialogs(database)
    plain = Plain(document)
    # Random definitions have dead ends, which `load` refuses; what they do is defined all the same.
    definition, faults = parse(document)
    assert definition is not None, faults
    await dialogs.start(session_id, definition)
    for event, value, seconds in happenings:
        clock.move(seconds)
        plain.time_passes(seconds)
        slot = {"e": "x", "f": "y"}.get(event)
        brought = {slot: value} if slot and value is not None else {}
        state, taken = plain.state, plain.happens(event, brought)
        if taken:
            await dialogs.step(session_id, event, dict(brought))
        else:
            with pytest.raises(EventRefusedError) as refused:
                await dialogs.step(session_id, event, dict(brought))
            assert refused.value.details["state"] == state
            assert event not in str(refused.value.details["takes"]).split(", ") or slot is not None
        found = await dialogs.get(session_id)
        assert (found.state, found.slots) == (plain.state, plain.slots)
        assert bool(found.due_us) == bool(plain.waits)
    steps = await dialogs.steps(session_id, limit=200)
    assert [step.version for step in steps] == list(range(1, len(steps) + 1))
    for before, after in itertools.pairwise(steps):
        assert before.state == after.before
    await database.close()


@given(DOCUMENTS, HAPPENINGS)
@settings(max_examples=60)
def test_any_dialog_does_what_a_plain_model_does(document: dict[str, Any], happenings: Any) -> None:
    asyncio.run(_compared("memory://", document, happenings))


@pytest.mark.long
@given(DOCUMENTS, HAPPENINGS)
@settings(max_examples=4000)
def test_any_dialog_does_what_a_plain_model_does_for_long(document: dict[str, Any], happenings: Any) -> None:
    asyncio.run(_compared("memory://", document, happenings))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(), _nested := (
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=6), below, max_size=4)
), max_leaves=20))  # fmt: skip
@settings(max_examples=100)
def test_whatever_is_given_for_a_definition_is_told_not_crashed_on(document: Any) -> None:
    for one in (document, {"name": "n", "start": "s", "slots": document, "states": document, "on": document}):
        if isinstance(one, dict):
            definition, faults = examine(one)
            assert faults or definition is not None


@given(st.lists(st.tuples(st.sampled_from(sorted({*"abcdefgh"})), st.integers(0, 9)), max_size=3))
@settings(max_examples=20)
def test_a_step_changes_nothing_that_it_was_given(extra: list[tuple[str, int]]) -> None:
    definition = load({**_TYPED, "name": "typed"})
    position = rules.begin(definition, 0)
    slots = {"number": dict(extra).get("a", 1)}
    rules.step(definition, position, Event("go", slots), SECOND)
    assert position == rules.begin(definition, 0)
    assert slots == {"number": dict(extra).get("a", 1)}


_TYPED: dict[str, Any] = {
    "name": "typed",
    "start": "s",
    "slots": {"number": {"type": "number"}},
    "events": {"go": {"takes": ["number"]}},
    "states": {"s": {"on": {"go": "t"}}, "t": {"final": True}},
}


@pytest.mark.parametrize(
    ("slot", "good", "bad"),
    [
        (Slot(name="s", type="text", min=2, max=3), ["ab", "图图图"], ["a", "abcd", 1, None, True, ["ab"]]),
        (Slot(name="s", type="text", pattern="[a-c]+"), ["abc"], ["abd", "", "a" * 257]),
        (Slot(name="s", type="integer", min=1), [1, 10**18], [0, 1.0, True, "1", 2**63, 10**400]),
        (
            Slot(name="s", type="number", max=2),
            [1, 1.5, -3],
            [3, True, float("nan"), float("inf"), "1", -(10**400), -1e300],
        ),
        (Slot(name="s", type="boolean"), [True, False], [0, 1, "true", None]),
        (Slot(name="s", type="list", max=1), [[], [None]], [[1, 2], {}, "a"]),
        (Slot(name="s", type="object"), [{}, {"a": 1}], [[], None, "a"]),
        (Slot(name="s", type="any", choices=(1, "a", None)), [1, 1.0, "a", None], [True, 2, "b", [1]]),
    ],
)
def test_a_slot_takes_what_it_is_for(slot: Slot, good: list[Any], bad: list[Any]) -> None:
    assert [rules.fault(slot, value) for value in good] == [""] * len(good)
    assert [value for value in bad if not rules.fault(slot, value)] == []


def test_a_slot_of_the_wrong_type_names_slot_and_type() -> None:
    definition = load(_TYPED)
    with pytest.raises(InvalidError, match="slot 'number' takes a number, not text") as wrong:
        rules.step(definition, rules.begin(definition, 0), Event("go", {"number": "x"}), 0)
    assert wrong.value.field == "slots.number"
