"""What the audit costs: denials told and written, and a look through all of it."""

from __future__ import annotations

import asyncio
import tempfile
import time

from bench.starts import Numbers

_RUNS = 64  # each denied as many different things as are told apart


def audits() -> Numbers:
    """Denials a second until all are durable, different ones and repeated ones, and rows verified a second."""
    return asyncio.run(_measure())


async def _measure(rounds: int = 5) -> Numbers:
    import alcove
    from alcove import limits

    distinct: list[float] = []
    repeated: list[float] = []
    verified: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            async with alcove.open(f"sqlite:///{folder}/{turn}.db") as hub:
                grant = alcove.ask(resources={"tool": ["search"]})
                runs = [(await hub.runs.register("runner", grant=grant)).run.id for _ in range(_RUNS)]
                names = [f"other-{i}" for i in range(limits.AUDIT_DISTINCT_OF_SUBJECT - 1)]
                asked = [(run, name) for run in runs for name in names]
                distinct.append(len(asked) / await _told(hub, asked))
                again = asked * 25
                repeated.append(len(again) / await _told(hub, again))
                started = time.perf_counter()
                found = await hub.audit.verify()
                verified.append(found.rows / (time.perf_counter() - started))
                assert not found.findings
                told = sum([row.chained.times async for row in hub.audit.records()])
                assert told == _RUNS + len(asked) + len(again), told
    return {"distinct_per_s": max(distinct), "repeated_per_s": max(repeated), "verified_per_s": max(verified)}


async def _told(hub, asked: list[tuple[str, str]]) -> float:
    """Deny checks and wait until all of them are on the disk; return the seconds that took."""
    started = time.perf_counter()
    for number, (run, name) in enumerate(asked):
        assert not hub.runs.check(run, "tool", name, "call")
        if number % 1000 == 999:
            await asyncio.sleep(0)  # the server has others to answer
    await hub.audit.flush(everything=True)
    return time.perf_counter() - started
