"""The back door to the rows, so that what is written is not only tested against what is read."""

from __future__ import annotations

from alcove.clock import SECOND, Micros
from alcove.database.op import Database, Rows, Statement, Steps, Value


async def execute(database: Database, sql: str, *values: Value) -> Rows:
    """Run one statement in a transaction of its own and return its rows."""
    return await database.write(_execute, sql, values)


def _execute(now: Micros, sql: str, values: tuple[Value, ...]) -> Steps[Rows]:
    return (yield Statement(sql, values))


async def idle(database: Database, session_id: str, seconds: float) -> None:
    """Make it that much longer since something last happened in a session, on databases with clocks of their own."""
    await execute(
        database,
        "UPDATE heads SET last_activity = last_activity - ?, due_at = CASE WHEN due_at > 0 THEN 1 ELSE 0 END "
        "WHERE session_id = ?",
        round(seconds * SECOND),
        session_id,
    )


async def hold(database: Database, session_id: str, run_id: str, seconds: float) -> None:
    """Give a session to a run for so long, as a start of that run would."""
    await database.write(_hold, session_id, run_id, seconds)


def _hold(now: Micros, session_id: str, run_id: str, seconds: float) -> Steps[None]:
    yield Statement(
        "UPDATE heads SET epoch = epoch + 1, lease_run = ?, lease_until = ? WHERE session_id = ?",
        (run_id, now + round(seconds * SECOND), session_id),
    )
