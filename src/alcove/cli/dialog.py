"""`alcove dialog check`, `draw` and `show`."""

from __future__ import annotations

import json
import os

import click

from alcove.cli import installation, options, output
from alcove.clock import SystemClock, seconds
from alcove.dialogs.drawing import mermaid
from alcove.dialogs.loading import examine, refusal
from alcove.dialogs.model import FREE_FORM, Dialog, Step
from alcove.errors import InvalidError
from alcove.values import Json


@click.group(short_help="Check and draw a dialog, show where a session is in one.")
def dialog() -> None:
    """Dialogs: declared state machines with slots. `check` and `draw` need a file only, and no installation."""


@dialog.command(short_help="Find what is wrong with a definition.")
@click.argument("file", type=click.Path())
@options.json
def check(file: str, as_json: bool) -> None:
    """Check the definition in FILE (.toml or .json): every fault, with its line. With one the exit code is 2."""
    definition, faults = examine(file)
    if as_json:
        told: dict[str, Json] = {"file": file, "faults": [*faults]}
        if definition is not None:
            told |= {"name": definition.name, "version": definition.number, "digest": definition.digest}
        output.write_json(told)
    elif definition is not None and not faults:
        counts = (output.counted(len(definition.states), "state"), output.counted(len(definition.slots), "slot"))
        click.echo(f"{output.visible(definition.name)} version {definition.number}: {', '.join(counts)}, no fault")
    else:
        for fault in faults:
            click.echo(output.visible(fault), err=True)
    if definition is None or faults:
        raise click.exceptions.Exit(output.USAGE)


@dialog.command(short_help="Draw a definition as a Mermaid diagram.")
@click.argument("which", metavar="FILE|SESSION")
@options.server
def draw(which: str) -> None:
    """Draw the definition in FILE, or the one that SESSION follows with its state marked, as a Mermaid diagram."""
    if os.path.exists(which) or which.endswith((".toml", ".json")):
        definition, faults = examine(which)
        if definition is None:
            raise refusal(faults)
        for fault in faults:
            output.warn(fault)
        click.echo(mermaid(definition), nl=False)
    else:
        _draw_session(which)


@installation.blocking
async def _draw_session(which: str) -> None:
    async with installation.opened(folders=False) as hub:
        session = await installation.find_session(hub, which)
        found = await hub.dialogs.get(session.id)
        if found.name == FREE_FORM:
            raise InvalidError(f"the dialog of session {session.id} is free-form", remedy="there is nothing to draw")
        definition = await hub.dialogs.followed(session.id)
    click.echo(mermaid(definition, found.state), nl=False)


@dialog.command(short_help="Show where a session is in its dialog.")
@click.argument("session_id", metavar="ID", shell_complete=options.complete_sessions)
@options.server
@options.json
@installation.blocking
async def show(session_id: str, as_json: bool) -> None:
    """Show the dialog of a session: state, slots, what it takes, when it times out, and what happened last."""
    async with installation.opened(folders=False) as hub:
        session = await installation.find_session(hub, session_id)
        found = await hub.dialogs.get(session.id)
        steps = await hub.dialogs.steps(session.id, after=max(0, found.version - 10))
    if as_json:
        output.write_json({**_json(found), "last_steps": [_step_json(step) for step in steps]})
        return
    now = SystemClock().now()
    rows = [
        ["session", found.session_id],
        ["dialog", found.name if found.name == FREE_FORM else f"{found.name} version {found.number}"],
        ["state", found.state or "-"],
        ["takes", ", ".join(found.takes) or "-"],
        ["times out", f"in {output.duration(found.due_us - now)}" if found.due_us else "never"],
        *([f"slot {name}", json.dumps(value, ensure_ascii=False)] for name, value in found.slots.items()),
    ]
    output.write_table(("FIELD", "VALUE"), rows, kind="dialog")
    if output.terminal_columns() is not None:
        click.echo()
    lines = [
        [str(step.version), step.cause, step.event or "-", step.before or "-", step.state or "-", _ago(step, now)]
        for step in steps
    ]
    output.write_table(("STEP", "CAUSE", "EVENT", "FROM", "TO", "AGO"), lines, kind="step")


def _ago(step: Step, now: int) -> str:
    return output.duration(now - step.created_us)


def _json(found: Dialog) -> dict[str, Json]:
    return {
        "session_id": found.session_id,
        "name": found.name,
        "number": found.number,
        "version": found.version,
        "state": found.state,
        "slots": found.slots,
        "takes": [*found.takes],
        "final": found.final,
        "due_at": seconds(found.due_us) if found.due_us else None,
        "changed_at": seconds(found.changed_us),
    }


def _step_json(step: Step) -> dict[str, Json]:
    return {
        "version": step.version,
        "cause": step.cause,
        "event": step.event,
        "before": step.before,
        "state": step.state,
        "slots": step.slots,
        "message": step.message,
        "created_at": seconds(step.created_us),
    }
