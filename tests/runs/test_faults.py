"""Whatever statement of a transaction of runs fails, nothing of it has taken effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from alcove.database.idempotency import once
from alcove.database.op import Database
from alcove.errors import SessionBusyError
from alcove.events.model import NewEvent
from alcove.messages.model import Draft
from alcove.messages.rules import stored
from alcove.runs import queries, queue_queries, steering_queries
from alcove.runs.grants import Asked
from alcove.runs.model import Ending, NewRun, RunStatus
from alcove.runs.queue_queries import Wish
from alcove.sessions.heads import Fence
from alcove.sessions.service import Sessions
from alcove.testing.faults import FaultError, failing
from alcove.testing.rows import execute
from alcove.workspaces.model import Usage

TABLES = ("heads", "turns", "messages", "runs", "events", "idempotency", "workspaces", "grants", "queue", "steering")


async def test_a_transaction_that_fails_at_any_statement_changes_nothing(database: Database) -> None:
    session = await Sessions(database).create()
    said = stored(Draft("user", "hello"))
    lost = await database.write(queries.start, _new("lost", session.id), said, None)
    await execute(database, "UPDATE heads SET lease_until = 0")

    request = once(f"run:{session.id}", "key", b"body")
    started = await _whatever_fails(database, queries.start, _new("run", session.id), said, request)
    assert (started.epoch, started.turn, started.seq) == (2, 2, 2)
    assert started.lost == queries.Lost(lost.run_id, "")
    fence = Fence("run", 2)
    await _whatever_fails(database, queries.launched, started, fence, "tree", "userns", "{}", 3)
    await _whatever_fails(database, queries.journal, session.id, fence, 4, [NewEvent("output", {"text": "x"})], (2, 4))
    assert await _whatever_fails(database, queries.renew, session.id, fence) is None
    assert (await _whatever_fails(database, queries.ask_end, "run")).id == "run"
    assert await database.write(queries.renew, session.id, fence) is RunStatus.CANCELLED
    ending = Ending(status="finished", text="hi", exit_code=0, files=("a",))
    answer = stored(Draft("assistant", "hi"))
    taken = Usage(size_bytes=1, files=1)
    run = await _whatever_fails(database, queries.finish, started, fence, 5, ending, answer, taken)
    assert (run.status, run.answer_seq) == ("finished", 3)

    turns = await execute(database, "SELECT number, status FROM turns ORDER BY number")
    assert [tuple(turn) for turn in turns] == [(1, "lost"), (2, "done")]
    again = await database.write(queries.start, _new("third", session.id), said, None)
    assert again.lost is None
    assert await _whatever_fails(database, queries.lose, "third", "holder") is True
    await database.write(queries.start, _new("fourth", session.id), said, None)
    with pytest.raises(SessionBusyError, match="fourth"):
        await database.write(queries.start, _new("fifth", session.id), said, None)


async def test_a_queue_and_what_steers_a_run_change_whole_or_not_at_all(database: Database) -> None:
    session = await Sessions(database).create()
    said = stored(Draft("user", "hello"))
    lost = await database.write(queries.start, _new("lost", session.id), said, None)
    await database.write(queries.launched, lost, Fence("lost", 1), "tree", "userns", "{}", 3)
    wish = Wish(
        session_id=session.id,
        message="later",
        agent="shell",
        language=None,
        timeout_s=None,
        grant=Asked(),
        parent_run="",
        by="test",
    )
    request = once(f"run:{session.id}", "key", b"body")
    queued = await _whatever_fails(database, queue_queries.put, _new("queued", session.id), wish, False, request)
    assert (queued.run_id, queued.how) == ("queued", "queued")
    await _whatever_fails(database, steering_queries.put, "lost", "unread", "test", None)
    await execute(database, "UPDATE heads SET lease_until = 0")

    claimed = await _whatever_fails(database, queue_queries.claim, session.id, "holder")
    assert (claimed.run_id, claimed.wish, claimed.lost) == ("queued", wish, queries.Lost("lost", "tree"))
    assert [one.returned for one in await database.read(steering_queries.unread, "lost")] == [True]
    # Whoever claimed it dies, and the next one has to end the same tree.
    await execute(database, "UPDATE heads SET lease_until = 0")
    claimed = await database.write(queue_queries.claim, session.id, "holder")
    assert claimed is not None
    assert claimed.lost == queries.Lost("queued", "tree")
    started = await _whatever_fails(database, queries.begin, _new("queued", session.id), said, claimed.fence)
    assert (started.turn, started.seq, await database.read(queue_queries.first, session.id)) == (2, 2, None)

    join = once(f"run:{session.id}", "other", b"body")
    joined = await _whatever_fails(database, queue_queries.join, "queued", wish, join)
    assert (joined.run_id, joined.how) == ("queued", "steered")
    pulled = await _whatever_fails(database, queries.pull, started, claimed.fence, 3, 10)
    assert [(one.seq, one.text) for one in pulled.messages] == [(3, "later")]
    await database.write(queue_queries.put, _new("dropped", session.id), wish, True, None)
    ending = Ending(status=RunStatus.CANCELLED)
    assert await _whatever_fails(database, queue_queries.drop, "dropped", ending) is True
    assert await database.write(queue_queries.drop, "dropped", ending) is False


async def _whatever_fails(database: Database, operation: Callable[..., Any], *arguments: object) -> Any:
    """Fail at the first statement, then at the second, and so on, until there are no more; return the answer."""
    before = [sorted(await execute(database, f"SELECT * FROM {table}")) for table in TABLES]
    for at in range(1, 40):
        try:
            return await database.write(failing(operation, at), *arguments)
        except FaultError:
            assert [sorted(await execute(database, f"SELECT * FROM {table}")) for table in TABLES] == before
    raise AssertionError("too many statements")


def _new(run_id: str, session_id: str) -> NewRun:
    return NewRun(
        id=run_id,
        session_id=session_id,
        agent="shell",
        holder="holder",
        tenant="default",
        user_id="",
        parent_run="",
        root_run=run_id,
        grant_json="{}",
        cuts_json="[]",
        digest="digest",
    )
