"""The transactions of events."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from alcove.clock import Micros
from alcove.database.op import Statement, Steps
from alcove.events.model import FINISHED, GAP, Event, NewEvent


def insert(now: Micros, run_id: str, first: int, entries: Sequence[NewEvent]) -> Statement:
    """Return the statement that writes events from number `first` on."""
    return Statement(
        "INSERT INTO events (run_id, n, type, data, created_at) VALUES (?, ?, ?, ?, ?)",
        [
            (run_id, first + i, entry.type, msgspec.json.encode(entry.data).decode(), now)
            for i, entry in enumerate(entries)
        ],
        many=True,
    )


def add_last(now: Micros, run_id: str, entries: Sequence[NewEvent]) -> Steps[int]:
    """Write events after all others, for a run whose events have no writer of their own; return the last number."""
    [[last]] = yield Statement("SELECT COALESCE(MAX(n), 0) FROM events WHERE run_id = ?", (run_id,))
    if entries:
        yield insert(now, run_id, last + 1, entries)
    return last + len(entries)


def forget(run_id: str, after: int, before: int) -> Statement:
    """Return the statement that drops the events between two numbers, both exclusive: they become a gap."""
    return Statement("DELETE FROM events WHERE run_id = ? AND n > ? AND n < ?", (run_id, after, before))


def read(now: Micros, run_id: str, after: int, limit: int) -> Steps[tuple[list[Event], bool]]:
    """Return events after a number, at most `limit`, and whether more may come; a `gap` tells of missing ones.

    A gap carries the number of the last event that is missing, so that a stream may resume from it.
    """
    rows = yield Statement(
        "SELECT n, type, data, created_at FROM events WHERE run_id = ? AND n > ? ORDER BY n LIMIT ?",
        (run_id, after, limit),
    )
    events: list[Event] = []
    for n, kind, data, created in rows:
        if n > after + 1:
            events.append(Event(n - 1, GAP, {"from": after + 1, "to": n - 1}, created))
        events.append(Event(n, kind, msgspec.json.decode(data), created))
        after = n
    if events:
        return events, events[-1].type != FINISHED
    # Nothing is left of a run that was purged.
    last = yield Statement("SELECT type FROM events WHERE run_id = ? ORDER BY n DESC LIMIT 1", (run_id,))
    return [], bool(last) and last[0][0] != FINISHED
