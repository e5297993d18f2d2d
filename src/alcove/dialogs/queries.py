"""The transactions of dialogs. A step looks first and then moves the head only if it is still where it was seen."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import NamedTuple, TypeAlias

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.database.idempotency import Once, remember
from alcove.database.op import Statement, Steps
from alcove.dialogs import rules
from alcove.dialogs.loading import decoded
from alcove.dialogs.model import FREE_FORM, Cause, Definition, Dialog, Event, Position, Step
from alcove.errors import ConflictError, DialogNotFoundError, VersionMismatchError
from alcove.messages import queries as messages
from alcove.messages.model import Draft
from alcove.messages.rules import stored, turns_opened
from alcove.messages.writing import NOTHING, Said
from alcove.sessions.heads import Stand, refusal, take_step
from alcove.values import Json

Known: TypeAlias = MutableMapping[str, Definition]
"""Definitions by id, remembered between operations: a stored one never changes."""

_HERE = (
    "SELECT h.trashed, h.dialog_version, h.dialog_due, s.definition, s.state, s.slots, s.created_at, f.next, s.cause "
    "FROM heads h LEFT JOIN dialog_steps s ON s.session_id = h.session_id AND s.version = h.dialog_version "
    "LEFT JOIN dialog_definitions f ON f.id = s.definition WHERE h.session_id = ?"
)
COLUMNS = (
    "session_id, version, cause, event, state_before, state, slots, message, first_seq, last_seq, due_at, created_at"
)
_INSERT = f"INSERT INTO dialog_steps ({COLUMNS}, definition, telling) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
LEFT: Cause = "leave"
_decode = msgspec.json.Decoder(dict[str, Json]).decode


class Here(NamedTuple):
    """Where a session's dialog stands; `definition` is `''` for a free-form one.

    Where there is none, `version` counts all the same: what was heard once is not told again under the same number.
    """

    there: bool
    version: int
    position: Position
    definition: str
    changed_us: Micros
    next: str


class Move(NamedTuple):
    """Where a dialog is to go, and why."""

    cause: Cause
    event: str
    before: str
    position: Position
    definition: str
    message: str = ""


def _look(now: Micros, session_id: str, *, lock: bool = False) -> Steps[Here]:
    """Return where the dialog stands, or that there is none.

    Raises:
        SessionNotFoundError: There is no such session, or it is in the trash.
    """
    if lock:
        yield Statement("UPDATE heads SET dialog_version = dialog_version WHERE session_id = ?", (session_id,))
    rows = yield Statement(_HERE, (session_id,))
    if not rows or rows[0][0]:
        raise (yield from refusal(now, session_id))
    _, version, due, definition, state, slots, changed, following, cause = rows[0]
    if not version or cause == LEFT:
        return Here(False, version, Position("", {}), "", 0, "")
    return Here(True, version, Position(state, _decode(slots), due), definition, changed, following or "")


def _definition(definition_id: str, known: Known) -> Steps[Definition]:
    """Return a stored definition. It is decoded once: remembering it changes nothing that anybody could see."""
    if definition_id not in known:
        [[source]] = yield Statement("SELECT source FROM dialog_definitions WHERE id = ?", (definition_id,))
        if len(known) >= limits.DIALOGS_KNOWN:
            known.clear()
        known[definition_id] = decoded(source)
    return known[definition_id]


def _there(session_id: str, here: Here) -> Here:
    if not here.there:
        raise DialogNotFoundError(
            f"session {session_id} has no dialog", field="session_id", remedy="start one", session_id=session_id
        )
    return here


def _expect(session_id: str, here: Here, expected_version: int | None) -> None:
    if expected_version is not None and here.version != expected_version:
        raise VersionMismatchError(
            f"the dialog of session {session_id} is at version {here.version}, not {expected_version}",
            field="expected_version",
            remedy="read it again, then decide",
            version=here.version,
            state=here.position.state,
        )


def _declared(session_id: str, here: Here) -> None:
    if not here.definition:
        raise ConflictError(
            f"the dialog of session {session_id} is free-form and takes no events",
            field="event",
            remedy="set its state and slots, or start a declared dialog",
        )


def _current(here: Here, known: Known) -> Steps[tuple[str, Definition, Position]]:
    """Return the definition that a session follows: newer ones, where they say how, and the position in it."""
    definition_id, position, following = here.definition, here.position, here.next
    definition = yield from _definition(definition_id, known)
    while following:
        new = yield from _definition(following, known)
        there = rules.change(new, new.changes[definition.number], position)
        if there is None:
            break
        definition_id, definition, position = following, new, there
        [[following]] = yield Statement("SELECT next FROM dialog_definitions WHERE id = ?", (definition_id,))
    return definition_id, definition, position


def get(now: Micros, session_id: str, known: Known, *, due_too: bool) -> Steps[Dialog | None]:
    """Return the dialog of a session; None when its state has timed out, unless that will do."""
    here = _there(session_id, (yield from _look(now, session_id)))
    if _is_due(now, here) and not due_too:
        return None
    return (yield from _dialog(session_id, here, known))


def followed(now: Micros, session_id: str, known: Known) -> Steps[Definition]:
    """Return the definition that a session follows."""
    here = _there(session_id, (yield from _look(now, session_id)))
    if not here.definition:
        raise DialogNotFoundError(f"the dialog of session {session_id} is free-form", session_id=session_id)
    return (yield from _definition(here.definition, known))


def _dialog(session_id: str, here: Here, known: Known) -> Steps[Dialog]:
    position, definition = here.position, None
    if here.definition:
        definition = yield from _definition(here.definition, known)
    return Dialog(
        session_id=session_id,
        name=definition.name if definition else FREE_FORM,
        number=definition.number if definition else 0,
        version=here.version,
        state=position.state,
        slots=dict(position.slots),
        takes=rules.takes(definition, position) if definition else (),
        final=definition.states[position.state].final if definition else False,
        due_us=position.due_us,
        changed_us=here.changed_us,
    )


def preview(now: Micros, session_id: str, event: Event, known: Known) -> Steps[Dialog | None]:
    """Return the dialog as it would be after an event, at its present version; None when its state has timed out."""
    here = _there(session_id, (yield from _look(now, session_id)))
    _declared(session_id, here)
    if _is_due(now, here):
        return None
    definition_id, definition, position = yield from _current(here, known)
    after = rules.step(definition, position, event, now)
    return (yield from _dialog(session_id, here._replace(position=after, definition=definition_id), known))


def _moved(
    now: Micros,
    session_id: str,
    decide: Callable[[Here], Steps[Move | None]],
    said: Said = NOTHING,
    *,
    quiet: bool = False,
    request: Once | None = None,
) -> Steps[Step | None]:
    """Look, decide and move; None when the decision is to do nothing.

    Somebody else may move the dialog between the look and the move: then it looks again, and holds the session while
    it does.
    """
    for attempt in range(limits.EXPECTED_STEPS):
        here = yield from _look(now, session_id, lock=attempt > 0)
        move = yield from decide(here)
        if move is None:
            return None
        stand = Stand(here.version, move.position.state, move.position.due_us)
        count, opened = len(said.messages), turns_opened(said.messages)
        moved = yield from take_step(now, session_id, count, opened, stand, quiet=quiet)
        if moved is None:
            continue
        last_seq, turn_count = moved
        if count:
            yield from messages.write(now, session_id, last_seq - count + 1, turn_count - opened, *said)
        step = _step(now, session_id, here.version + 1, move, count, last_seq)
        yield _insert(step, move)
        if request:
            yield remember(now, request, step)
        return step
    raise ConflictError(f"the dialog of session {session_id} moves faster than it can be looked at")


def _step(now: Micros, session_id: str, version: int, move: Move, said: int, last_seq: int) -> Step:
    return Step(
        session_id=session_id,
        version=version,
        cause=move.cause,
        event=move.event,
        before=move.before,
        state=move.position.state,
        slots=dict(move.position.slots),
        message=move.message,
        first_seq=last_seq - said + 1 if said else 0,
        last_seq=last_seq,
        due_us=move.position.due_us,
        created_us=now,
    )


def _insert(step: Step, move: Move) -> Statement:
    untold = 0 if step.cause == "timeout" else -1
    return Statement(
        _INSERT,
        (
            step.session_id,
            step.version,
            step.cause,
            step.event,
            step.before,
            step.state,
            rules.encoded(step.slots),
            step.message,
            step.first_seq,
            step.last_seq,
            step.due_us,
            step.created_us,
            move.definition,
            untold,
        ),
    )


def _is_due(now: Micros, here: Here) -> bool:
    return 0 < here.position.due_us <= now


def step(
    now: Micros,
    session_id: str,
    event: Event,
    said: Said,
    known: Known,
    *,
    expected_version: int | None,
    request: Once | None,
) -> Steps[Step | None]:
    """Take an event; None when the state has timed out meanwhile: that has to happen first."""

    def decide(here: Here) -> Steps[Move | None]:
        _there(session_id, here)
        _declared(session_id, here)
        if _is_due(now, here):
            return None
        _expect(session_id, here, expected_version)
        definition_id, definition, position = yield from _current(here, known)
        after = rules.step(definition, position, event, now)
        return Move("event", event.name, here.position.state, after, definition_id)

    return (yield from _moved(now, session_id, decide, said, request=request))


def fire(now: Micros, session_id: str, known: Known) -> Steps[Step | None]:
    """Let the time-out of a session's state happen if it is due; None when it is not, or has happened."""
    here = yield from _look(now, session_id, lock=True)
    if not here.there or not here.definition or not _is_due(now, here):
        return None
    definition = yield from _definition(here.definition, known)
    after, timeout = rules.time_out(definition, here.position, now)

    def decide(_: Here) -> Steps[Move | None]:
        yield from ()
        return Move("timeout", timeout.event, here.position.state, after, here.definition, timeout.message)

    said = _told(timeout.message) if timeout.message else NOTHING
    return (yield from _moved(now, session_id, decide, said, quiet=True))


def _told(text: str) -> Said:
    """Return the message that a time-out writes."""
    return Said([stored(Draft("assistant", text, metadata={"alcove": {"by": "timeout"}}))], {})


def start(
    now: Micros, session_id: str, definition_id: str, definition: Definition | None, *, restart: bool
) -> Steps[Step | None]:
    """Begin a dialog (free-form without a definition); None when the session is in it already."""

    def decide(here: Here) -> Steps[Move | None]:
        if here.there and not restart and (yield from _is_in(here, definition)):
            return None
        if here.there and not restart:
            raise ConflictError(
                f"session {session_id} is in another dialog",
                field="name",
                remedy="restart to leave it",
                state=here.position.state,
            )
        position = rules.begin(definition, now) if definition else Position("", {})
        return Move("start", "", "", position, definition_id)

    return (yield from _moved(now, session_id, decide))


def _is_in(here: Here, definition: Definition | None) -> Steps[bool]:
    """Return whether a session is in a version of this dialog."""
    if not here.definition or definition is None:
        return not here.definition and definition is None
    rows = yield Statement("SELECT name FROM dialog_definitions WHERE id = ?", (here.definition,))
    return rows[0][0] == definition.name


def put(
    now: Micros,
    session_id: str,
    state: str,
    slots: dict[str, Json],
    said: Said,
    *,
    expected_version: int | None,
    request: Once | None,
) -> Steps[Step | None]:
    """Set state and slots of a free-form dialog."""

    def decide(here: Here) -> Steps[Move | None]:
        yield from ()
        _expect(session_id, _there(session_id, here), expected_version)
        if here.definition:
            raise ConflictError(
                f"the dialog of session {session_id} is declared, and moves by events only",
                field="state",
                remedy="send it an event, or restart it as free-form",
            )
        return Move("set", "", here.position.state, Position(state, slots), "")

    return (yield from _moved(now, session_id, decide, said, request=request))


def reset(now: Micros, session_id: str, known: Known, *, clear: bool) -> Steps[Step | None]:
    """Bring the dialog back to its start, and hide the history too with `clear`. Without a dialog only the latter."""

    def decide(here: Here) -> Steps[Move | None]:
        if not here.there:
            if not clear:
                _there(session_id, here)
            return None
        if not here.definition:
            return Move("reset", "", here.position.state, Position("", {}), "")
        definition_id, definition, position = yield from _current(here, known)
        after = rules.reset(definition, position, now)
        return Move("reset", "", here.position.state, after, definition_id)

    done = yield from _moved(now, session_id, decide)
    if clear:
        yield from messages.clear(now, session_id)
    return done


def due(now: Micros, after: tuple[Micros, str], limit: int) -> Steps[list[tuple[Micros, str]]]:
    """Return the sessions whose state has timed out and that nobody holds, the longest due first."""
    rows = yield Statement(
        "SELECT dialog_due, session_id FROM heads WHERE dialog_due > 0 AND dialog_due <= ? "
        "AND (dialog_due, session_id) > (?, ?) AND trashed = 0 AND lease_until <= ? "
        "ORDER BY dialog_due, session_id LIMIT ?",
        (now, *after, now, limit),
    )
    return [(row[0], row[1]) for row in rows]
