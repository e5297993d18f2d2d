"""Dialogs in an archive: the definitions that its sessions follow, and what happened in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from alcove import ids, limits
from alcove.archive.lines import DefinitionLine, StepLine, damaged, micros_of
from alcove.clock import Micros, seconds
from alcove.database.op import Statement, Steps
from alcove.dialogs import definitions as stored, rules
from alcove.dialogs.loading import load
from alcove.dialogs.model import Cause, Definition
from alcove.dialogs.queries import COLUMNS, LEFT
from alcove.errors import InvalidError
from alcove.values import Json

Definitions: TypeAlias = Mapping[tuple[str, int], Definition]
"""By name and number."""

_TOLD = -1
_decode = msgspec.json.Decoder(dict[str, Json]).decode

# -- out -------------------------------------------------------------------------------------------------------------


def followed(now: Micros, session_id: str) -> Steps[list[DefinitionLine]]:
    """Return the definitions that a session has followed."""
    rows = yield Statement(
        "SELECT DISTINCT f.name, f.number, f.source FROM dialog_steps s "
        "JOIN dialog_definitions f ON f.id = s.definition WHERE s.session_id = ? ORDER BY f.name, f.number",
        (session_id,),
    )
    return [DefinitionLine(name=name, number=number, source=source) for name, number, source in rows]


def steps(now: Micros, session_id: str, after: int, limit: int) -> Steps[list[StepLine]]:
    """Return what happened in a dialog after a version, in order."""
    rows = yield Statement(
        "SELECT s.version, s.cause, s.event, s.state_before, s.state, s.slots, s.message, s.first_seq, s.last_seq, "
        "s.due_at, s.created_at, COALESCE(f.name, ''), COALESCE(f.number, 0) "
        "FROM dialog_steps s LEFT JOIN dialog_definitions f ON f.id = s.definition "
        "WHERE s.session_id = ? AND s.version > ? ORDER BY s.version LIMIT ?",
        (session_id, after, limit),
    )
    return [_step(*row) for row in rows]


def _step(
    version: int,
    cause: Cause,
    event: str,
    before: str,
    state: str,
    slots: str,
    message: str,
    first_seq: int,
    last_seq: int,
    due_us: Micros,
    created_us: Micros,
    name: str,
    number: int,
) -> StepLine:
    return StepLine(
        version=version,
        cause=cause,
        event=event,
        before=before,
        state=state,
        slots=_decode(slots),
        message=message,
        first_seq=first_seq,
        last_seq=last_seq,
        due_at=seconds(due_us) if due_us else None,
        created_at=seconds(created_us),
        name=name,
        number=number,
    )


# -- in --------------------------------------------------------------------------------------------------------------


def definition(line: DefinitionLine) -> Definition:
    """Return a definition as it is imported.

    Raises:
        InvalidError: It has faults, or is another one than it says.
    """
    where = f"dialog {line.name[:64]!r}"
    if len(line.source) > limits.DIALOG_BYTES:
        raise damaged(f"{where} has {len(line.source)} bytes, and {limits.DIALOG_BYTES} are possible")
    try:
        found = load(msgspec.json.decode(line.source, type=dict[str, Json]))
    except (msgspec.DecodeError, RecursionError, InvalidError) as error:
        raise damaged(f"{where}: {error}") from error
    if (found.name, found.number) != (line.name, line.number):
        raise damaged(f"{where} is version {found.number} of {found.name!r}")
    return found


def check(line: StepLine, known: Definitions, last_seq: int) -> None:
    """Make sure that a dialog can have stood where a step led.

    Raises:
        InvalidError: It cannot.
    """
    if not 0 <= line.first_seq <= line.last_seq <= last_seq:
        raise damaged(f"step {line.version} has messages up to {line.last_seq}, and there are {last_seq}")
    micros_of(line.created_at)
    micros_of(line.due_at or 0)
    rules.encoded(line.slots)
    for text in (line.event, line.before, line.state):
        ids.name(text, field="state", empty=True)
    if max(map(len, (line.event, line.before, line.state))) > limits.DIALOG_NAME_CHARS:
        raise damaged(f"step {line.version} has a name of more than {limits.DIALOG_NAME_CHARS} characters")
    if len(line.message) > limits.DIALOG_MESSAGE_BYTES:
        raise damaged(f"step {line.version} says more than {limits.DIALOG_MESSAGE_BYTES} characters")
    if not line.name or line.cause == LEFT:
        return
    followed = known.get((line.name, line.number))
    if followed is None:
        raise damaged(f"version {line.number} of dialog {line.name[:64]!r} is missing")
    wrong = [
        name
        for name, value in line.slots.items()
        if name not in followed.slots or rules.fault(followed.slots[name], value)
    ]
    if line.state not in followed.states or wrong:
        what = f"slot {wrong[0][:64]!r}" if wrong else f"state {line.state!r}"
        raise damaged(f"step {line.version} has a {what} that dialog {line.name[:64]!r} does not allow")


def may_keep(now: Micros, tenant: str, line: DefinitionLine, digest: str) -> Steps[bool]:
    """Return whether a definition may be kept: there is none of its name and number, or it is the same."""
    rows = yield Statement(
        "SELECT digest FROM dialog_definitions WHERE tenant = ? AND name = ? AND number = ?",
        (tenant, line.name, line.number),
    )
    return all(found == digest for (found,) in rows)


def keep(now: Micros, tenant: str, found: Sequence[tuple[str, Definition]]) -> Steps[dict[tuple[str, int], str]]:
    """Keep definitions, each with a fresh id for it; return the ids that they have."""
    kept: dict[tuple[str, int], str] = {}
    for fresh_id, one in found:
        kept[one.name, one.number] = (yield from stored.store(now, fresh_id, tenant, one)).id
    return kept


def add(session_id: str, found: Sequence[StepLine], kept: Mapping[tuple[str, int], str]) -> Statement:
    """Add what happened in a dialog; what is there already stays. Time-outs have been told where they happened."""
    return Statement(
        f"INSERT INTO dialog_steps ({COLUMNS}, definition, telling) VALUES "
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (session_id, version) DO NOTHING",
        [
            (session_id, one.version, one.cause, one.event, one.before, one.state)
            + (rules.encoded(one.slots), one.message, one.first_seq, one.last_seq)
            + (micros_of(one.due_at or 0), micros_of(one.created_at), kept.get((one.name, one.number), ""), _TOLD)
            for one in found
        ],
        many=True,
    )


def settle(session_id: str, last: StepLine) -> Statement:
    """Say where the dialog of a session stands: where its last step led."""
    return Statement(
        "UPDATE heads SET dialog_version = ?, dialog_state = ?, dialog_due = ? WHERE session_id = ?",
        (last.version, last.state, micros_of(last.due_at or 0), session_id),
    )
