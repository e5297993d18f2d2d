"""A hostile program against a live neighbour and a stand-in for the server, on every rung, with its control."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from alcove.sandbox.plan import Rung
from sandbox.conftest import ATTACKS, ROOT, UIDS, World

# Where user namespaces are closed and no uid is leased, Landlock leaves these open; the vector says so.
OPEN_TO_AN_ORDINARY_USER = {"stat", "access", "enter", "touch", "chmod", "setxattr", "connect to its socket"}
# In a pid namespace, everybody is the run itself.
OWN = {"userns": {"signal everybody"}, "bwrap": {"signal everybody"}, "landlock": set[str]()}


async def attack(world: World, target: dict[str, Any], **changes: Any) -> dict[str, str]:
    outcome = await world.python(ATTACKS, stdin=json.dumps(target).encode(), **changes)
    assert outcome.stderr == b""
    return json.loads(outcome.stdout)


async def test_nothing_of_a_neighbour_or_of_the_server_can_be_touched(
    confined_world: World, confined: Rung, target: dict[str, Any]
) -> None:
    result = await attack(confined_world, target)
    done = {name for name, what in result.items() if what == "done"}
    allowed = OPEN_TO_AN_ORDINARY_USER if confined == "landlock" and not ROOT else set[str]()
    assert done - OWN[confined] == allowed
    assert len(result) == 59


async def test_the_same_attacks_succeed_where_nothing_confines(
    opened: Callable[..., Any], target: dict[str, Any]
) -> None:
    world = await opened("none")
    # As the server's user, and for what takes a capability that even root may lack, as the neighbour's.
    results = [await attack(world, target, uid=None)]
    if ROOT:
        results.append(await attack(world, target, uid=UIDS[1], write=(target["folder"],), cwd=target["folder"]))
    refused = {name for name in results[0] if all(result[name] != "done" for result in results)}
    # These take privileges that an ordinary user has on few machines, and the control has to be true on all.
    privileged = {"open a raw socket", "open a packet socket", "load a BPF program", "watch by userfaultfd"}
    assert refused - (set() if ROOT else privileged) == set()
