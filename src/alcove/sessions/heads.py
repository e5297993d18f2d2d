"""The head of a session: who may write to it, and the steps that lock and move it.

A *lease* is the right to write for a while; whoever takes one raises the *epoch*, and from then on every step of the
holder before is refused, however late it comes.
"""

from __future__ import annotations

import msgspec

from alcove.clock import Micros
from alcove.database.op import Statement, Steps
from alcove.errors import (
    AlcoveError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    StaleEpochError,
)

NEVER: Micros = 2**63 - 1  # in `ends_at`; 0 in `idle_limit`
# When a session expires, of the columns of its head.
EXPIRES = (
    "CASE WHEN {0}idle_limit > 0 AND {0}last_activity + {0}idle_limit < {0}ends_at "
    "THEN {0}last_activity + {0}idle_limit ELSE {0}ends_at END"
)
# The session is there, nobody holds it, and it has not expired.
_FREE = f"trashed = 0 AND lease_until <= ? AND {EXPIRES.format('')} > ?"
# This run still holds it.
_HELD = "lease_run = ? AND epoch = ? AND lease_until > ?"
# The same, expired or not.
_QUIET = "trashed = 0 AND lease_until <= ?"
_COUNT = "UPDATE heads SET last_seq = last_seq + ?, message_count = message_count + ?, turn_count = turn_count + ?"
_MOVE = f"{_COUNT}, last_activity = ? WHERE session_id = ? AND "
# The dialog is still at the version that was looked at.
_STEP = (
    "dialog_version = dialog_version + 1, dialog_state = ?, dialog_due = ? "
    "WHERE session_id = ? AND dialog_version = ? AND "
)
_TAKE = f"{_MOVE}{_FREE} RETURNING last_seq, turn_count"
_TAKE_STEP = f"{_COUNT}, last_activity = ?, {_STEP}{_FREE} RETURNING last_seq, turn_count"
_TAKE_STEP_QUIET = f"{_COUNT}, {_STEP}{_QUIET} RETURNING last_seq, turn_count"
_TAKE_FENCED = f"{_MOVE}{_HELD} RETURNING last_seq, turn_count"


class Fence(msgspec.Struct, frozen=True):
    """A holder's right to write: good while the epoch is this one and the lease has not run out.

    Attributes:
        run_id: The run, or another name for the holder.
        epoch: The epoch that the holder was given.
    """

    run_id: str
    epoch: int


def take(now: Micros, session_id: str, messages: int, turns: int, fence: Fence | None) -> Steps[tuple[int, int]]:
    """Lock the head and move it; return the last seq and the number of turns after it.

    Raises:
        SessionNotFoundError: There is no such session, or it is in the trash.
        SessionExpiredError: It takes no more activity.
        SessionBusyError: Somebody else holds it.
        StaleEpochError: The holder of the fence has lost its lease.
    """
    move = (messages, messages, turns, now, session_id)
    if fence:
        rows = yield Statement(_TAKE_FENCED, (*move, fence.run_id, fence.epoch, now))
    else:
        rows = yield Statement(_TAKE, (*move, now, now))
    if not rows:
        raise (yield from refusal(now, session_id, fence))
    return rows[0][0], rows[0][1]


class Stand(msgspec.Struct, frozen=True):
    """Where a dialog is to stand, if it is still at the version that was looked at.

    Attributes:
        version: The one that was looked at.
        state: The new state.
        due_us: When that times out, 0 for never.
    """

    version: int
    state: str
    due_us: Micros


def take_step(
    now: Micros, session_id: str, messages: int, turns: int, stand: Stand, *, quiet: bool = False
) -> Steps[tuple[int, int] | None]:
    """Lock the head, and move it and the dialog in it; None when the dialog has moved on meanwhile.

    With `quiet` it is no activity, and an expired session takes it too: what time does, nobody did.

    Raises:
        SessionNotFoundError, SessionExpiredError, SessionBusyError: As `take` does.
    """
    if quiet:
        rows = yield Statement(
            _TAKE_STEP_QUIET,
            (messages, messages, turns, stand.state, stand.due_us, session_id, stand.version, now),
        )
    else:
        rows = yield Statement(
            _TAKE_STEP,
            (messages, messages, turns, now, stand.state, stand.due_us, session_id, stand.version, now, now),
        )
    if rows:
        return rows[0][0], rows[0][1]
    free = yield Statement(
        f"SELECT 1 FROM heads WHERE session_id = ? AND {_QUIET if quiet else _FREE}",
        (session_id, now) if quiet else (session_id, now, now),
    )
    if free:
        return None
    raise (yield from refusal(now, session_id))


def hold(now: Micros, session_id: str, holder: str, lease: Micros) -> Steps[Fence]:
    """Take the lease for a while (microseconds); raises what `take` does."""
    rows = yield Statement(
        "UPDATE heads SET epoch = epoch + 1, lease_run = ?, lease_until = ?, last_activity = ? "
        f"WHERE session_id = ? AND {_FREE} RETURNING epoch",
        (holder, now + lease, now, session_id, now, now),
    )
    if not rows:
        raise (yield from refusal(now, session_id))
    return Fence(holder, rows[0][0])


def stir(now: Micros, session_id: str) -> Steps[None]:
    """Lock the head and note activity, whoever holds it.

    Raises:
        SessionNotFoundError, SessionExpiredError: As `take` does.
    """
    rows = yield Statement(
        "UPDATE heads SET last_activity = ? "
        f"WHERE session_id = ? AND trashed = 0 AND {EXPIRES.format('')} > ? RETURNING 1",
        (now, session_id, now),
    )
    if not rows:
        error = yield from refusal(now, session_id)
        raise SessionExpiredError(session_id=session_id) if isinstance(error, SessionBusyError) else error


def check_free(now: Micros, session_id: str) -> Steps[None]:
    """Look whether the lease could be taken now; raises what `take` does, and changes nothing."""
    rows = yield Statement(f"SELECT epoch FROM heads WHERE session_id = ? AND {_FREE}", (session_id, now, now))
    if not rows:
        raise (yield from refusal(now, session_id))


def renew(now: Micros, session_id: str, fence: Fence, lease: Micros) -> Steps[None]:
    """Keep the lease for another while; work that goes on is activity.

    Raises:
        StaleEpochError: It is lost. Nothing that the holder does from now on may take effect.
    """
    rows = yield Statement(
        f"UPDATE heads SET lease_until = ?, last_activity = ? WHERE session_id = ? AND {_HELD} RETURNING epoch",
        (now + lease, now, session_id, fence.run_id, fence.epoch, now),
    )
    if not rows:
        raise StaleEpochError(session_id=session_id, run_id=fence.run_id)


def release(now: Micros, session_id: str, fence: Fence) -> Steps[None]:
    """Give the lease back, if it is still this holder's."""
    yield Statement(
        "UPDATE heads SET lease_run = '', lease_until = 0, last_activity = ? "
        "WHERE session_id = ? AND lease_run = ? AND epoch = ?",
        (now, session_id, fence.run_id, fence.epoch),
    )


def refusal(now: Micros, session_id: str, fence: Fence | None = None) -> Steps[AlcoveError]:
    """Return why the head could not be taken."""
    rows = yield Statement("SELECT trashed, lease_run, lease_until FROM heads WHERE session_id = ?", (session_id,))
    if not rows or (rows[0][0] and not fence):
        return SessionNotFoundError(
            f"session {session_id} is in the trash" if rows else f"there is no session {session_id}",
            field="session_id",
            session_id=session_id,
        )
    [(_, run_id, lease_until)] = rows
    if fence:
        return StaleEpochError(session_id=session_id, run_id=fence.run_id)
    if lease_until > now:
        return SessionBusyError(
            f"run {run_id} holds session {session_id}",
            remedy="wait for it to end, or cancel it",
            session_id=session_id,
            run_id=run_id,
        )
    return SessionExpiredError(session_id=session_id)
