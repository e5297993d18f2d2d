"""The transactions over what has happened in dialogs: reading it, telling it, and going back to it."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from alcove.clock import SECOND, Micros
from alcove.database.op import Row, Statement, Steps
from alcove.dialogs.model import Cause, Step
from alcove.dialogs.queries import COLUMNS, LEFT
from alcove.sessions.heads import refusal
from alcove.values import Json

TOLD = -1  # in `telling`
_decode = msgspec.json.Decoder(dict[str, Json]).decode


def steps(now: Micros, session_id: str, after: int, limit: int) -> Steps[list[Step]]:
    """Return what happened in a dialog after a version, in order."""
    heads = yield Statement("SELECT trashed FROM heads WHERE session_id = ?", (session_id,))
    if not heads or heads[0][0]:
        raise (yield from refusal(now, session_id))
    rows = yield Statement(
        f"SELECT {COLUMNS} FROM dialog_steps WHERE session_id = ? AND version > ? ORDER BY version LIMIT ?",
        (session_id, after, limit),
    )
    return [_read(row) for row in rows]


def take_untold(
    now: Micros, tenant: str, app: str | None, lease_s: float, age_s: float, limit: int
) -> Steps[list[Step]]:
    """Return time-outs that nobody has told of and keep others off them for a while, the oldest first."""
    condition, values = ("AND s.app = ? ", (app,)) if app is not None else ("", ())
    # A cross join keeps SQLite from going through all sessions of the tenant: those untold are few.
    rows = yield Statement(
        "UPDATE dialog_steps SET telling = ? WHERE telling >= 0 AND telling <= ? AND (session_id, version) IN ("
        "SELECT d.session_id, d.version FROM dialog_steps d CROSS JOIN sessions s "
        "WHERE s.id = d.session_id AND d.telling >= 0 AND d.telling <= ? AND d.created_at > ? "
        f"AND s.trashed_at = 0 AND s.tenant = ? {condition}"
        f"ORDER BY d.created_at, d.session_id LIMIT ?) RETURNING {COLUMNS}",
        (now + round(lease_s * SECOND), now, now, now - round(age_s * SECOND), tenant, *values, limit),
    )
    return sorted((_read(row) for row in rows), key=lambda step: (step.created_us, step.session_id, step.version))


def told(now: Micros, session_id: str, version: int) -> Steps[None]:
    """Note that a time-out has been told."""
    yield Statement(
        f"UPDATE dialog_steps SET telling = {TOLD} WHERE session_id = ? AND version = ?", (session_id, version)
    )


def copy(now: Micros, source: str, target: str, last_seq: int) -> Steps[None]:
    """Give a new session the dialog that another one had at a `seq`, for a fork. Nothing without one.

    The fork's wait begins anew where the original's would have ended already.
    """
    found = yield from _at(source, last_seq)
    if found:
        yield from _put(now, target, 1, "start", found)


def restore(now: Micros, session_id: str, last_seq: int) -> Steps[None]:
    """Bring a dialog back to where it was at a `seq`, for a rewind; the head is locked. Nothing without a dialog.

    Where it had not begun there is none again; its steps stay, because somebody may be listening to them.
    """
    [[version]] = yield Statement("SELECT dialog_version FROM heads WHERE session_id = ?", (session_id,))
    if not version:
        return
    found = yield from _at(session_id, last_seq)
    yield from _put(now, session_id, version + 1, "restore" if found else LEFT, found or _NOWHERE)


class _Place(NamedTuple):
    """What a step led to."""

    before: str
    state: str
    slots: str
    definition: str
    wait: Micros


_NOWHERE: Final = _Place("", "", "{}", "", 0)


def _at(session_id: str, last_seq: int) -> Steps[_Place | None]:
    """Return where the last step before any later message led; None when there was no dialog."""
    rows = yield Statement(
        "SELECT state_before, state, slots, definition, "
        "CASE WHEN due_at > 0 THEN due_at - created_at ELSE 0 END, cause "
        "FROM dialog_steps WHERE session_id = ? AND last_seq <= ? ORDER BY version DESC LIMIT 1",
        (session_id, last_seq),
    )
    return _Place(*rows[0][:5]) if rows and rows[0][5] != LEFT else None


def _put(now: Micros, session_id: str, version: int, cause: Cause, place: _Place) -> Steps[None]:
    due = now + place.wait if place.wait else 0
    [[last_seq]] = yield Statement(
        "UPDATE heads SET dialog_version = ?, dialog_state = ?, dialog_due = ? WHERE session_id = ? RETURNING last_seq",
        (version, place.state, due, session_id),
    )
    yield Statement(
        f"INSERT INTO dialog_steps ({COLUMNS}, definition, telling) "
        f"VALUES (?, ?, ?, '', ?, ?, ?, '', 0, ?, ?, ?, ?, {TOLD})",
        (session_id, version, cause, place.before, place.state, place.slots, last_seq, due, now, place.definition),
    )


def _read(row: Row) -> Step:
    (session_id, version, cause, event, before, state, slots, message, first_seq, last_seq, due_us, created) = row
    return Step(
        session_id=session_id,
        version=version,
        cause=cause,
        event=event,
        before=before,
        state=state,
        slots=_decode(slots),
        message=message,
        first_seq=first_seq,
        last_seq=last_seq,
        due_us=due_us,
        created_us=created,
    )
