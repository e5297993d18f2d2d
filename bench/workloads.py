"""What is measured: each workload runs in a fresh process on a fresh folder, and checks what it wrote or read."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.stores import STORES, Message, Ours, Store

TEXT = 'He said: "don\'t\nworry" \u2014 \u4f60\u597d, r\u00e9sum\u00e9.\n' * 6  # about 300 bytes as UTF-8
Numbers = dict[str, float]


def say(i: int) -> str:
    return f"{i} {TEXT}"


async def check(store: Store, handle: object, turns: int) -> None:
    """Compare the last messages with what was written; raises AssertionError."""
    expected: list[Message] = []
    for i in range(max(0, turns - 10), turns):
        expected += [("user", say(i)), ("assistant", say(i))]
    found = await store.last(handle, len(expected))
    assert found == expected, f"{store.name} did not give back what was written"


async def many(store: Store, *, sessions: int = 200, turns: int = 20, tasks: int = 64) -> Numbers:
    """200 sessions of 20 turns from 64 tasks: turns a second."""
    handles = [await store.session(f"u{i % 20}", f"s{i}") for i in range(sessions)]

    async def work(start: int) -> None:
        for handle in handles[start::tasks]:
            for i in range(turns):
                await store.append(handle, say(i), say(i))

    started = time.perf_counter()
    await asyncio.gather(*(work(start) for start in range(tasks)))
    took = time.perf_counter() - started
    for handle in handles[:: sessions // 10]:
        await check(store, handle, turns)
    return {"per_s": sessions * turns / took}


async def alone(store: Store, turns: int = 1500) -> Numbers:
    """One session, one task: turns a second."""
    handle = await store.session("u", "s")
    for i in range(100):
        await store.append(handle, say(i), say(i))
    started = time.perf_counter()
    for i in range(100, turns):
        await store.append(handle, say(i), say(i))
    took = time.perf_counter() - started
    await check(store, handle, turns)
    return {"per_s": (turns - 100) / took}


async def length(store: Store, turns: int = 400) -> Numbers:
    """The cost of a turn in a session of 100,000 messages over that in one of 100, interleaved in one store."""
    store.fill([("u", "short", 100), ("u", "long", 100_000)], TEXT)
    costs: dict[str, list[float]] = {"short": [], "long": []}
    for i in range(turns):
        for sid, times in costs.items():
            started = time.perf_counter()
            await store.append(sid, say(i), say(i))
            times.append(time.perf_counter() - started)
    for sid in costs:
        await check(store, sid, turns)
    return {"ratio": statistics.median(costs["long"]) / statistics.median(costs["short"])}


async def last(store: Store, reads: int = 500) -> Numbers:
    """The last 20 of 100,000 messages: milliseconds."""
    store.fill([("u", "long", 100_000), ("u", "other", 10_000)], TEXT)
    handle = await store.session("u", "long")
    times: list[float] = []
    for _ in range(reads):
        started = time.perf_counter()
        found = await store.last(handle, 20)
        times.append(time.perf_counter() - started)
        assert [text for _, text in found] == [TEXT] * 20
    return {"ms": statistics.median(times) * 1000}


async def listing(store: Store, reads: int = 300) -> Numbers:
    """The 50 sessions of one user among 100,000: milliseconds."""
    store.fill(((f"u{i % 2000}", f"s{i}", 0) for i in range(100_000)), TEXT)
    times: list[float] = []
    for _ in range(reads):
        started = time.perf_counter()
        found = await store.sessions_of("u7")
        times.append(time.perf_counter() - started)
        assert len(found) == 50
    numbers = {"ms": statistics.median(times) * 1000}
    if isinstance(store, Ours):
        times.clear()
        plain: list[float] = []
        for _ in range(reads):
            started = time.perf_counter()
            assert await store.records_of("u7") == 50
            times.append(time.perf_counter() - started)
            started = time.perf_counter()
            assert store.raw_records_of("u7") == 50
            plain.append(time.perf_counter() - started)
        numbers["records_ms"] = statistics.median(times) * 1000
        numbers["raw_records_ms"] = statistics.median(plain) * 1000
    return numbers


async def window(store: Store, reads: int = 300) -> Numbers:
    """A window of 10 rounds out of 100,000 messages over the same query in plain `sqlite3`; and one of 8,000 tokens."""
    assert isinstance(store, Ours)
    store.fill([("u", "long", 100_000)], TEXT)
    with sqlite3.connect(store.path) as raw:
        query = (
            "SELECT m.seq, m.turn, m.role, m.format, m.content, m.detail, m.hidden, m.created_at, m.kept, t.status "
            "FROM heads h JOIN messages m ON m.session_id = h.session_id "
            "LEFT JOIN turns t ON t.session_id = m.session_id AND t.number = m.turn WHERE h.session_id = 'long' "
            "AND h.trashed = 0 AND m.hidden = 0 AND m.seq > h.cleared_seq ORDER BY m.seq DESC LIMIT 20"
        )
        times: dict[str, list[float]] = {"raw": [], "ours": [], "tokens": []}
        for _ in range(reads):
            started = time.perf_counter()
            rows = raw.execute(query).fetchall()
            times["raw"].append(time.perf_counter() - started)
            started = time.perf_counter()
            shown = await store.messages.window("long", rounds=10)
            times["ours"].append(time.perf_counter() - started)
            assert [one.seq for one in shown] == [row[0] for row in rows][::-1]
            started = time.perf_counter()
            fitting = await store.messages.window("long", tokens=8000)
            times["tokens"].append(time.perf_counter() - started)
            assert 7000 < (fitting.tokens or 0) <= 8000
    middle = {name: statistics.median(found) for name, found in times.items()}
    return {"over_raw": middle["ours"] / middle["raw"], "tokens_ms": middle["tokens"] * 1000}


async def searched(store: Store, *, sessions: int = 200, turns: int = 20, tasks: int = 64) -> Numbers:
    """Appends with search on, until the index has caught up, over those with it off; and a search of what is there.

    The text is of 20,000 words that are as frequent as words are: an index of one text said again costs little.
    """
    from alcove.database.aside import AsideDatabase
    from alcove.search.service import Search

    assert isinstance(store, Ours)
    chance = random.Random(1)
    words = [f"w{number:x}" for number in range(20_000)]
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    texts = [" ".join(chance.choices(words, cum_weights=weights, k=70)) for _ in range(2000)]
    search = Search(store.db, AsideDatabase(store.path + ".search"))

    async def all_turns(prefix: str) -> float:
        names = [await store.session("u", f"{prefix}{number}") for number in range(sessions)]
        await search.catch_up()

        async def work(start: int) -> None:
            for name in names[start::tasks]:
                for _ in range(turns):
                    await store.messages.append_turn(name, texts[chance.randrange(2000)], texts[chance.randrange(2000)])

        started = time.perf_counter()
        following = asyncio.create_task(search.follow()) if prefix == "on" else None
        await asyncio.gather(*(work(start) for start in range(tasks)))
        if following:
            await search.catch_up()
            assert await search.lag() == 0
            following.cancel()
        return time.perf_counter() - started

    off, on = await all_turns("off"), await all_turns("on")
    started = time.perf_counter()
    found = await search.find("w1f w2a")
    took = time.perf_counter() - started
    assert found.hits
    await search.close()
    return {"on_over_off": off / on, "find_ms": took * 1000}


async def memory(store: Store) -> Numbers:
    """10,000 sessions of 20 messages in store, 100 of them read: MiB resident."""
    store.fill(((f"u{i % 200}", f"s{i}", 20) for i in range(10_000)), TEXT)
    kept = [await store.last(await store.session("u", f"s{i}"), 20) for i in range(0, 10_000, 100)]
    assert len(kept) == 100
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return {"mib": pages * os.sysconf("SC_PAGESIZE") / 2**20}


async def processes(store: Store, *, shared: bool, workers: int = 4, sessions: int = 50, turns: int = 20) -> Numbers:
    """4 processes, each 8 tasks on 50 sessions, their own or the same ones: turns a second; lost ones counted."""
    names = [f"s{i}" for i in range(sessions * (1 if shared else workers))]
    for name in names:
        await store.session("u", name)
    await store.close()
    own = [names if shared else names[i * sessions : (i + 1) * sessions] for i in range(workers)]
    turns = 5 if shared else turns
    started = time.perf_counter()
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "bench", "writer", store.name, str(Path(store.path).parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in own
    ]
    for child in children:
        assert child.stdout
        child.stdout.readline()
    started = time.perf_counter()
    for child, mine in zip(children, own, strict=True):
        assert child.stdin
        child.stdin.write(json.dumps([mine, turns]).encode() + b"\n")
        child.stdin.flush()
    for child in children:
        assert child.stdout
        answer = child.stdout.readline()
        assert answer == b"done\n", answer
    took = time.perf_counter() - started
    for child in children:
        child.communicate()
    await store.open()
    total = sum(len(mine) for mine in own) * turns
    kept = sum([len(await store.last(await store.session("u", name), 1000)) for name in names]) // 2
    assert kept == total, f"{store.name} lost {total - kept} of {total} acknowledged turns"
    return {"per_s": total / took}


async def writer(store: Store) -> None:
    """One of the processes of `processes`."""
    handles: dict[str, object] = {}
    print("ready", flush=True)
    mine, turns = json.loads(sys.stdin.readline())

    async def work(start: int) -> None:
        for name in mine[start::8]:
            handle = handles.get(name) or await store.session("u", name)
            for i in range(turns):
                await store.append(handle, say(i), say(i))

    await asyncio.gather(*(work(start) for start in range(8)))
    print("done", flush=True)


async def dialog(store: Ours, *, sessions: int = 64, turns: int = 60) -> Numbers:
    """A dialog's step with two messages over an append of the same two: one task's and 64 tasks' times, as ratios."""
    from alcove.dialogs.service import Dialogs
    from alcove.messages.model import Draft

    dialogs = Dialogs(store.db)
    await dialogs.define(_ORDER)
    names = [await store.session(f"u{i}", f"s{i}") for i in range(sessions)]
    for name in names:
        await dialogs.start(name, "order")
    photo, place = ("photo", {"image": "key-of-an-image"}), ("place", {"place": "building 2, room 14"})

    async def step(name: str, i: int) -> None:
        event, slots = (photo, place)[i % 2]
        await dialogs.step(name, event, slots, messages=[Draft("user", say(i)), Draft("assistant", say(i))])

    async def append(name: str, i: int) -> None:
        await store.messages.append_turn(name, say(i), say(i))

    async def took(names: list[str], call: Callable[[str, int], Awaitable[None]], turns: int) -> float:
        async def work(name: str) -> None:
            for i in range(turns):
                await call(name, i)

        started = time.perf_counter()
        await asyncio.gather(*map(work, names))
        return time.perf_counter() - started

    ratios: dict[str, list[float]] = {"alone": [], "many": []}
    for _ in range(5):  # in turn, because the machine has moods
        for number, some, count in (("alone", names[:1], turns * 4), ("many", names, turns)):
            appended = await took(some, append, count)
            ratios[number].append(await took(some, step, count) / appended)
    state = await dialogs.get(names[0])
    assert (state.state, state.version) == ("idle", 1 + 5 * turns * 5)
    return {name: statistics.median(values) for name, values in ratios.items()}


_ORDER = {
    "name": "order",
    "start": "idle",
    "slots": {"image": "text", "place": {"type": "text", "min": 2}},
    "events": {"photo": {"needs": ["image"]}, "place": {"needs": ["place"]}},
    "states": {
        "idle": {"on": {"photo": "waiting"}},
        "waiting": {"on": {"place": {"to": "idle", "clear": "all"}}, "timeout": {"after": "10m", "reset": True}},
    },
}


async def live(store: Ours, *, users: int = 100_000, calls: int = 20_000, tasks: int = 64) -> Numbers:
    """100,000 live users: get-or-create from 64 tasks, a second; and the making of all of them."""
    numbers: Numbers = {}
    for number, count in (("made_per_s", users), ("per_s", calls)):

        async def work(start: int, count: int) -> int:
            found = 0
            for i in range(start, count, tasks):
                found += (await store.sessions.live(f"user-{i * 7919 % users}", app="bot", ttl_s=600))[1]
            return found

        started = time.perf_counter()
        made = sum(await asyncio.gather(*(work(start, count) for start in range(tasks))))
        numbers[number] = count / (time.perf_counter() - started)
        assert made == (users if number == "made_per_s" else 0)
    assert await store.sessions.active_count(app="bot") == users
    return numbers


WORKLOADS: dict[str, Callable[[Store], Awaitable[Numbers]]] = {
    "many": many,
    "alone": alone,
    "length": length,
    "last": last,
    "listing": listing,
    "memory": memory,
    "dialog": lambda store: dialog(_ours(store)),
    "live": lambda store: live(_ours(store)),
    "window": window,
    "searched": searched,
    "own": lambda store: processes(store, shared=False),
    "shared": lambda store: processes(store, shared=True),
}


def _ours(store: Store) -> Ours:
    assert isinstance(store, Ours), "the others have no such thing"
    return store


async def run(workload: str, store_name: str, folder: str) -> None:
    """Run one workload on one store and print its numbers as JSON."""
    store = STORES[store_name](Path(folder))
    await store.open()
    durability = await store.durability()
    numbers = await WORKLOADS[workload](store)
    await store.close()
    print(json.dumps({"durability": durability, **numbers}))
