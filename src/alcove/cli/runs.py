"""`alcove runs ls`, `exec` and `tail`."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator

import click

from alcove import limits
from alcove.cli import approving, installation, options, output, steering, views
from alcove.cli.installation import Hub
from alcove.cli.speaking import Speaker
from alcove.clock import SystemClock
from alcove.durations import duration_s
from alcove.errors import InvalidError, RunNotFoundError
from alcove.events.model import FINISHED, Event
from alcove.runs.model import Run, RunStatus
from alcove.values import Json

# Events in words of theirs.
_SAID = frozenset({"output", "message", "gap", "approval.requested", "approval.decided", "steering.returned"})


class Runs(click.Group):
    """A group that lists when it is told nothing else: `alcove runs ID` is `alcove runs ls ID`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the command that was typed, or put the one that lists before what was."""
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["ls", *args]
        return super().parse_args(ctx, args)


@click.group(cls=Runs, short_help="List runs; answer, steer and cancel them.")
def runs() -> None:
    """Runs: listed, newest first, unless a command says otherwise: `alcove runs ID` is `alcove runs ls ID`."""


@runs.command(short_help="List runs, newest first.")
@click.argument("session_id", metavar="[ID]", required=False, shell_complete=options.complete_sessions)
@click.option(
    "--limit", type=click.IntRange(1, limits.PAGE), default=limits.PAGE_DEFAULT, show_default=True, help="At most."
)
@options.json
@options.server
@installation.blocking
async def ls(session_id: str | None, limit: int, as_json: bool) -> None:
    """List runs, newest first: of one session, or of all."""
    async with installation.opened(folders=False) as hub:
        session = await installation.find_session(hub, session_id) if session_id else None
        page = await hub.runs.list(session.id if session else None, limit=limit)
    if as_json:
        output.write_json({"runs": [views.run_json(run) for run in page.runs], "next_cursor": page.next_cursor})
        return
    views.write_runs(page.runs, SystemClock().now(), sessions=True)
    if page.next_cursor:
        output.note(f"the newest {limit} are shown")


for _one in (approving.waiting, approving.approve, approving.deny, steering.queue, steering.steer, steering.cancel):
    runs.add_command(_one)


@click.command(
    "exec",
    short_help="Run a command in a session's workspace, confined.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("session_id", metavar="ID", shell_complete=options.complete_sessions)
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--timeout", "ends_after", metavar="TIME", help="End it after 30s, 15m, 2h.")
@click.option("--raw", is_flag=True, help="On a terminal too, show colours and cursor movements.")
@options.server
@installation.blocking
async def execute(session_id: str, command: tuple[str, ...], ends_after: str | None, raw: bool) -> None:
    """Run a command in a session's workspace, confined as every run is, and pass its exit code on.

    It is a run of the agent `shell`, in the session's history too. Standard input is empty; Ctrl-C cancels it.
    When the command could not be run, or timed out, the exit code is 1 and a line on stderr says so.
    """
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("there is no command after `--`")
    timeout_s = duration_s(ends_after, field="timeout") if ends_after else None
    async with installation.opened() as hub:
        session = await installation.find_session(hub, session_id)
        run = await hub.runs.start(session.id, shlex.join(words), agent="shell", timeout_s=timeout_s)
        speaker = Speaker(raw=raw)
        try:
            await speaker.follow(hub, run)
            run = await hub.runs.get(run.id)
        except asyncio.CancelledError:
            await hub.runs.cancel(run.id)
            raise
    if run.status != RunStatus.FINISHED:
        output.complain(views.ending(run))
    raise click.exceptions.Exit(run.exit_code if run.status == RunStatus.FINISHED and run.exit_code is not None else 1)


@click.command(short_help="Show what happens in the runs of a session, while it happens.")
@click.argument("session_id", metavar="ID", shell_complete=options.complete_sessions)
@click.option("--follow", "-f", is_flag=True, help="Wait for more, also for runs to come.")
@click.option("--lines", "-n", type=click.IntRange(0), metavar="N", help="Begin with the last N events.")
@click.option("--run", "run_id", metavar="RUN", help="This run; the last one otherwise.")
@click.option("--after", type=click.IntRange(0), metavar="N", help="Resume behind event N of the run.")
@options.json
@options.server
@installation.blocking
async def tail(
    session_id: str, follow: bool, lines: int | None, run_id: str | None, after: int | None, as_json: bool
) -> None:
    """Show the events of a session's last run: on a terminal what was said, in a pipe a line for each event.

    A line has the run, the event's number, its type and its data as JSON; --after resumes behind a number, also days
    later. With --follow it waits for what is still to come, in this run and in those after it, until Ctrl-C; with
    --run only to the end of that run.
    """
    async with installation.opened(folders=False) as hub:
        session = await installation.find_session(hub, session_id)
        run = await _chosen(hub, session.id, run_id)
        if after is not None and run is None:
            raise InvalidError("there is no run to resume", field="after", remedy="leave --after out")
        shown = _Shown(as_json=as_json)
        if run is not None:
            found = [event async for event in _so_far(hub, run.id, after or 0)]
            for event in found if lines is None else found[len(found) - min(lines, len(found)) :]:
                shown.write(run, event)
            heard = found[-1].n if found else after or 0
            if follow and not (found and found[-1].type == FINISHED):
                async for event in hub.runs.events(run.id, heard):
                    shown.write(run, event)
        while follow and run_id is None:
            run = await _next(hub, session.id, run)
            async for event in hub.runs.events(run.id):
                shown.write(run, event)


async def _chosen(hub: Hub, session_id: str, run_id: str | None) -> Run | None:
    found = (await hub.runs.list(session_id, limit=limits.PAGE if run_id else 1)).runs
    if run_id is None:
        return found[0] if found else None
    fitting = [run for run in found if run.id.startswith(run_id)]
    if not fitting:
        raise RunNotFoundError(
            f"session {session_id} has no run {run_id!r}", field="run", remedy=f"`alcove runs {session_id}` lists them"
        )
    if len(fitting) > 1:
        names = ", ".join(run.id for run in fitting[: limits.PREFIX_SESSIONS])
        raise InvalidError(f"{run_id!r} begins several ids", field="run", remedy=f"give more of one: {names}")
    return fitting[0]


async def _so_far(hub: Hub, run_id: str, after: int) -> AsyncIterator[Event]:
    while found := await hub.events.read(run_id, after):
        for event in found:
            yield event
        after = found[-1].n


async def _next(hub: Hub, session_id: str, last: Run | None) -> Run:
    """Wait for the first run after the last one that was seen."""
    while True:
        newer: list[Run] = []
        for run in (await hub.runs.list(session_id)).runs:
            if last and run.id == last.id:
                break
            newer.append(run)
        if newer:
            return newer[-1]
        await asyncio.sleep(limits.EVENT_POLL_S)


class _Shown:
    """Events as they are written."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._speaker = Speaker(raw=False)

    def write(self, run: Run, event: Event) -> None:
        """Write one event."""
        if self._as_json:
            output.write_json_line({"run_id": run.id, "id": event.n, "event": event.type, "data": event.data})
        elif output.terminal_columns() is None:
            data = json.dumps(event.data, ensure_ascii=False)
            click.echo("\t".join((run.id, str(event.n), event.type, output.visible(data))))
        else:
            self._speaker.hear(event)
            if event.type not in _SAID:
                facts = " ".join(
                    f"{name}={_brief(value)}" for name, value in event.data.items() if value not in ("", None)
                )
                output.note(f"{event.type} {facts}")


def _brief(value: Json) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
