"""The transactions of messages and turns."""

from __future__ import annotations

from collections.abc import Sequence

from alcove import limits
from alcove.clock import Micros
from alcove.database.idempotency import Once, remember
from alcove.database.op import Rows, Statement, Steps
from alcove.errors import StaleSequenceError
from alcove.messages.model import Appended, Message, Stored, Turn
from alcove.messages.rules import placed, turns_opened
from alcove.sessions.heads import refusal, take

_COLUMNS = "m.seq, m.turn, m.role, m.format, m.content, m.detail, m.hidden, m.created_at"
_VISIBLE = "AND m.hidden = 0 AND m.seq > h.cleared_seq "
_END = 2**62  # above every seq
_CHUNK = 64  # rows fetched at a time, so that a page of large messages can end early


def append(
    now: Micros,
    session_id: str,
    messages: Sequence[Stored],
    *,
    expected_seq: int | None = None,
    request: Once | None = None,
) -> Steps[Appended]:
    """Append messages; each user message opens a turn, and the turn is done at once: no run answers it."""
    opened = turns_opened(messages)
    last_seq, turn_count = yield from take(now, session_id, len(messages), opened, None)
    first_seq = last_seq - len(messages) + 1
    if expected_seq is not None and first_seq - 1 != expected_seq:
        raise StaleSequenceError(
            f"session {session_id} is at seq {first_seq - 1}, not {expected_seq}",
            field="expected_seq",
            remedy="read what was appended meanwhile, then decide",
            last_seq=first_seq - 1,
        )
    yield from write(now, session_id, first_seq, turn_count - opened, messages)
    appended = Appended(first_seq, last_seq, turn_count)
    if request:
        yield remember(now, request, appended)
    return appended


def write(now: Micros, session_id: str, seq: int, turns: int, messages: Sequence[Stored]) -> Steps[None]:
    """Write messages from `seq` on, and the turns that they open after the first `turns`; the head has been moved."""
    opened = turns_opened(messages)
    if opened:
        yield Statement(
            "INSERT INTO turns (session_id, number, status, run_id, opened_at, closed_at) "
            "VALUES (?, ?, 'done', '', ?, ?)",
            [(session_id, number, now, now) for number in range(turns + 1, turns + opened + 1)],
            many=True,
        )
    yield insert(now, session_id, seq, placed(messages, turns), messages)


def insert(now: Micros, session_id: str, seq: int, turns: Sequence[int], messages: Sequence[Stored]) -> Statement:
    """Return the statement that writes messages from `seq` on, each with its turn."""
    return Statement(
        "INSERT INTO messages (session_id, seq, turn, role, format, content, detail, hidden, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
        [(session_id, seq + i, turns[i], m.role, m.format, m.content, m.detail, now) for i, m in enumerate(messages)],
        many=True,
    )


def _checked(now: Micros, session_id: str, rows: Rows) -> Steps[Rows]:
    """Return rows; when there are none, make sure that it is for want of messages, not of a session."""
    if not rows:
        heads = yield Statement("SELECT trashed FROM heads WHERE session_id = ?", (session_id,))
        if not heads or heads[0][0]:
            raise (yield from refusal(now, session_id))
    return rows


def last(now: Micros, session_id: str, limit: int) -> Steps[list[Message]]:
    """Return the last visible messages, ascending. One seek, whatever the length of the session."""
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM heads h JOIN messages m ON m.session_id = h.session_id "
        f"WHERE h.session_id = ? AND h.trashed = 0 {_VISIBLE}ORDER BY m.seq DESC LIMIT ?",
        (session_id, limit),
    )
    if not rows:
        yield from _checked(now, session_id, rows)
    rows.reverse()
    return [Message(*row) for row in rows]


def page(
    now: Micros, session_id: str, bound: int, *, ascending: bool, hidden: bool, limit: int
) -> Steps[tuple[list[Message], bool]]:
    """Return messages after (or, descending, before) `bound`, ascending, and whether there are more in that direction.

    Ends early when the text passes `limits.MESSAGE_PAGE_BYTES`.
    """
    heads = yield Statement("SELECT cleared_seq FROM heads WHERE session_id = ? AND trashed = 0", (session_id,))
    if not heads:
        raise (yield from refusal(now, session_id))
    # One lower and one upper bound: of two lower ones SQLite would seek by either, and read all that lies between.
    low = -1 if hidden else heads[0][0]
    low, high = (max(low, bound), _END) if ascending else (low, bound)
    found: list[Message] = []
    size = 0
    while True:
        want = min(_CHUNK, limit + 1 - len(found))
        rows = yield Statement(
            f"SELECT {_COLUMNS} FROM messages m WHERE m.session_id = ? AND m.seq > ? AND m.seq < ? "
            f"{'' if hidden else 'AND m.hidden = 0 '}ORDER BY m.seq {'ASC' if ascending else 'DESC'} LIMIT ?",
            (session_id, low, high, want),
        )
        for row in rows:
            size += len(row[4])
            if found and size > limits.MESSAGE_PAGE_BYTES:
                break
            found.append(Message(*row))
            low, high = (row[0], high) if ascending else (low, row[0])
        full = len(found) > limit or size > limits.MESSAGE_PAGE_BYTES
        if full or len(rows) < want:
            break
    more = full
    found = found[:limit]
    return (found if ascending else found[::-1]), more


def window(now: Micros, session_id: str, rounds: int, before: int) -> Steps[list[Message]]:
    """Return the last rounds below `before`, ascending: from a user message on, without failed and lost turns."""
    found: list[Message] = []
    start = left = 0
    bound, size, looked_at = before, 0, 0
    while left < rounds and looked_at < limits.WINDOW_MESSAGES:
        rows = yield Statement(
            f"SELECT {_COLUMNS}, COALESCE(t.status, 'done') FROM heads h "
            "JOIN messages m ON m.session_id = h.session_id "
            "LEFT JOIN turns t ON t.session_id = m.session_id AND t.number = m.turn "
            f"WHERE h.session_id = ? AND h.trashed = 0 AND m.seq < ? {_VISIBLE}ORDER BY m.seq DESC LIMIT ?",
            (session_id, bound, _CHUNK),
        )
        if not found:
            yield from _checked(now, session_id, rows)
        looked_at += len(rows)
        for *row, status in rows:
            bound = row[0]
            if status in {"failed", "lost"}:
                continue
            size += len(row[4])
            if found and size > limits.MESSAGE_PAGE_BYTES:
                break
            found.append(Message(*row))
            if row[2] == "user":
                start, left = len(found), left + 1
                if left == rounds:
                    break
        if len(rows) < _CHUNK or size > limits.MESSAGE_PAGE_BYTES:
            break
    return found[:start][::-1]


def pop(now: Micros, session_id: str, count: int) -> Steps[list[Message]]:
    """Hide the last visible messages and return them, ascending."""
    yield from take(now, session_id, 0, 0, None)
    popped = yield from last(now, session_id, count)
    yield Statement(
        "UPDATE messages SET hidden = 1 WHERE session_id = ? AND seq = ?",
        [(session_id, message.seq) for message in popped],
        many=True,
    )
    yield Statement(
        "UPDATE heads SET message_count = message_count - ? WHERE session_id = ?", (len(popped), session_id)
    )
    return popped


def clear(now: Micros, session_id: str) -> Steps[int]:
    """Hide every message so far; return how many were visible. Constant cost: it moves a mark."""
    yield from take(now, session_id, 0, 0, None)
    [[visible]] = yield Statement("SELECT message_count FROM heads WHERE session_id = ?", (session_id,))
    yield Statement("UPDATE heads SET cleared_seq = last_seq, message_count = 0 WHERE session_id = ?", (session_id,))
    return visible


def turns(now: Micros, session_id: str, before: int, limit: int) -> Steps[list[Turn]]:
    """Return turns below `before`, newest first."""
    rows = yield Statement(
        "SELECT t.number, t.status, t.run_id, t.opened_at, t.closed_at FROM heads h "
        "JOIN turns t ON t.session_id = h.session_id WHERE h.session_id = ? AND h.trashed = 0 AND t.number < ? "
        "ORDER BY t.number DESC LIMIT ?",
        (session_id, before, limit),
    )
    yield from _checked(now, session_id, rows)
    return [Turn(*row) for row in rows]


def one(now: Micros, session_id: str, seq: int) -> Steps[Message | None]:
    """Return one message, hidden or not."""
    rows = yield Statement(f"SELECT {_COLUMNS} FROM messages m WHERE m.session_id = ? AND m.seq = ?", (session_id, seq))
    return Message(*rows[0]) if rows else None
