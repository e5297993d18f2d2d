"""A hostile program against a live neighbour and a stand-in for the server, on every rung, with its control."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from alcove.sandbox.plan import Rung
from sandbox.attacks import ipv6
from sandbox.conftest import ATTACKS, ROOT, UIDS, World
from sandbox.verdicts import GROUPS, HELD, PAGE, page

# These take privileges that an ordinary user has on few machines, and the control has to be true on all.
PRIVILEGED = {
    *("open a raw socket", "open a packet socket", "load a BPF program", "watch by userfaultfd", "change the root"),
    *("open a file system", "enter its namespaces", "enter the server's namespaces"),
}


def _absent() -> set[str]:
    """What this machine has not: nobody can try it there, confined or not."""
    absent = set[str]() if ipv6() else {"connect by TCP over IPv6"}
    try:
        socket.socket(socket.AF_VSOCK).close()
    except OSError:
        absent.add("open a socket to the hypervisor")
    return absent


def held(rung: Rung) -> frozenset[str]:
    """What may succeed on a rung, here and now."""
    if rung == "landlock":
        return HELD["landlock, leased uid" if ROOT else "landlock, one user"]
    return HELD[rung]


async def attack(world: World, target: dict[str, Any], **changes: Any) -> dict[str, str]:
    outcome = await world.python(ATTACKS, stdin=json.dumps(target).encode(), **changes)
    assert outcome.stderr == b""
    return json.loads(outcome.stdout)


async def test_nothing_of_a_neighbour_or_of_the_server_can_be_touched(
    confined_world: World, confined: Rung, target: dict[str, Any]
) -> None:
    result = await attack(confined_world, target)
    assert {name for name, what in result.items() if what == "done"} == held(confined)
    assert set(result) == {name for names in GROUPS.values() for name in names}


async def test_the_same_attacks_succeed_where_nothing_confines(
    opened: Callable[..., Any], target: dict[str, Any]
) -> None:
    world = await opened("none")
    # As the server's user, and for what takes a capability that even root may lack, as the neighbour's.
    results = [await attack(world, target, uid=None)]
    if ROOT:
        results.append(await attack(world, target, uid=UIDS[1], write=(target["folder"],), cwd=target["folder"]))
    refused = {name for name in results[0] if all(result[name] != "done" for result in results)}
    assert refused - (set() if ROOT else PRIVILEGED) - _absent() == set()


def test_the_page_says_what_the_attacks_were_answered() -> None:
    text = PAGE.read_text("utf-8")
    assert text == page(text), "write it anew: cd tests && python -m sandbox.verdicts"
