"""What is wrong with a definition is found when it is loaded, all of it, each with its line and its name."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from alcove import limits
from alcove.dialogs.drawing import mermaid
from alcove.dialogs.loading import decoded, examine, load
from alcove.dialogs.places import json_places, toml_places
from alcove.errors import DefinitionError

GOOD = """\
name = "order"
start = "idle"
[slots]
image = "text"
count = { type = "integer", min = 1, max = 9 }
[events.photo]
needs = ["image"]
takes = ["count"]
[events.yes]
[states.idle]
on.photo = "waiting"
[states.waiting]
on.yes = [{ to = "done", when = { count = { at_least = 2 } } }, { to = "idle", clear = "all" }]
timeout = { after = "10m", event = "yes" }
[states.done]
final = true
"""


def test_a_good_definition_has_no_fault() -> None:
    definition, faults = examine(GOOD)
    assert faults == []
    assert definition is not None
    assert (definition.name, definition.number, definition.start) == ("order", 1, "idle")
    assert definition.states["waiting"].on["yes"][1].clear == ("image", "count")
    assert definition.states["waiting"].timeout is not None
    assert definition.states["waiting"].timeout.after_us == 600_000_000


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ('start = "idle"', 'start = "idel"', 2, "start: there is no state 'idel'; did you mean 'idle'?"),
        ('start = "idle"\n', "", None, "start: has to be a text that is not empty"),
        ('name = "order"', "name = 3", 1, "name: has to be a text"),
        ('name = "order"', 'name = "free-form"', 1, "is the name of no definition"),
        ('name = "order"', 'name = "o"\nversion = 0', 2, "version: has to be a whole number from 1"),
        ('name = "order"', 'name = "o"\nsatrt = "idle"', 2, "satrt: is not known here; did you mean 'start'?"),
        ('on.photo = "waiting"', 'on.photo = "waitin"', 11, "there is no state 'waitin'; did you mean 'waiting'?"),
        ('on.photo = "waiting"', 'on.phto = "waiting"', 11, "there is no event 'phto'; did you mean 'photo'?"),
        ('image = "text"', 'image = "string"', 4, "there is no type 'string'; say 'text'"),
        ('image = "text"', "image = {}", 4, "slots.image.type: needs a type"),
        ('image = "text"', 'image = { type = "text", pattern = "(a+)+" }', 4, "may take for ever"),
        ('image = "text"', 'image = { type = "text", pattern = "(" }', 4, "is not a regex"),
        ('image = "text"', 'image = { type = "boolean", min = 1 }', 4, "a slot of type boolean has no min"),
        ('image = "text"', 'image = { type = "text", choices = [1] }', 4, "choices[0]: takes text, not an integer"),
        ('image = "text"', 'image = { type = "text", default = 1 }', 4, "default: takes text, not an integer"),
        ("min = 1, max = 9", "min = 9, max = 1", 5, "max: is below min, 9"),
        ('image = "text"', 'image = "text"\nloose = "text"', 5, "slots.loose: is never set"),
        ("[events.yes]", "[events.yes]\n[events.never]", 10, "events.never: is never taken"),
        ('needs = ["image"]', 'needs = ["imag"]', 7, "there is no slot 'imag'; did you mean 'image'?"),
        ("[states.done]", "[states.island]\non.yes = 'done'\n[states.done]", 15, "island: is unreachable"),
        ("final = true", "", 15, "states.done: is a dead end"),
        ("final = true", "final = true\non.yes = 'idle'", 15, "is final, so nothing happens in it"),
        ("final = true", "final = 1", 16, "final: has to be true or false"),
        ("count = { at_least = 2 }", "cuont = 2", 13, "there is no slot 'cuont'; did you mean 'count'?"),
        ("at_least = 2", "atleast = 2", 13, "there is no comparison 'atleast'; did you mean 'at_least'?"),
        ("at_least = 2", 'at_least = "2"', 13, "at_least: has to be a number"),
        ("at_least = 2", "is = 99", 13, "can never be: slot 'count' takes at most 9, not 99"),
        ("count = { at_least = 2 }", "image = { above = 2 }", 13, "compares numbers, and slot 'image' is of type text"),
        ("at_least = 2", "in = []", 13, "in: has to be a list that is not empty"),
        ("at_least = 2", "set = 1", 13, "set: has to be true or false"),
        ('to = "done", when = { count = { at_least = 2 } }', 'to = "done"', 13, "is never looked at"),
        ('clear = "all"', 'clear = ["all"]', 13, "there is no slot 'all'"),
        ('clear = "all"', 'clear = "all", keep = ["image"]', 13, "`clear` and `keep` exclude each other"),
        ('clear = "all"', 'set = { count = "x" }', 13, "set.count: takes an integer, not text"),
        ('clear = "all"', "reset = true", 13, "resets, so it has no `to`"),
        ('event = "yes" }', 'event = "photo" }', 14, "leads to nowhere: the state takes no event 'photo'"),
        (', event = "yes" }', " }", 14, "has no effect"),
        ('event = "yes" }', 'event = "yes", reset = true }', 14, "`event` and `reset` exclude each other"),
        ('after = "10m"', "after = 10", 14, "after: has to be a text"),
        ('after = "10m"', 'after = "ten"', 14, "'ten' is not a duration"),
        ('after = "10m"', 'after = "never"', 14, "has to be longer than nothing"),
        ('[events.photo]\nneeds = ["image"]', '[events.photo]\nneeds = "image"', 7, "has to be a list of slots"),
        ("final = true", "final = true\n[reset]\nkeep = ['img']", 18, "there is no slot 'img'"),
        ("final = true", "final = true\n[migrations.1]", 17, "has to be the number of a version before 1"),
        ("final = true", "final = ", 16, "not TOML"),
    ],
)
def test_a_fault_is_found_and_its_line_is_named(old: str, new: str, line: int | None, told: str) -> None:
    assert old in GOOD
    _, faults = examine(GOOD.replace(old, new, 1))
    matching = [fault for fault in faults if told in fault]
    assert matching, faults
    where = f"the definition:{line}: " if line else "the definition: "
    assert matching[0].startswith(where), faults


def test_a_timeout_cannot_bring_slots() -> None:
    text = GOOD.replace('event = "yes" }', 'event = "photo" }').replace("on.yes = [", 'on.photo = "idle"\non.yes = [')
    assert any("has to bring slots, and a timeout brings none" in fault for fault in examine(text)[1])


def test_all_faults_are_told_in_the_order_of_their_lines() -> None:
    text = GOOD.replace('"waiting"', '"wait"').replace('image = "text"', 'image = "txt"').replace("10m", "x")
    faults = examine(text)[1]
    assert [int(fault.split(":")[1]) for fault in faults] == [4, 11, 14]
    with pytest.raises(DefinitionError) as refused:
        load(text)
    assert refused.value.message.splitlines() == faults
    assert refused.value.details["faults"] == 3


def test_json_and_python_say_the_same_as_toml(tmp_path: Path) -> None:
    document = tomllib.loads(GOOD)
    file = tmp_path / "order.json"
    file.write_text(json.dumps(document, indent=2))
    by_toml, by_json, by_python = load(GOOD), load(file), load(document)
    assert by_toml == by_json == by_python
    assert decoded(by_toml.source) == by_toml
    document["states"]["idle"]["on"]["photo"] = "nowhere"
    text = json.dumps(document, indent=2)
    file.write_text(text)
    line = next(i for i, one in enumerate(text.splitlines(), 1) if "nowhere" in one)
    assert examine(file)[1][0].startswith(f"{file}:{line}: states.idle.on.photo: there is no state 'nowhere'")
    assert examine(document)[1][0].startswith("states.idle.on.photo: there is no state 'nowhere'")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", '{\n"name": 1,\n"name": 2}', "a.json:3: the key 'name' stands twice"),
        ("a.json", '{\n"name": }', "a.json:2: not JSON"),
        ("a.json", "[" * 100_000, "is nested too deep"),
        ("a.json", "[]", "has to be a table"),
        ("a.toml", "name = 1\nname = 2\n", "a.toml:2: not TOML"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    assert told in "\n".join(examine(tmp_path / name)[1])


def test_what_is_no_file_or_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="cannot be read"):
        load(tmp_path / "nothing.toml")
    with pytest.raises(DefinitionError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DefinitionError, match="cannot be read"):
        load(tmp_path / "bytes.toml")
    (tmp_path / "long.toml").write_text("#" * (limits.DIALOG_BYTES + 1))
    with pytest.raises(DefinitionError, match="longer than"):
        load(tmp_path / "long.toml")
    with pytest.raises(DefinitionError, match="is not JSON"):
        load({"name": object()})


def test_a_definition_that_is_much_larger_than_it_looks_is_refused() -> None:
    document: dict[str, Any] = {"name": "n", "start": "s0", "states": {f"s{i}": {} for i in range(200)}}
    document["on"] = {f"e{i}": [{"reset": True}] * 3 for i in range(20)}
    assert examine(document)[1] == ["on: makes 12000 transitions, one in each state; at most 10000"]


_NAMES = st.text("abc_-.\"'\\ 图\n", min_size=1, max_size=4)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.booleans() | st.text(max_size=4),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(_NAMES, below, max_size=3),
    max_leaves=8,
)


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return {path} | {found for key, one in value.items() for found in _paths(one, (*path, key))}
    if isinstance(value, list):
        return {path} | {found for i, one in enumerate(value) for found in _paths(one, (*path, i))}
    return {path}


@given(st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_every_key_of_any_json_has_its_line(document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=1)
    assert set(json_places(text)) == _paths(document) - {()}


@given(st.dictionaries(_NAMES, _VALUES, max_size=4))
def test_every_key_of_any_toml_has_its_line(document: dict[str, Any]) -> None:
    text = "".join(f"{json.dumps(key)} = {_toml(value)} # ]}}\n" for key, value in document.items())
    assert tomllib.loads(text) == document
    places = toml_places(text)
    assert set(places) == _paths(document) - {()}
    assert [places[key,] for key in document] == list(range(1, len(document) + 1))


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    # TOML has no pairs of surrogates, and no delete as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def test_tables_of_tables_and_long_texts_have_their_lines() -> None:
    text = 'a = """\nx = 1\n"""\n[[b]]\nc = 1\n[b.d]\ne = 2\n[[b]]\nc.f = [\n 1,\n 2]\n'
    assert tomllib.loads(text)["b"][1] == {"c": {"f": [1, 2]}}
    places = toml_places(text)
    assert places["a",] == 1
    assert (places["b", 0], places["b", 0, "c"], places["b", 0, "d", "e"]) == (4, 5, 7)
    assert (places["b", 1], places["b", 1, "c", "f", 1]) == (8, 11)


def test_a_picture_has_every_state_and_way() -> None:
    assert mermaid(load(GOOD), "waiting") == (
        "stateDiagram-v2\n"
        "    %% order version 1\n"
        '    state "idle" as s0\n'
        '    state "waiting" as s1\n'
        '    state "done" as s2\n'
        "    [*] --> s0\n"
        "    s0 --> s1 : photo\n"
        "    s1 --> s2 : yes [count at least 2]\n"
        "    s1 --> s0 : yes\n"
        "    note right of s1 : after 10m yes\n"
        "    s2 --> [*]\n"
        "    classDef here stroke-width:4px\n"
        "    class s1 here\n"
    )


def test_a_name_cannot_break_out_of_the_picture() -> None:
    drawn = mermaid(load(GOOD.replace("done", 'x\\"; y %% <z> : #')) if "'" in GOOD else load(_named('x"; y <z> : #')))
    assert '"x#34;#59; y #60;z#62; #58; #35;" as s2' in drawn


def _named(name: str) -> dict[str, Any]:
    document = tomllib.loads(GOOD)
    document["states"][name] = document["states"].pop("done")
    document["states"]["waiting"]["on"]["yes"][0]["to"] = name
    return document
