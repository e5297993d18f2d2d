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
from alcove.runs import queries
from alcove.runs.model import Ending, NewRun
from alcove.sessions.heads import Fence
from alcove.sessions.service import Sessions
from alcove.testing.faults import FaultError, failing
from alcove.testing.rows import execute
from alcove.workspaces.model import Usage

TABLES = ("heads", "turns", "messages", "runs", "events", "idempotency", "workspaces", "grants")


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
    assert await _whatever_fails(database, queries.renew, session.id, fence) is False
    assert (await _whatever_fails(database, queries.ask_cancel, "run")).id == "run"
    assert await database.write(queries.renew, session.id, fence) is True
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
