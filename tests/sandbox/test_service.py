"""Which rung is chosen, what it is said to guarantee, and what happens when that is not enough."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alcove.errors import ConfigurationError, GuaranteeError
from alcove.sandbox import probe
from alcove.sandbox.attempts import ATTEMPTS
from alcove.sandbox.service import Sandbox
from alcove.sandbox.spawner import Spawner
from alcove.sandbox.vector import DEFAULT_MINIMUM, GUARANTEES, RungReport, Vector
from sandbox.conftest import ROOT, World, new_token, processes_with

ALL = Vector(**dict.fromkeys(GUARANTEES, True))
CONFINED = msgspec.structs.replace(ALL, limits=ROOT)  # what this machine gives: control groups to root


def report(rung: Any, vector: Vector = ALL, *, available: bool = True, failure: str = "") -> RungReport:
    return RungReport(rung=rung, available=available, vector=vector, holes={}, failure=failure, remedy="do this")


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the probe find what the test says."""

    def say(*reports: RungReport) -> None:
        async def found(*_: object, **__: object) -> tuple[RungReport, ...]:
            await asyncio.sleep(0)
            return (*reports, report("none", Vector()))

        monkeypatch.setattr(probe, "probe", found)

    return say


async def opened(**options: Any) -> Sandbox:
    sandbox = await Sandbox.open(**options)
    await sandbox.close()
    return sandbox


async def test_here_the_default_is_userns_and_keeps_everybody_out(base: Path) -> None:
    sandbox = await opened(canary=base)
    assert sandbox.rung == "userns"
    assert sandbox.vector == CONFINED
    assert {"file_read", "file_write", "metadata", "processes", "signals"} == DEFAULT_MINIMUM
    sandbox.require()
    assert list(base.iterdir()) == [], "the probe takes its folders away"


async def test_landlock_meets_the_minimum_with_leased_uids_and_says_what_is_missing_without(base: Path) -> None:
    sandbox = await opened(rung="landlock", canary=base)
    if ROOT:
        assert sandbox.vector == CONFINED
        sandbox.require()
        sandbox = await opened(rung="landlock", canary=base, uids=False)
    assert not sandbox.vector.metadata
    assert not sandbox.vector.ipc
    assert sandbox.vector.file_read
    assert sandbox.vector.file_write
    with pytest.raises(GuaranteeError, match="landlock does not guarantee") as missing:
        sandbox.require()
    assert missing.value.details["missing"] == "metadata"
    assert "root" in missing.value.remedy
    assert "lower the minimum" in missing.value.remedy


async def test_the_probe_finds_the_holes_of_an_unprotected_neighbour(base: Path) -> None:
    sandbox = await opened(canary=base, rung="none", uids=False)
    none = sandbox.report()[-1]
    assert none.rung == "none"
    assert none.vector == Vector()
    assert {name: set(names) for name, names in none.holes.items()} == {
        **{guarantee: set(tries) for guarantee, tries in ATTEMPTS.items()},
        "hosts": set(ATTEMPTS["network"]),
    }, "every attempt succeeds where nothing stops it, or the probe would prove nothing"


async def test_auto_takes_landlock_where_user_namespaces_are_closed(reported: Callable[..., None]) -> None:
    reported(report("userns", Vector(), available=False, failure="clone: Operation not permitted"), report("landlock"))
    assert (await opened()).rung == "landlock"


async def test_auto_takes_the_rung_that_meets_the_minimum(reported: Callable[..., None]) -> None:
    reported(report("userns", msgspec.structs.replace(ALL, signals=False)), report("landlock"))
    assert (await opened()).rung == "landlock"
    assert (await opened(minimum=frozenset({"network"}))).rung == "userns"


async def test_auto_never_takes_none_and_opening_never_fails(reported: Callable[..., None]) -> None:
    failure = "clone: Operation not permitted"
    reported(*(report(rung, Vector(), available=False, failure=failure) for rung in ("userns", "landlock")))
    sandbox = await opened()
    assert sandbox.rung == "userns"
    with pytest.raises(GuaranteeError, match=failure) as refused:
        sandbox.require()
    assert refused.value.remedy == "do this"


async def test_an_unavailable_rung_is_refused_whatever_the_minimum(reported: Callable[..., None]) -> None:
    reported(report("userns", Vector(), available=False, failure="no"), report("landlock"))
    sandbox = await opened(rung="userns", minimum=frozenset())
    with pytest.raises(GuaranteeError):
        sandbox.require()


async def test_a_run_below_the_minimum_is_refused_not_stepped_down(opened: Callable[..., Any]) -> None:
    world: World = await opened("none", minimum=frozenset({"network"}))
    with pytest.raises(GuaranteeError):
        await world.shell("true")


async def test_none_by_name_asks_for_nothing(base: Path) -> None:
    (await opened(rung="none", canary=base)).require()


async def test_an_unknown_guarantee_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="everything"):
        await Sandbox.open(minimum=frozenset({"everything"}))


@pytest.mark.skipif(not ROOT, reason="an ordinary user has no uids to lease")
async def test_a_root_server_does_not_confine_without_a_leased_uid(confined_world: World) -> None:
    with pytest.raises(ConfigurationError, match="leases a uid"):
        await confined_world.shell("true", uid=None)


@pytest.mark.skipif(ROOT, reason="root may lease")
async def test_an_ordinary_user_cannot_lease_uids(confined_world: World) -> None:
    with pytest.raises(ConfigurationError, match="root"):
        await confined_world.shell("true", uid=1_879_047_001)
    with pytest.raises(ConfigurationError, match="root"):
        await Sandbox.open(uids=True)


async def test_results_are_kept_until_something_changes(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = base / "rungs.json"
    first = await opened(cache=cache, canary=base)

    async def fail(*_: object, **__: object) -> None:
        raise AssertionError("it was probed again")

    monkeypatch.setattr(probe, "probe", fail)
    assert (await opened(cache=cache, canary=base)).report() == first.report()
    monkeypatch.setattr(probe.processes, "boot_id", lambda: "another boot")
    with pytest.raises(AssertionError, match="probed again"):
        await Sandbox.open(cache=cache, canary=base)


@pytest.mark.parametrize("content", [b"", b"not JSON", b'{"key": 3}'])
async def test_a_spoiled_cache_is_as_good_as_none(base: Path, content: bytes) -> None:
    cache = base / "rungs.json"
    cache.write_bytes(content)
    assert (await opened(cache=cache, canary=base)).vector == CONFINED


@pytest.mark.skipif(not ROOT, reason="only leased uids have to get past the owner")
async def test_a_base_that_leased_uids_cannot_get_to_makes_landlock_unavailable(base: Path) -> None:
    base.chmod(0o700)
    sandbox = await opened(rung="landlock", canary=base)
    with pytest.raises(GuaranteeError, match="lets only its owner pass") as refused:
        sandbox.require()
    assert "chmod o+x" in refused.value.remedy
    assert (await opened(canary=base)).rung == "userns"


async def test_a_spawner_that_cannot_start_leaves_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = new_token()
    monkeypatch.setattr("alcove.sandbox.service.Spawner", lambda: Spawner(f"raise SystemExit  # {token}"))
    with pytest.raises(Exception, match="warm spawner"):
        await Sandbox.open(canary=base)
    assert processes_with(token) == []
    assert os.listdir(base) == []
