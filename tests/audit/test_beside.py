"""Acts of every kind at once, with verification and removal beside them: one chain, no deadlock, nothing found."""

from __future__ import annotations

import asyncio

import pytest

import alcove
from alcove import limits
from alcove.hub import Alcove


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUDIT_PAGE", 7)
    monkeypatch.setattr(limits, "AUDIT_REMOVED", 5)


async def _keys(hub: Alcove) -> None:
    key = (await hub.keys.create()).key
    await hub.keys.revoke(key.id)


async def _runs(hub: Alcove) -> None:
    run = (await hub.runs.register("r")).run
    for name in range(5):
        hub.runs.check(run.id, "tool", str(name))
    await hub.audit.flush()
    await hub.runs.revoke(run.id)


async def _sessions(hub: Alcove) -> None:
    session = await hub.sessions.create()
    await hub.runs.set_ceiling(session.id, alcove.bound(storage=[]))
    run = (await hub.runs.register("r", session_id=session.id)).run
    await hub.sessions.delete(session.id)
    await hub.sessions.restore(session.id)
    await hub.runs.revoke(run.id)
    await hub.sessions.delete(session.id, purge=True)


async def test_acts_at_once_make_one_chain_whoever_looks_through_it(database_url: str) -> None:
    async with alcove.open(database_url) as hub:
        working = True

        async def verify() -> int:
            times = 0
            while working:
                assert (await hub.audit.verify()).findings == ()
                times += 1
                await asyncio.sleep(0)
            return times

        async def remove() -> int:
            gone = 0
            while working:
                gone += await hub.audit.sweep(rows=40)
                await asyncio.sleep(0.01)
            return gone

        beside = [asyncio.create_task(verify()), asyncio.create_task(remove())]
        await asyncio.gather(*(act(hub) for act in (_keys, _runs, _sessions) for _ in range(12)))
        working = False
        times, gone = await asyncio.gather(*beside)
        assert times > 1
        assert gone > 20
        found = await hub.audit.verify()
        assert (found.nodes, found.findings) == (1, ())
