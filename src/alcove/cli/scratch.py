"""`alcove scratch dir`, `ls` and `sweep`: folders per trace id, for scripts. Loads neither hub nor database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import click

from alcove import scratch as folders
from alcove.cli import output
from alcove.clock import SystemClock, seconds
from alcove.durations import duration_s
from alcove.errors import InvalidError

_app = click.option("--app", required=True, metavar="APP", help="Whose folders: they are in APP-sessions/.")
_root = click.option("--root", metavar="DIR", help="Where that is; ALCOVE_SCRATCH_ROOT or this folder by default.")
_json = click.option("--json", "as_json", is_flag=True, help="Write JSON.")

_SECOND_US: Final = 1_000_000


def _refused(error: folders.ScratchError) -> click.exceptions.Exit:
    output.complain(error.message, error.remedy)
    return click.exceptions.Exit(output.ERROR)


@click.group(short_help="Folders per trace id, for scripts: dir, ls, sweep.")
def scratch() -> None:
    """Folders per trace id, for scripts that an agent calls. They need no installation and no server."""


@scratch.command("dir", short_help="Print the folder of this agent session, made if need be.")
@_app
@_root
@click.option("--trace-id", metavar="ID", help="Which session; TRACE_ID by default.")
def make(app: str, root: str | None, trace_id: str | None) -> None:
    """Print the folder of this agent session, made if need be and refreshed; old ones of other sessions are swept.

    The session is TRACE_ID in the environment, which the calling framework sets. Without it there is no folder: exit
    status 1, and standard error says what to do.

    A shell script that works for longer than a day without writing there keeps its folder by a lock:
    `exec 9<"$dir"; flock -s 9`.
    """
    try:
        path = folders.session_dir(app, root, trace_id=trace_id)
    except folders.ScratchError as error:
        raise _refused(error) from error
    click.echo(str(path))


@scratch.command("ls", short_help="List the folders of an app, the longest unused first.")
@_app
@_root
@_json
def ls(app: str, root: str | None, as_json: bool) -> None:
    """List the folders of an app, the longest unused first: when each was last active, and whether it is in use."""
    try:
        found = folders.folders(app, root)
    except folders.ScratchError as error:
        raise _refused(error) from error
    if as_json:
        rows = [
            {"trace_id": one.trace_id, "path": str(one.path), "active_at": one.active_at, "in_use": one.in_use}
            for one in found
        ]
        output.write_json({"folders": rows})
        return
    now = seconds(SystemClock().now())
    output.write_table(
        ("TRACE ID", "ACTIVE", "IN USE", "PATH"),
        [(one.trace_id, _when(one.active_at, now), "yes" if one.in_use else "no", str(one.path)) for one in found],
    )


def _when(at: float, now: float) -> str:
    """Return an age for people, and an instant for programs."""
    if output.terminal_columns() is None:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return f"{output.duration(int((now - at) * _SECOND_US))} ago"


@scratch.command("sweep", short_help="Remove the folders of an app that are old and not in use.")
@_app
@_root
@click.option("--older-than", metavar="TIME", default="24h", show_default=True, help="Not refreshed for this long.")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@_json
def sweep(app: str, root: str | None, older_than: str, dry_run: bool, as_json: bool) -> None:
    """Remove the folders of an app in which nothing was refreshed for a time and that no process holds.

    The exit code is 1 when one of them could not be removed; the others are.
    """
    max_age_s = duration_s(older_than, field="older-than")
    if max_age_s is None:
        raise InvalidError("what is never old is never swept", field="older-than", remedy="give 24h, or 7d")
    try:
        swept = folders.sweep(app, root, max_age_s=max_age_s, dry_run=dry_run)
    except folders.ScratchError as error:
        raise _refused(error) from error
    if as_json:
        failed = [{"name": name, "reason": reason} for name, reason in swept.failed]
        output.write_json({"dry_run": dry_run, "removed": swept.removed, "failed": failed})
    else:
        click.echo("".join(f"{name}\n" for name in swept.removed), nl=False)
        output.note(f"{output.counted(len(swept.removed), 'folder')} {'would go' if dry_run else 'removed'}")
        for name, reason in swept.failed:
            output.complain(f"{name}: {reason}")
    if swept.failed:
        raise click.exceptions.Exit(output.ERROR)
