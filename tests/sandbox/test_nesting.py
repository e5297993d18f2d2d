"""A sandbox inside of ours: bubblewrap, as agents bring it, run by a program that may nest and by one that may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from alcove.errors import ConfigurationError, GuaranteeError
from alcove.sandbox.plan import Rung
from sandbox.conftest import ATTACKS, World
from sandbox.test_attacks import attack, held

INNER = (
    "bwrap --ro-bind / / --bind $PWD $PWD --proc /proc --dev /dev --unshare-all --die-with-parent -- "
    "sh -c 'echo inside; touch made && ls made; touch /usr/made'"
)

# What a sandbox needs, and what has power over nothing but its own namespaces.
ITS_OWN = {"new user namespace", "new mount namespace by clone", "mount", "open a file system", "change the root"}


@pytest.fixture(params=["userns", "bwrap"])
def rung(request: pytest.FixtureRequest) -> Rung:
    """Each rung in which a sandbox can be put."""
    return request.param


async def test_bubblewrap_starts_inside_of_a_run_that_may_nest(world: World) -> None:
    outcome = await world.shell(INNER, nest=True)
    assert outcome.stdout == b"inside\nmade\n"
    assert b"Read-only file system" in outcome.stderr


async def test_bubblewrap_does_not_start_inside_of_a_run_that_may_not(world: World) -> None:
    outcome = await world.shell(INNER)
    assert outcome.stdout == b""
    assert b"namespace" in outcome.stderr


async def test_nothing_of_a_neighbour_can_be_touched_by_a_program_that_may_nest(
    world: World, rung: Rung, target: dict[str, Any]
) -> None:
    result = await attack(world, target, nest=True)
    done = {name for name, what in result.items() if what == "done"}
    assert done - held(rung) <= ITS_OWN


async def test_nothing_of_a_neighbour_can_be_touched_from_the_inner_sandbox(
    world: World, rung: Rung, target: dict[str, Any]
) -> None:
    """There the program has every capability over namespaces of its own."""
    inner = ("bwrap", "--dev-bind", "/", "/", "--unshare-user", "--cap-add", "ALL", "--")
    outcome = await world.run(
        *inner, "/usr/bin/python3", "-I", "-S", "-c", ATTACKS, stdin=json.dumps(target).encode(), nest=True
    )
    result = json.loads(outcome.stdout)
    done = {name for name, what in result.items() if what == "done"}
    assert done - held(rung) <= ITS_OWN


async def test_no_sandbox_nests_on_landlock(opened: Callable[..., Any]) -> None:
    world: World = await opened("landlock")
    with pytest.raises(ConfigurationError, match="landlock") as refused:
        await world.shell(INNER, nest=True)
    assert "inner_sandbox" in refused.value.remedy


async def test_a_nesting_run_needs_the_minimum_too(world: World) -> None:
    report = world.sandbox.report()
    assert all(one.nested == one.vector for one in report if one.rung in {"userns", "bwrap"})
    world.sandbox.minimum = frozenset({"network"})
    world.sandbox._report = next(one for one in report if one.rung == "landlock")
    with pytest.raises(GuaranteeError):
        world.sandbox.require(nest=True)
