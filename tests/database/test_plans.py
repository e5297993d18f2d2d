"""The statements that must not get slower as a database grows: each seeks in an index, none sorts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from alcove.audit import queries as audit
from alcove.audit.model import AuditFilters
from alcove.audit.seals import Seals
from alcove.database.op import Statement, Steps
from alcove.database.opening import open_database
from alcove.dialogs import history, queries as dialogs
from alcove.janitor import queries as janitor
from alcove.janitor.model import Choice, Span, What
from alcove.messages import queries as messages
from alcove.messages.model import Stored
from alcove.messages.windows import Bounds
from alcove.pages import encode_cursor
from alcove.runs import approval_queries as approvals
from alcove.runs.approval_queries import ApprovalFilters
from alcove.sessions import queries as sessions
from alcove.sessions.model import Filters

NOW = 1_700_000_000_000_000
CURSOR = encode_cursor(NOW, "x")
DRAFTS = [Stored("user", 0, "a", ""), Stored("assistant", 0, "b", "")]


@pytest.fixture
async def connection(tmp_path: Path) -> apsw.Connection:
    path = tmp_path / "alcove.db"
    await (await open_database(f"sqlite:///{path}")).close()
    return apsw.Connection(str(path))


def _main(steps: Steps[Any]) -> Statement:
    """Return the statement that does the work; a page of messages asks first where it may begin."""
    statement = next(steps)
    if statement.sql.startswith("SELECT cleared_seq"):
        return steps.send([(0,)])
    return steps.send([]) if "m.kept > 0" in statement.sql else statement


def _plan(connection: apsw.Connection, statement: Statement) -> list[str]:
    values = statement.values[0] if statement.many else statement.values
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement.sql}", values)]


def _second(steps: Steps[Any]) -> Steps[Any]:
    """Leave out the first statement, which looks one row up."""
    next(steps)
    yield steps.send([])


READS: dict[str, Callable[[], Steps[Any]]] = {
    "last": lambda: messages.last(NOW, "s", 20),
    "page on": lambda: messages.page(NOW, "s", 0, ascending=True, hidden=False, limit=50),
    "page back": lambda: messages.page(NOW, "s", 9, ascending=False, hidden=True, limit=50),
    "window": lambda: messages.window(NOW, "s", Bounds(rounds=10), 2**62),
    "turns": lambda: messages.turns(NOW, "s", 2**62, 50),
    "time-outs that are due": lambda: dialogs.due(NOW, (0, ""), 100),
    "time-outs that nobody has told of": lambda: history.take_untold(NOW, "t", "a", 60, 3600, 1),
    "get": lambda: sessions.get(NOW, "s"),
    "find_key": lambda: sessions.find_key(NOW, "t", "a", "u", "k"),
    "list": lambda: sessions.page(NOW, Filters(), 50, None),
    "list from a cursor": lambda: sessions.page(NOW, Filters(), 50, CURSOR),
    "list by user": lambda: sessions.page(NOW, Filters(user_id="u"), 50, CURSOR),
    "list by app": lambda: sessions.page(NOW, Filters(app="a"), 50, CURSOR),
    "list by user and app": lambda: sessions.page(NOW, Filters(user_id="u", app="a"), 50, CURSOR),
    "list by parent": lambda: sessions.page(NOW, Filters(parent_id="p"), 50, CURSOR),
    "list by root": lambda: sessions.page(NOW, Filters(root_id="r"), 50, CURSOR),
    "list by metadata": lambda: sessions.page(NOW, Filters(metadata=(("n", "1"), ("m", "2"))), 50, CURSOR),
    "audit": lambda: audit.page(NOW, AuditFilters(), {}, 50, None),
    "audit by act": lambda: audit.page(NOW, AuditFilters(act="a.b", code="c"), {}, 50, None),
    "audit by subject": lambda: audit.page(NOW, AuditFilters(subject="run:r", tenant="t"), {}, 50, None),
    "audit by user": lambda: audit.page(NOW, AuditFilters(user_id="u"), {}, 50, None),
    "audit by session": lambda: audit.page(NOW, AuditFilters(session_id="s"), {}, 50, None),
    "audit by principal": lambda: audit.page(NOW, AuditFilters(who="local"), {}, 50, None),
    "audit by tenant": lambda: audit.page(NOW, AuditFilters(tenant="t"), {}, 50, None),
    "audit of a node in order": lambda: _second(audit.rows_after(NOW, "n", 5, 50)),
    "audit words to erase": lambda: audit.erase(NOW, Seals(b"k", "i"), "session_id", "s", 50),
    "what has expired": lambda: janitor.candidates(NOW, Choice(what=What.EXPIRED), None, 1000),
    "what waits in the trash": lambda: janitor.waiting(NOW, None, (NOW, "t"), 100),
    "runs that belong to no session": lambda: janitor.forget_runs(NOW, Span(0, NOW), 100),
    "runs with a whole journal": lambda: janitor.forget_journals(NOW, Span(0, NOW), 100),
    "requests": lambda: approvals.page(NOW, ApprovalFilters(), 50, CURSOR),
    "requests that wait": lambda: approvals.page(NOW, ApprovalFilters(waiting=True), 50, None),
    "requests of a run": lambda: approvals.page(NOW, ApprovalFilters(run_id="r"), 50, CURSOR),
    "requests of a session": lambda: approvals.page(NOW, ApprovalFilters(session_id="s", waiting=True), 50, CURSOR),
    "requests of a tenant": lambda: approvals.page(NOW, ApprovalFilters(tenant="t"), 50, CURSOR),
    "requests of a user": lambda: approvals.page(NOW, ApprovalFilters(tenant="t", user_id="u"), 50, CURSOR),
    "list the active of a user": lambda: sessions.page(NOW, Filters(user_id="u", status="active"), 50, CURSOR),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_seeks_in_an_index_and_sorts_nothing(connection: apsw.Connection, name: str) -> None:
    plan = _plan(connection, _main(READS[name]()))
    assert [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step] == [], plan
    connection.close()


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("last", "session_id=? AND seq>?"),
        ("page on", "session_id=? AND seq>? AND seq<?"),
        ("list from a cursor", "tenant=? AND (created_at,id)<(?,?)"),
        ("list by user", "tenant=? AND user_id=? AND (created_at,id)<(?,?)"),
        ("what has expired", "(due_at,session_id)>(?,?) AND due_at<?"),
        ("what waits in the trash", "step=? AND (trashed_at,id)>(?,?)"),
        ("runs that belong to no session", "session_id=? AND created_at<?"),
        ("runs with a whole journal", "ended_at>? AND ended_at<?"),
        ("requests of a user", "tenant=? AND user_id=? AND (created_at,id)<(?,?)"),
        ("list by metadata", "tenant=? AND name=? AND value=? AND (created_at,session_id)<(?,?)"),
    ],
)
def test_a_far_page_begins_where_it_begins(connection: apsw.Connection, name: str, bounds: str) -> None:
    plan = _plan(connection, _main(READS[name]()))
    assert any(bounds in step for step in plan), plan
    connection.close()


def test_an_append_seeks_for_every_row_that_it_changes(connection: apsw.Connection) -> None:
    steps = messages.append(NOW, "s", DRAFTS)
    statement = next(steps)
    plans = [_plan(connection, statement)]
    statement = steps.send([(2, 1)])
    while not statement.sql.startswith("INSERT INTO messages"):
        plans.append(_plan(connection, statement))
        statement = steps.send([])
    assert [step for plan in plans for step in plan if step.startswith("SCAN")] == []
    connection.close()
