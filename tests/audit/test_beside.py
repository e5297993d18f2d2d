"""Acts of every kind at once, with verification and removal beside them: one chain, no deadlock, nothing found."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import alcove
from alcove import limits
from alcove.audit import queries
from alcove.audit.keeping import Kept, KeyFile
from alcove.audit.seals import Seals
from alcove.audit.service import Audit
from alcove.audit.verifying import Verifying
from alcove.database.op import Database
from alcove.hub import Alcove
from alcove.principals.service import Keys


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


class _Removing:
    """A database in which every row but the last goes after each read, as another process may remove them."""

    def __init__(self, database: Database, seals: Seals) -> None:
        self._database = database
        self._seals = seals

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def read(self, *asked: Any) -> Any:
        answer = await self._database.read(*asked)
        await self._database.write(queries.remove, self._seals, 2**60, 1, 100)
        return answer


async def test_a_checkpoint_whose_row_goes_by_its_age_meanwhile_is_no_sign_of_an_older_copy(
    database_url: str, tmp_path: Path
) -> None:
    async with alcove.open(database_url) as hub:
        kept = KeyFile(tmp_path)
        audit = Audit(hub.database, "here", files=kept)
        keys = Keys(hub.database, audit=audit)
        await keys.create()
        await audit.checkpoint()
        await keys.create()
        seals = audit.witness("").seals
        removing: Any = _Removing(hub.database, seals)
        assert await Verifying(removing, "here").judge_kept(Kept(kept).checkpoint(), seals) == []
        assert [row.chained.n for row in (await audit.list()).rows] == [2], "it went"
