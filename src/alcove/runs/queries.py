"""The transactions of runs."""

from __future__ import annotations

from typing import Final

import msgspec

from alcove import limits
from alcove.audit.model import Witness
from alcove.clock import SECOND, Micros
from alcove.database.idempotency import Once, remember
from alcove.database.op import Statement, Steps, Value
from alcove.errors import RunEndedError, RunNotFoundError, SessionBusyError
from alcove.events import queries as events
from alcove.events.model import FINISHED, NewEvent
from alcove.messages import queries as messages
from alcove.messages.model import Stored
from alcove.pages import decode_cursor, encode_cursor
from alcove.runs import approval_queries, grant_queries, steering_queries
from alcove.runs.model import TURN_ENDS, Ending, NewRun, Run, RunFilters, RunPage, RunStatus
from alcove.runs.steering_queries import Pulled, Taken
from alcove.sessions import heads
from alcove.sessions.heads import Fence
from alcove.values import Json
from alcove.workspaces import queries as workspaces
from alcove.workspaces.model import Usage

_COLUMNS = (
    "id, session_id, turn, agent, status, exit_code, error, answer_seq, epoch, holder, tree, digest, "
    "rung, guarantees, created_at, ended_at, tenant, user_id, parent_run, root_run, "
    "hosted, due_at, cancelling"
)
# Alcove executes it, and it goes on: what is queued has not begun.
_LIVE = "ended_at = 0 AND hosted = 0 AND status <> 'queued'"
LEASE: Micros = limits.LEASE_S * SECOND
ASKED_ENDS: Final = {1: RunStatus.CANCELLED, 2: RunStatus.INTERRUPTED}
"""How a run is to end, by what `cancelling` says of it."""


class Lost(msgspec.Struct, frozen=True):
    """A run whose holder is gone, and the tree of processes that it may have left."""

    run_id: str
    tree: str


class Started(msgspec.Struct, frozen=True):
    """A run that holds its session; also the answer kept under an idempotency key.

    Attributes:
        lost: Whose lease it took over: what that has left is ended before anything of this run begins.
        how: `queued` of one that waits for its session, `steered` of one that went on and was given the message.
    """

    run_id: str
    session_id: str
    epoch: int
    turn: int
    seq: int
    lost: Lost | None = None
    how: str = ""


def start(
    now: Micros, new: NewRun, message: Stored, request: Once | None, witness: Witness | None = None
) -> Steps[Started]:
    """Take the lease, open a turn, append the user's message, freeze the grant and record the run: all or nothing.

    The grant is audited.

    A run that has lost its lease is marked lost here. Its processes are ended next, and until then this run's row names
    them, so that whoever has to take over from this one ends them.
    """
    fence = yield from heads.hold(now, new.session_id, new.id, LEASE)
    yield from check_queue(now, new.session_id)
    lost = yield from supersede(now, new.session_id)
    seq, turn = yield from heads.take(now, new.session_id, 1, 1, fence)
    yield Statement(
        f"INSERT INTO runs ({_COLUMNS}) "
        "VALUES (?, ?, ?, ?, 'running', NULL, '', 0, ?, ?, ?, ?, '', '', ?, 0, ?, ?, ?, ?, 0, 0, 0)",
        (new.id, new.session_id, turn, new.agent, fence.epoch, new.holder, lost.tree if lost else "", new.digest, now)
        + (new.tenant, new.user_id, new.parent_run, new.root_run),
    )
    yield from _open(now, new, message, seq, turn, [queued(new)], witness)
    started = Started(new.id, new.session_id, fence.epoch, turn, seq, lost)
    if request:
        yield remember(now, request, started)
    return started


def begin(now: Micros, new: NewRun, message: Stored, fence: Fence, witness: Witness | None = None) -> Steps[Started]:
    """Start a run that was queued, as `start` does; its claim (`queue_queries.claim`) holds the session.

    Raises:
        StaleEpochError: The claim has run out.
        RunEndedError: It was taken out of the queue.
    """
    yield from heads.renew(now, new.session_id, fence, LEASE)
    rows = yield Statement("DELETE FROM queue WHERE run_id = ? RETURNING 1", (new.id,))
    if not rows:
        raise RunEndedError(f"run {new.id} is queued no more", field="run_id", run_id=new.id)
    seq, turn = yield from heads.take(now, new.session_id, 1, 1, fence)
    yield Statement(
        "UPDATE runs SET status = 'running', turn = ?, tree = '', digest = ?, root_run = ? WHERE id = ?",
        (turn, new.digest, new.root_run, new.id),
    )
    yield from _open(now, new, message, seq, turn, [], witness)
    return Started(new.id, new.session_id, fence.epoch, turn, seq)


def _open(
    now: Micros, new: NewRun, message: Stored, seq: int, turn: int, before: list[NewEvent], witness: Witness | None
) -> Steps[None]:
    """Open the turn of a run, append the user's message, and freeze the grant; the first event may be there already."""
    yield Statement(
        "INSERT INTO turns (session_id, number, status, run_id, opened_at, closed_at) VALUES (?, ?, 'open', ?, ?, 0)",
        (new.session_id, turn, new.id, now),
    )
    yield messages.insert(now, new.session_id, seq, [turn], [message])
    yield grant_queries.insert(new.id, new.grant_json, new.cuts_json)
    said = NewEvent("message", {"seq": seq, "turn": turn, "role": "user"})
    yield events.insert(now, new.id, 2 - len(before), [*before, said])
    yield from grant_queries.granted(now, new, witness)


def check_queue(now: Micros, session_id: str) -> Steps[None]:
    """Let a run start only where none is queued: that one was there before.

    Raises:
        SessionBusyError: One is.
    """
    rows = yield Statement("SELECT run_id FROM queue WHERE session_id = ? LIMIT 1", (session_id,))
    if rows:
        raise SessionBusyError(
            f"run {rows[0][0]} is queued in session {session_id}",
            remedy="queue behind it, or cancel it",
            session_id=session_id,
            run_id=rows[0][0],
        )


def insert_queued(now: Micros, new: NewRun) -> Statement:
    """Return the statement that records a run which waits: without authority, lease or turn."""
    return Statement(
        f"INSERT INTO runs ({_COLUMNS}) "
        "VALUES (?, ?, 0, ?, 'queued', NULL, '', 0, 0, '', '', '', '', '', ?, 0, ?, ?, ?, ?, 0, 0, 0)",
        (new.id, new.session_id, new.agent, now, new.tenant, new.user_id, new.parent_run, new.root_run),
    )


def queued(new: NewRun) -> NewEvent:
    """Return the first event of a run."""
    return NewEvent("run.queued", {"run_id": new.id, "session_id": new.session_id, "agent": new.agent})


def supersede(now: Micros, session_id: str) -> Steps[Lost | None]:
    """Mark the run lost that holds the session no more but has not ended; there is one at most."""
    rows = yield Statement(f"SELECT id, turn, tree FROM runs WHERE session_id = ? AND {_LIVE}", (session_id,))
    if not rows:
        return None
    [(run_id, turn, tree)] = rows
    ending = Ending(status=RunStatus.LOST, error="its process is gone")
    returned = yield from _close(now, session_id, run_id, turn, ending, 0)
    yield from events.add_last(now, run_id, [*returned, finished(ending)])
    return Lost(run_id, tree)


def _close(
    now: Micros, session_id: str, run_id: str, turn: int, ending: Ending, answer_seq: int
) -> Steps[list[NewEvent]]:
    """Write the end of a run and of its turn; return what is to be told of messages that it has not taken."""
    yield Statement(
        "UPDATE turns SET status = ?, closed_at = ? WHERE session_id = ? AND number = ?",
        (TURN_ENDS[ending.status], now, session_id, turn),
    )
    yield Statement(
        "UPDATE runs SET status = ?, exit_code = ?, error = ?, answer_seq = ?, ended_at = ? WHERE id = ?",
        (ending.status, ending.exit_code, ending.error, answer_seq, now, run_id),
    )
    yield approval_queries.close(now, run_id)
    return (yield from steering_queries.give_back(now, run_id))


def _answered(seq: int, turn: int, answer: Stored, ending: Ending) -> NewEvent:
    """Say the cleaned answer, so that a stream has it."""
    data: dict[str, Json] = {"seq": seq, "turn": turn, "role": answer.role, "text": told(ending.text)}
    return NewEvent("message", data)


def told(text: str) -> str | None:
    """Return a text as an event has it; one that is too long for an event is read by its message's seq."""
    return text if len(text) <= limits.EVENT_BYTES // 4 else None  # a character takes four bytes at most


def finished(ending: Ending) -> NewEvent:
    """Return the last event of a run."""
    limit = {"limit": ending.limit} if ending.limit else {}
    return NewEvent(FINISHED, {"status": ending.status, "exit_code": ending.exit_code, "error": ending.error, **limit})


def launched(now: Micros, started: Started, fence: Fence, tree: str, rung: str, guarantees: str, n: int) -> Steps[None]:
    """Record the processes of a run and what confines them."""
    yield from heads.renew(now, started.session_id, fence, LEASE)
    yield Statement(
        "UPDATE runs SET tree = ?, rung = ?, guarantees = ? WHERE id = ?", (tree, rung, guarantees, started.run_id)
    )
    yield events.insert(now, started.run_id, n, [NewEvent("run.started", {"run_id": started.run_id, "rung": rung})])


def renew(now: Micros, session_id: str, fence: Fence) -> Steps[RunStatus | None]:
    """Keep the lease; return how the run is to end when somebody asked for that."""
    yield from heads.renew(now, session_id, fence, LEASE)
    rows = yield Statement("SELECT cancelling FROM runs WHERE id = ?", (fence.run_id,))
    return ASKED_ENDS.get(rows[0][0]) if rows else None


def journal(
    now: Micros, session_id: str, fence: Fence, n: int, entries: list[NewEvent], dropped: tuple[int, int] | None
) -> Steps[None]:
    """Write events of a live run; those between the two numbers of `dropped`, both exclusive, are forgotten."""
    yield from heads.take(now, session_id, 0, 0, fence)
    yield events.insert(now, fence.run_id, n, entries)
    if dropped:
        yield events.forget(fence.run_id, *dropped)


def pull(now: Micros, started: Started, fence: Fence, n: int, limit: int) -> Steps[Pulled]:
    """Take messages that were put to a run into its open turn, with an event for each. Fenced by the epoch."""
    found, left = yield from steering_queries.take(now, started.run_id, limit)
    last, _ = yield from heads.take(now, started.session_id, len(found), 0, fence)
    first = last - len(found) + 1
    said = [steering_queries.spoken(text) for text in found]
    if said:
        yield messages.insert(now, started.session_id, first, [started.turn] * len(said), said)
        entries = [
            NewEvent("message", {"seq": first + i, "turn": started.turn, "role": "user", "text": told(text)})
            for i, text in enumerate(found)
        ]
        yield events.insert(now, started.run_id, n, entries)
    return Pulled([Taken(first + i, text) for i, text in enumerate(found)], left)


def finish(
    now: Micros, started: Started, fence: Fence, n: int, ending: Ending, answer: Stored | None, taken: Usage | None
) -> Steps[Run]:
    """End a run: answer appended, turn closed, sizes recorded, lease released. Fenced by the epoch."""
    count = 0 if answer is None else 1
    seq, _ = yield from heads.take(now, started.session_id, count, 0, fence)
    entries: list[NewEvent] = []
    if ending.files is not None:
        entries.append(NewEvent("files", {"changed": list(ending.files)}))
    if answer is not None:
        yield messages.insert(now, started.session_id, seq, [started.turn], [answer])
        entries.append(_answered(seq, started.turn, answer, ending))
    entries += yield from _close(now, started.session_id, started.run_id, started.turn, ending, seq if answer else 0)
    yield events.insert(now, started.run_id, n, [*entries, finished(ending)])
    if taken is not None:
        yield workspaces.measured(now, started.session_id, taken)
    yield from heads.release(now, started.session_id, fence)
    return (yield from get(now, started.run_id))


def find(now: Micros, run_id: str) -> Steps[Run | None]:
    """Return a run, or None."""
    rows = yield Statement(f"SELECT {_COLUMNS} FROM runs WHERE id = ?", (run_id,))
    return Run(*rows[0]) if rows else None


def get(now: Micros, run_id: str) -> Steps[Run]:
    """Return a run."""
    run = yield from find(now, run_id)
    if run is None:
        raise RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)
    return run


def live(now: Micros, session_id: str) -> Steps[list[Run]]:
    """Return the runs of a session that Alcove executes and that have not ended: one at most."""
    rows = yield Statement(f"SELECT {_COLUMNS} FROM runs WHERE session_id = ? AND {_LIVE}", (session_id,))
    return [Run(*row) for row in rows]


def stale(now: Micros) -> Steps[list[Run]]:
    """Return the hosted runs that were not heard of in time; where anything sweeps they are few."""
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM runs WHERE hosted = 1 AND ended_at = 0 AND due_at <= ? ORDER BY due_at", (now,)
    )
    return [Run(*row) for row in rows]


def all_live(now: Micros, after: str, limit: int) -> Steps[list[Run]]:
    """Return runs that Alcove executes and that have not ended, by id."""
    rows = yield Statement(f"SELECT {_COLUMNS} FROM runs WHERE {_LIVE} AND id > ? ORDER BY id LIMIT ?", (after, limit))
    return [Run(*row) for row in rows]


def lose(now: Micros, run_id: str, holder: str) -> Steps[bool]:
    """Mark a run lost whose holder is known to be gone, and free its session at once."""
    rows = yield Statement(
        "UPDATE runs SET status = 'lost' WHERE id = ? AND holder = ? AND ended_at = 0 RETURNING session_id, epoch",
        (run_id, holder),
    )
    if not rows:
        return False
    [(session_id, epoch)] = rows
    yield from heads.release(now, session_id, Fence(run_id, epoch))
    yield from supersede(now, session_id)
    return True


def ask_end(now: Micros, run_id: str, status: RunStatus = RunStatus.CANCELLED) -> Steps[Run]:
    """Note how a run is to end; whoever looks after it sees it at the next renewal. It waits for nobody any more.

    One that is to be cancelled is not interrupted any more.
    """
    [asked] = [number for number, end in ASKED_ENDS.items() if end == status]
    rows = yield Statement(
        "UPDATE runs SET cancelling = ?, status = 'running' "
        "WHERE id = ? AND ended_at = 0 AND status <> 'queued' AND cancelling <> 1 RETURNING id",
        (asked, run_id),
    )
    if rows:
        yield approval_queries.close(now, run_id)
    return (yield from get(now, run_id))


def page(now: Micros, filters: RunFilters, limit: int, cursor: str | None) -> Steps[RunPage]:
    """Return the runs that fit every filter, newest first."""
    created, after = decode_cursor(cursor) if cursor else (2**63 - 1, "")
    given = {name: value for name in RunFilters.__struct_fields__ if (value := getattr(filters, name)) is not None}
    active = given.pop("active", None)
    condition = "".join(f"{column} = ? AND " for column in given)
    if active is not None:
        condition += "ended_at = 0 AND " if active else "ended_at > 0 AND "
    narrowed: tuple[Value, ...] = (*given.values(), created, after, limit + 1)
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM runs WHERE {condition}(created_at, id) < (?, ?) "
        "ORDER BY created_at DESC, id DESC LIMIT ?",
        narrowed,
    )
    runs = [Run(*row) for row in rows[:limit]]
    return RunPage(runs, encode_cursor(runs[-1].created_us, runs[-1].id) if len(rows) > limit else None)


def tree(now: Micros, run_id: str, limit: int) -> Steps[list[Run]]:
    """Return a run and those below it, nearest first, at most `limit`; `limits.RUN_TREE` of its tree are looked at."""
    run = yield from get(now, run_id)
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM runs WHERE root_run = ? ORDER BY created_at, id LIMIT ?",
        (run.root_run, limits.RUN_TREE),
    )
    below: dict[str, list[Run]] = {}
    for row in rows:
        one = Run(*row)
        below.setdefault(one.parent_run, []).append(one)
    found = [run]
    for one in found:
        found += below.get(one.id, [])
        if len(found) >= limit:
            break
    return found[:limit]


def lapsed(now: Micros, session_id: str, run_id: str) -> Steps[bool]:
    """Return whether a run holds its session no more."""
    held = yield Statement(
        "SELECT 1 FROM heads WHERE session_id = ? AND lease_run = ? AND lease_until > ?", (session_id, run_id, now)
    )
    return not held
