"""Whether an agent's program works, by the check that its table declares, run confined."""

from __future__ import annotations

from pathlib import Path

import alcove.hub
from alcove.agents.catalog import Catalog
from alcove.settings.loading import load

TABLES = {
    "good": {"command": ["cat"], "check": ["bash", "-c", "exit 0"]},
    "bad": {"command": ["cat"], "check": ["bash", "-c", "echo no licence; exit 3"]},
    "nosy": {"command": ["cat"], "check": ["bash", "-c", "ls /root /home; test -r /etc/shadow"]},
    "missing": {"command": ["no-such-program"], "check": ["true"]},
    "unchecked": {"command": ["cat"]},
}


async def test_a_check_that_fails_makes_its_agent_unavailable_and_says_how(place: Path) -> None:
    catalog = Catalog(TABLES)
    async with alcove.hub.open(settings=load(place, {})) as hub:
        found = {name: await hub.workshop.check(catalog.get(name)) for name in TABLES}
        left = list((place / ".alcove" / "runs").iterdir())
    assert {name: info.available for name, info in found.items()} == {
        "good": True,
        "bad": False,
        "nosy": False,
        "missing": False,
        "unchecked": True,
    }
    assert found["bad"].reason == "bash: its check ended with code 3: no licence"
    assert "no-such-program" in found["missing"].reason
    assert left == []
