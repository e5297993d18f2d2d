"""The transactions of runs that a host framework executes itself."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from alcove import limits
from alcove.audit.model import Witness
from alcove.clock import Micros
from alcove.database.idempotency import Once, remember
from alcove.database.op import Statement, Steps
from alcove.errors import AlcoveError, AlreadyExistsError, ConflictError, RunEndedError, RunNotFoundError, TooLargeError
from alcove.events import queries as events
from alcove.events.model import NewEvent
from alcove.messages import queries as messages
from alcove.messages.model import Stored
from alcove.messages.rules import placed, turns_opened
from alcove.runs import approval_queries, grant_queries, steering_queries
from alcove.runs.model import Ending, NewRun, RunStatus
from alcove.runs.queries import finished
from alcove.runs.steering_queries import Pulled, Taken
from alcove.sessions import heads
from alcove.values import Json

_ALIVE = "id = ? AND hosted = 1 AND ended_at = 0 AND due_at > ?"


class Reported(msgspec.Struct, frozen=True):
    """What a report added.

    Attributes:
        last_n: The number of the run's last event.
        last_seq: The `seq` of the last message that was appended to its session, 0 for none.
    """

    last_n: int
    last_seq: int


def register(now: Micros, new: NewRun, stale_after: Micros, token: str, witness: Witness | None = None) -> Steps[None]:
    """Record a run and its frozen grant, which is audited.

    Raises:
        AlreadyExistsError: There is a run of that id.
        SessionNotFoundError, SessionExpiredError: There is no session for it.
    """
    if new.session_id:
        yield from heads.stir(now, new.session_id)
    rows = yield Statement(
        "INSERT INTO runs (id, session_id, turn, agent, status, exit_code, error, answer_seq, epoch, cancelling, "
        "holder, tree, digest, rung, guarantees, created_at, ended_at, tenant, user_id, parent_run, root_run, hosted, "
        "due_at, stale_after, token) VALUES (?, ?, 0, ?, 'running', NULL, '', 0, 0, 0, '', '', ?, 'hosted', '', ?, 0, "
        "?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT (id) DO NOTHING RETURNING id",
        (new.id, new.session_id, new.agent, new.digest, now, new.tenant, new.user_id, new.parent_run, new.root_run)
        + (now + stale_after, stale_after, token),
    )
    if not rows:
        raise AlreadyExistsError(f"there is a run {new.id} already", field="run_id", remedy="choose another id")
    yield grant_queries.insert(new.id, new.grant_json, new.cuts_json)
    started = NewEvent("run.started", {"run_id": new.id, "rung": "hosted"})
    yield events.insert(now, new.id, 1, [started])
    yield from grant_queries.granted(now, new, witness)


def beat(now: Micros, run_id: str) -> Steps[None]:
    """Note that a run goes on.

    Raises:
        RunNotFoundError: There is none of that id.
        RunEndedError: It has ended, or was not heard of for so long that it is lost.
        ConflictError: Alcove executes it.
    """
    rows = yield Statement(f"UPDATE runs SET due_at = ? + stale_after WHERE {_ALIVE} RETURNING id", (now, run_id, now))
    if not rows:
        raise (yield from _refusal(now, run_id))


def report(
    now: Micros, run_id: str, output: Sequence[NewEvent], size: int, said: Sequence[Stored], request: Once | None
) -> Steps[Reported]:
    """Write what a run said: output to its journal, messages to its session's history too. It goes on, by that.

    Raises what `beat` does, and:
        TooLargeError: Its journal would take more than it may.
        SessionNotFoundError, SessionExpiredError, SessionBusyError: Its messages cannot be appended.
    """
    rows = yield Statement(
        f"UPDATE runs SET due_at = ? + stale_after, said_bytes = said_bytes + ? WHERE {_ALIVE} "
        "RETURNING session_id, said_bytes",
        (now, size, run_id, now),
    )
    if not rows:
        raise (yield from _refusal(now, run_id))
    [(session_id, taken)] = rows
    most = limits.JOURNAL_HEAD_BYTES + limits.JOURNAL_TAIL_BYTES
    if taken > most:
        raise TooLargeError(
            f"run {run_id} would have said {taken} bytes", field="text", limit=most, remedy="keep the rest in a file"
        )
    spoken, last_seq = yield from _speak(now, session_id, said)
    reported = Reported((yield from events.add_last(now, run_id, [*output, *spoken])), last_seq)
    if request:
        yield remember(now, request, reported)
    return reported


def say(now: Micros, run_id: str, entry: NewEvent, size: int) -> Steps[bool]:
    """Write an event of a run, unless that has ended or said all that it may; return whether it was written."""
    most = limits.JOURNAL_HEAD_BYTES + limits.JOURNAL_TAIL_BYTES
    rows = yield Statement(
        f"UPDATE runs SET said_bytes = said_bytes + ? WHERE {_ALIVE} AND said_bytes <= ? RETURNING id",
        (size, run_id, now, most - size),
    )
    if rows:
        yield from events.add_last(now, run_id, [entry])
    return bool(rows)


def pull(now: Micros, run_id: str, limit: int) -> Steps[Pulled]:
    """Take what was put to a run into its session's history, or into its journal alone when it has none.

    It goes on, by that. Raises what `report` does.
    """
    rows = yield Statement(
        f"UPDATE runs SET due_at = ? + stale_after WHERE {_ALIVE} RETURNING session_id", (now, run_id, now)
    )
    if not rows:
        raise (yield from _refusal(now, run_id))
    found, left = yield from steering_queries.take(now, run_id, limit)
    said = [steering_queries.spoken(text) for text in found]
    spoken, last_seq = yield from _speak(now, rows[0][0], said)
    if spoken:
        yield from events.add_last(now, run_id, spoken)
    first = last_seq - len(said) + 1 if last_seq else 0
    return Pulled([Taken(first and first + i, text) for i, text in enumerate(found)], left)


def finish(now: Micros, run_id: str, ending: Ending, answer: Stored | None) -> Steps[None]:
    """End a run: answer appended, where it has a session, and the end written. Raises what `report` does."""
    rows = yield Statement(
        f"UPDATE runs SET status = ?, exit_code = ?, error = ?, ended_at = ? WHERE {_ALIVE} RETURNING session_id",
        (ending.status, ending.exit_code, ending.error, now, run_id, now),
    )
    if not rows:
        raise (yield from _refusal(now, run_id))
    yield approval_queries.close(now, run_id)
    spoken, seq = yield from _speak(now, rows[0][0], [answer] if answer else [])
    if seq:
        yield Statement("UPDATE runs SET answer_seq = ? WHERE id = ?", (seq, run_id))
    returned = yield from steering_queries.give_back(now, run_id)
    yield from events.add_last(now, run_id, [*spoken, *returned, finished(ending)])


def lose_stale(now: Micros, limit: int) -> Steps[list[str]]:
    """Mark runs lost that were not heard of in time, some at once; return which."""
    rows = yield Statement(
        "SELECT id FROM runs WHERE hosted = 1 AND ended_at = 0 AND due_at <= ? ORDER BY due_at LIMIT ?", (now, limit)
    )
    ending = Ending(status=RunStatus.LOST, error="it was not heard of in time")
    lost: list[str] = []
    for [run_id] in rows:
        changed = yield Statement(
            "UPDATE runs SET status = ?, error = ?, ended_at = ? "
            "WHERE id = ? AND ended_at = 0 AND due_at <= ? RETURNING id",
            (ending.status, ending.error, now, run_id, now),
        )
        if changed:
            yield approval_queries.close(now, run_id)
            returned = yield from steering_queries.give_back(now, run_id)
            yield from events.add_last(now, run_id, [*returned, finished(ending)])
            lost.append(run_id)
    return lost


def by_token(now: Micros, digest: str) -> Steps[str | None]:
    """Return the run with that token, None for none."""
    rows = yield Statement("SELECT id FROM runs WHERE token = ?", (digest,))
    return rows[0][0] if rows else None


def _speak(now: Micros, session_id: str, said: Sequence[Stored]) -> Steps[tuple[list[NewEvent], int]]:
    """Append messages to a session's history, where there is one; return the events of them, and the last seq."""
    if not said:
        return [], 0
    if not session_id:
        return [NewEvent("message", _spoken(one, 0, 0)) for one in said], 0
    opened = turns_opened(said)
    last_seq, turns = yield from heads.take(now, session_id, len(said), opened, None)
    first = last_seq - len(said) + 1
    yield from messages.write(now, session_id, first, turns - opened, said)
    places = placed(said, turns - opened)
    return [NewEvent("message", _spoken(one, first + i, places[i])) for i, one in enumerate(said)], last_seq


def _spoken(message: Stored, seq: int, turn: int) -> dict[str, Json]:
    """Return a message as an event: its text when that fits; one that is too long is read by its seq."""
    text = message.content if message.format == 0 and len(message.content) <= limits.EVENT_BYTES // 4 else None
    return {"seq": seq or None, "turn": turn or None, "role": message.role, "text": text}


def _refusal(now: Micros, run_id: str) -> Steps[AlcoveError]:
    rows = yield Statement("SELECT hosted, status, ended_at FROM runs WHERE id = ?", (run_id,))
    if not rows:
        return RunNotFoundError(f"there is no run {run_id}", field="run_id", run_id=run_id)
    [(hosted, status, ended_at)] = rows
    if not hosted:
        return ConflictError(
            f"Alcove executes run {run_id} itself", field="run_id", remedy="leave it to Alcove", run_id=run_id
        )
    how = f"has ended ({status})" if ended_at else "was not heard of in time: it is lost"
    return RunEndedError(f"run {run_id} {how}", field="run_id", run_id=run_id)
