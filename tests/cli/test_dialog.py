"""`alcove dialog check`, `draw` and `show`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import alcove
from alcove.testing.contract.dialogs import ORDER
from cli.conftest import Run, either, loaded

pytestmark = pytest.mark.usefixtures("frozen")


@pytest.fixture
def file(place: Path) -> str:
    (place / "order.json").write_text(json.dumps(ORDER, indent=1))
    return "order.json"


@pytest.fixture
def stepped(run: Run, frozen: Callable[[int], None]) -> str:
    """A session that waits for a place."""
    run("create", "--id", "order-1")
    frozen(60)

    async def step() -> None:
        async with alcove.open(workspaces=None) as hub:
            await hub.dialogs.define(ORDER)
            await hub.dialogs.start("order-1", "order")
            await hub.dialogs.step("order-1", "photo", {"image": "\x1b[2Ji"})

    asyncio.run(step())
    return "order-1"


def test_a_good_definition_passes_without_an_installation(run: Run, file: str, place: Path) -> None:
    assert run("dialog", "check", file).stdout == "order version 1: 3 states, 3 slots, no fault\n"
    told = loaded(run("dialog", "check", file, "--json"))
    assert (told["name"], told["version"], told["faults"]) == ("order", 1, [])
    assert [one.name for one in place.iterdir()] == [file]


def test_every_fault_has_its_line_and_the_exit_code_says_so(run: Run, place: Path) -> None:
    bad = json.dumps({**ORDER, "start": "idel", "extra": 1}, indent=1)
    (place / "bad.json").write_text(bad)
    result = run("dialog", "check", "bad.json", exit_code=2)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0] == "bad.json:3: start: there is no state 'idel'; did you mean 'idle'?"
    assert lines[-1].endswith("extra: is not known here; there are: name, version, description, start, slots, events, "
                              "states, on, reset, migrations")  # fmt: skip
    assert len(loaded(run("dialog", "check", "bad.json", "--json", exit_code=2))["faults"]) == len(lines)
    assert "cannot be read" in run("dialog", "check", "none.toml", exit_code=2).stderr


def test_a_definition_is_drawn(run: Run, file: str) -> None:
    drawn = run("dialog", "draw", file).stdout
    assert drawn.startswith("stateDiagram-v2\n")
    assert "    s0 --> s1 : photo\n" in drawn
    assert "note right of s1 : after 10m gave_up" in drawn


@either
def test_a_session_shows_where_it_is(run: Run, stepped: str, frozen: Callable[[int], None]) -> None:
    frozen(120)
    shown = run("dialog", "show", stepped[:5]).stdout
    assert "dialog\tstate\twaiting\n" in shown
    assert "dialog\ttakes\tplace, gave_up\n" in shown
    assert "dialog\ttimes out\tin 9m\n" in shown
    assert "\x1b" not in shown
    assert shown.splitlines()[-1].startswith("step\t2\tevent\tphoto\tidle\twaiting\t")
    told = loaded(run("dialog", "show", stepped, "--json"))
    assert (told["state"], told["slots"], [step["cause"] for step in told["last_steps"]]) == (
        "waiting", {"image": "\x1b[2Ji"}, ["start", "event"],
    )  # fmt: skip
    assert "class s1 here" in run("dialog", "draw", stepped).stdout


@either
def test_a_session_without_a_dialog_says_so(run: Run) -> None:
    run("create", "--id", "bare")
    assert "session bare has no dialog" in run("dialog", "show", "bare", exit_code=5).stderr
    assert run("dialog", "draw", "bare", exit_code=5).stderr.startswith("error: session bare has no dialog")
