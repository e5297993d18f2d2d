"""The transactions of messages and turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alcove import limits
from alcove.clock import Micros
from alcove.database.idempotency import Once, remember
from alcove.database.op import Rows, Statement, Steps
from alcove.errors import StaleSequenceError
from alcove.messages import content as contents
from alcove.messages.model import PINNED, Appended, Message, Span, Stored, Turn, Window
from alcove.messages.rules import check_pin, placed, turns_opened
from alcove.messages.tokens import Counter
from alcove.messages.windows import Bounds, Picker, newest_summary
from alcove.objects.model import Ref
from alcove.objects.queries import refer
from alcove.sessions.heads import refusal, take

_COLUMNS = "m.seq, m.turn, m.role, m.format, m.content, m.detail, m.hidden, m.created_at, m.kept"
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
    files: Mapping[str, str] | None = None,
) -> Steps[Appended]:
    """Append messages; each user message opens a turn, and the turn is done at once: no run answers it.

    `files` has the file of each object that the messages refer to.
    """
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
    yield from write(now, session_id, first_seq, turn_count - opened, messages, files)
    appended = Appended(first_seq, last_seq, turn_count)
    if request:
        yield remember(now, request, appended)
    return appended


def write(
    now: Micros,
    session_id: str,
    seq: int,
    turns: int,
    messages: Sequence[Stored],
    files: Mapping[str, str] | None = None,
) -> Steps[None]:
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
    if files:
        yield from claim(now, session_id, seq, messages, files)


def insert(now: Micros, session_id: str, seq: int, turns: Sequence[int], messages: Sequence[Stored]) -> Statement:
    """Return the statement that writes messages from `seq` on, each with its turn."""
    return Statement(
        "INSERT INTO messages (session_id, seq, turn, role, format, content, detail, hidden, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
        [(session_id, seq + i, turns[i], m.role, m.format, m.content, m.detail, now) for i, m in enumerate(messages)],
        many=True,
    )


def claim(now: Micros, session_id: str, seq: int, messages: Sequence[Stored], files: Mapping[str, str]) -> Steps[None]:
    """Claim the objects of messages that stand from `seq` on."""
    refs = [
        Ref(seq + at, digest, files[digest])
        for at, message in enumerate(messages)
        if message.format == contents.PACKED
        for digest in sorted(set(contents.hashes(message.content)))
    ]
    yield from refer(now, session_id, refs)


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
            size += len(row[4]) if row[3] != contents.PACKED else contents.size_of(row[3], row[4])
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


_WALK = (
    f"SELECT {_COLUMNS}, COALESCE(t.status, 'done'), h.cleared_seq FROM heads h "
    "JOIN messages m ON m.session_id = h.session_id "
    "LEFT JOIN turns t ON t.session_id = m.session_id AND t.number = m.turn "
    f"WHERE h.session_id = ? AND h.trashed = 0 AND m.seq < ? {_VISIBLE}ORDER BY m.seq DESC LIMIT ?"
)


def window(now: Micros, session_id: str, bounds: Bounds, before: int, count: Counter | None = None) -> Steps[Window]:
    """Return the window below `before`. Reads what it shows, and a chunk more; see `windows`."""
    picker = Picker(bounds, (yield from kept(now, session_id, before)), count)
    bound, cleared, looked_at, wanted = before, 0, 0, True
    want = min(_CHUNK, 2 * bounds.rounds + 1)
    while wanted and looked_at < limits.WINDOW_MESSAGES:
        want = min(want, limits.WINDOW_MESSAGES - looked_at)
        rows = yield Statement(_WALK, (session_id, bound, want))
        if not looked_at:
            yield from _checked(now, session_id, rows)
        looked_at += len(rows)
        for row in rows:
            bound, cleared = row[0], row[-1]
            wanted = picker.offer(Message(*row[:-2]), row[-2])
            if not wanted:
                break
        if len(rows) < want:
            break
        want = _CHUNK
    return picker.window(more=not picker.covered and bound < _END and bound > cleared + 1)


def kept(now: Micros, session_id: str, before: int) -> Steps[list[Message]]:
    """Return what is in every window, and what stands in another place than its seq says: oldest first, bounded."""
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM heads h JOIN messages m ON m.session_id = h.session_id "
        "WHERE h.session_id = ? AND h.trashed = 0 AND m.seq < ? "
        f"AND (m.role IN ('system', 'developer') OR m.kept > 0) {_VISIBLE}ORDER BY m.seq DESC LIMIT ?",
        (session_id, before, limits.WINDOW_KEPT),
    )
    rows.reverse()
    return [Message(*row) for row in rows]


def pin(now: Micros, session_id: str, seq: int, value: int) -> Steps[Message | None]:
    """Pin a visible message or let it go; return it as it was, None when there is none."""
    yield from take(now, session_id, 0, 0, None)
    rows = yield Statement(
        f"SELECT {_COLUMNS} FROM heads h JOIN messages m ON m.session_id = h.session_id "
        f"WHERE h.session_id = ? AND m.seq = ? {_VISIBLE}",
        (session_id, seq),
    )
    if not rows:
        return None
    message = Message(*rows[0])
    if value == PINNED:
        [[number]] = yield Statement(
            "SELECT COUNT(*) FROM messages WHERE session_id = ? AND (role IN ('system', 'developer') OR kept > 0) "
            "AND kept = 1 AND hidden = 0",
            (session_id,),
        )
        check_pin(message, number)
    yield Statement(
        "UPDATE messages SET kept = ? WHERE session_id = ? AND seq = ? AND kept <> 2", (value, session_id, seq)
    )
    return message


def view(now: Micros, session_id: str, after: int, limit: int) -> Steps[list[tuple[Message, str]]]:
    """Return visible messages above `after`, ascending, each with the status of its turn; ends early as a page does."""
    heads = yield Statement("SELECT cleared_seq FROM heads WHERE session_id = ? AND trashed = 0", (session_id,))
    if not heads:
        raise (yield from refusal(now, session_id))
    rows = yield Statement(
        f"SELECT {_COLUMNS}, COALESCE(t.status, 'done') FROM messages m "
        "LEFT JOIN turns t ON t.session_id = m.session_id AND t.number = m.turn "
        "WHERE m.session_id = ? AND m.seq > ? AND m.hidden = 0 ORDER BY m.seq LIMIT ?",
        (session_id, max(after, heads[0][0]), limit),
    )
    return [(Message(*row), status) for *row, status in rows]


def summarise(
    now: Micros, session_id: str, summary: Stored, fresh: Span, shown: int, former: int, expected_seq: int | None
) -> Steps[Appended]:
    """Append a summary.

    `fresh` is what it stands for besides the summary before, whose seq is `former` (0: there was none), and had `shown`
    visible messages.
    """
    last_seq, turn = yield from take(now, session_id, 1, 0, None)
    [[count]] = yield Statement(
        "SELECT COUNT(*) FROM heads h JOIN messages m ON m.session_id = h.session_id "
        f"WHERE h.session_id = ? AND m.seq BETWEEN ? AND ? {_VISIBLE}",
        (session_id, fresh.first, fresh.last),
    )
    standing = newest_summary((yield from kept(now, session_id, last_seq)))
    if (
        count != shown
        or (standing.seq if standing else 0) != former
        or (expected_seq is not None and last_seq - 1 != expected_seq)
    ):
        raise StaleSequenceError(
            f"session {session_id} was changed while messages {fresh.first} to {fresh.last} were summarised",
            field="expected_seq",
            remedy="summarise again: nothing was written, and nothing is lost",
            last_seq=last_seq - 1,
        )
    yield insert(now, session_id, last_seq, [turn], [summary])
    return Appended(last_seq, last_seq, turn)


def mend(
    now: Micros,
    session_id: str,
    expected_seq: int,
    hide: Sequence[int],
    messages: Sequence[tuple[int, Stored]],
    files: Mapping[str, str],
) -> Steps[int]:
    """Hide messages and append those that stand for them, each with its turn; return how many were hidden."""
    last_seq, _ = yield from take(now, session_id, len(messages), 0, None)
    first = last_seq - len(messages) + 1
    if first - 1 != expected_seq:
        raise StaleSequenceError(
            f"session {session_id} is at seq {first - 1}, not {expected_seq}", field="expected_seq"
        )
    hidden = 0
    for seq in hide:
        hidden += len(
            (
                yield Statement(
                    "UPDATE messages SET hidden = 1 WHERE session_id = ? AND seq = ? AND hidden = 0 RETURNING seq",
                    (session_id, seq),
                )
            )
        )
    if hidden:
        yield Statement("UPDATE heads SET message_count = message_count - ? WHERE session_id = ?", (hidden, session_id))
    if messages:
        yield insert(now, session_id, first, [turn for turn, _ in messages], [message for _, message in messages])
        yield Statement(
            "UPDATE messages SET kept = 2 WHERE session_id = ? AND seq BETWEEN ? AND ?", (session_id, first, last_seq)
        )
    if files:
        yield from claim(now, session_id, first, [message for _, message in messages], files)
    return hidden


def last_seq(now: Micros, session_id: str) -> Steps[tuple[int, bool]]:
    """Return the last seq of a session, and whether a run holds it."""
    rows = yield Statement(
        "SELECT last_seq, lease_until FROM heads WHERE session_id = ? AND trashed = 0", (session_id,)
    )
    if not rows:
        raise (yield from refusal(now, session_id))
    return rows[0][0], rows[0][1] > now


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
