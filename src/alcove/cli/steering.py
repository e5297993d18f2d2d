"""`alcove runs steer`, `queue` and `cancel`: messages for a session that is busy."""

from __future__ import annotations

import click

from alcove import limits
from alcove.cli import installation, options, output, views
from alcove.cli.installation import Hub
from alcove.clock import SystemClock, seconds
from alcove.errors import InvalidError, RunNotFoundError
from alcove.runs.model import Run

_SHOWN_CHARS = 60  # of a message in a table; --json has all

busy = click.option(
    "--busy",
    type=click.Choice(["reject", "queue", "steer", "interrupt"]),
    default="reject",
    show_default=True,
    help="What becomes of MESSAGE while a run goes on: it is refused, answered next, taken by that run, or that run "
    "gives way to it.",
)


@click.command(short_help="Put a message to the run of a session that goes on.")
@click.argument("session_id", metavar="ID", shell_complete=options.complete_sessions)
@click.argument("message", metavar="MESSAGE")
@click.option("--agent", metavar="NAME", default="", help="Only to a run of this agent.")
@options.json
@options.server
@installation.blocking
async def steer(session_id: str, message: str, agent: str, as_json: bool) -> None:
    """Put MESSAGE to the newest run of a session that goes on, which takes it when it is ready for it.

    What it has not taken when it ends is returned: `alcove tail` shows it. Write `--` before a MESSAGE that begins
    with a dash.
    """
    async with installation.opened(folders=False) as hub:
        session = await installation.find_session(hub, session_id)
        steered = await hub.runs.steer(message, session_id=session.id, agent=agent)
    if as_json:
        output.write_json({"run_id": steered.run_id, "n": steered.n, "waiting": steered.waiting})
        return
    click.echo(steered.run_id)
    if steered.waiting > 1:
        output.note(f"{steered.waiting} messages wait for it")


@click.command(short_help="List the messages that wait in a session.")
@click.argument("session_id", metavar="ID", shell_complete=options.complete_sessions)
@options.json
@options.server
@installation.blocking
async def queue(session_id: str, as_json: bool) -> None:
    """List the messages that wait until their session is free, the next one first."""
    async with installation.opened(folders=False) as hub:
        session = await installation.find_session(hub, session_id)
        found = await hub.runs.queue(session.id)
    if as_json:
        rows = [
            {
                "run_id": one.run_id,
                "position": one.position,
                "message": one.message,
                "agent": one.agent,
                "interrupts": one.interrupts,
                "made_by": one.made_by,
                "created_at": seconds(one.created_us),
            }
            for one in found
        ]
        output.write_json({"queue": [*rows]})
        return
    now = SystemClock().now()
    table = [
        (
            str(one.position),
            one.run_id,
            one.agent,
            output.duration(now - one.created_us),
            one.message if len(one.message) <= _SHOWN_CHARS else f"{one.message[:_SHOWN_CHARS]}…",
        )
        for one in found
    ]
    output.write_table(("NEXT", "RUN", "AGENT", "WAITS", "MESSAGE"), table)


@click.command(short_help="Cancel a run, or take a queued one out of the queue.")
@click.argument("run_id", metavar="RUN")
@options.json
@options.server
@installation.blocking
async def cancel(run_id: str, as_json: bool) -> None:
    """Cancel a run: its process tree is gone before it has ended. One that is queued is not begun.

    RUN is its id, or the beginning of it. A run that has ended stays as it is.
    """
    async with installation.opened(folders=False) as hub:
        run = await hub.runs.cancel((await _find(hub, run_id)).id)
    if as_json:
        output.write_json(views.run_json(run))
        return
    click.echo(run.id)
    if not run.ended:
        output.note("another process looks after it, and ends it within seconds")


async def _find(hub: Hub, prefix: str) -> Run:
    """Return the run that is meant: by its id, or one that has not ended by the beginning of it.

    Raises:
        RunNotFoundError: There is none.
        InvalidError: There are several; the remedy names them.
    """
    try:
        return await hub.runs.get(prefix)
    except RunNotFoundError:
        found: list[Run] = []
    cursor: str | None = None
    while True:
        page = await hub.runs.list(active=True, limit=limits.PAGE, cursor=cursor)
        found += [run for run in page.runs if run.id.startswith(prefix)]
        cursor = page.next_cursor
        if not cursor:
            break
    if len(found) > 1:
        names = ", ".join(run.id for run in found[: limits.PREFIX_SESSIONS])
        raise InvalidError(f"{prefix!r} begins several ids", field="run", remedy=f"give more of one: {names}")
    if not found:
        raise RunNotFoundError(
            f"there is no run {prefix!r} that goes on", field="run", remedy="`alcove runs` lists them"
        )
    return found[0]
