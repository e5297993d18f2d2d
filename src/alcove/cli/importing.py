"""`alcove import`: what other programs kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final
from zoneinfo import ZoneInfo

import click
import msgspec

from alcove.archive.model import Imported
from alcove.archive.service import Archive, Progress
from alcove.cli import installation, options, output
from alcove.errors import InvalidError
from alcove.hub import Alcove, open as open_hub

_app = click.option("--app", metavar="APP", default="", help="The app that the sessions belong to from now on.")
_dry_run = click.option("--dry-run", "-n", is_flag=True, help="Read and check everything, and write nothing.")
_folder = click.argument("folder", metavar="DIR", type=click.Path(exists=False))

_SHOWN: Final = 50  # problems of each kind shown to a person; --json has all


class _Importing(click.Group):
    """`alcove import FILE.alcove` is short for `alcove import archive FILE.alcove`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the word in that was left out."""
        if any(word.endswith(".alcove") for word in args) and not self.commands.keys() & {*args}:
            args = ["archive", *args]
        return super().parse_args(ctx, args)


@click.group("import", cls=_Importing, short_help="Import FILE.alcove, or what other programs kept.")
def importing() -> None:
    """Import an archive, FILE.alcove, or what other programs kept.

    What is imported is only read. An import may be stopped anywhere and run again: it goes on, and adds nothing twice.
    """


@importing.command("archive", short_help="Import what `alcove export FILE.alcove` wrote.")
@click.argument("file", metavar="FILE.alcove")
@_dry_run
@options.json
@installation.blocking
async def archive(file: str, dry_run: bool, as_json: bool) -> None:
    """Import what `alcove export FILE.alcove` wrote: all of it, or nothing.

    Ids, tree, metadata, histories, dialogs and files are as they were. A session that is here already and says the same
    is left as it is; one that says something else ends the import with exit code 3, before anything was written.
    """
    await _import(
        lambda archive, progress: archive.import_archive(file, dry_run=dry_run, progress=progress),
        dry_run=dry_run,
        as_json=as_json,
    )


@importing.command("json-sessions", short_help="Import sessions that were kept as one JSON file each.")
@_folder
@_app
@click.option("--timezone", metavar="NAME", help="Where times without a zone are local; this machine's by default.")
@_dry_run
@options.json
@installation.blocking
async def json_sessions(folder: str, app: str, timezone: str | None, dry_run: bool, as_json: bool) -> None:
    """Import sessions that were kept as one JSON file each: DIR/*.json.

    Ids, users, parents, metadata, history and times stay what they were, and the sessions do not expire. What could
    not be read is listed with the reason, and then the exit code is 1; everything else is imported.
    """
    zone = _zone(timezone)
    await _import(
        lambda archive, progress: archive.import_json_sessions(
            folder, app=app, zone=zone, dry_run=dry_run, progress=progress
        ),
        dry_run=dry_run,
        as_json=as_json,
    )


@importing.command("session-dirs", short_help="Import working directories as sessions with files.")
@_folder
@_app
@_dry_run
@options.json
@installation.blocking
async def session_dirs(folder: str, app: str, dry_run: bool, as_json: bool) -> None:
    """Import working directories: each folder in DIR becomes a session of its name, with these files.

    Links are reported and not followed. A file that the session has already is left as it is.
    """
    await _import(
        lambda archive, progress: archive.import_session_dirs(folder, app=app, dry_run=dry_run, progress=progress),
        dry_run=dry_run,
        as_json=as_json,
    )


async def _import(work: Callable[[Archive, Progress], Awaitable[Imported]], *, dry_run: bool, as_json: bool) -> None:
    async with _opened(dry_run=dry_run) as hub:
        with output.progress_of("importing") as progress:
            report = await work(hub.archive, progress)
    if as_json:
        output.write_json(msgspec.to_builtins(report))
    else:
        _write(report)
    if report.failed:
        raise click.exceptions.Exit(output.ERROR)


@asynccontextmanager
async def _opened(*, dry_run: bool) -> AsyncGenerator[Alcove]:
    """Open the installation here. A dry run makes none where there is none: an empty one will do."""
    if options.server_named()[0]:
        raise click.UsageError("imports go to the installation here: leave out ALCOVE_URL, and do it where that is")
    found = installation.settings()
    if not dry_run or installation.exists(found):
        async with installation.opened_here(start=True) as hub:
            yield hub
        return
    trial = msgspec.structs.replace(found, database="memory://", agents={})
    async with open_hub(settings=trial, folders=False) as hub:
        yield hub


def _write(report: Imported) -> None:
    for session_id in [*report.created, *report.continued]:
        click.echo(session_id)
    for kind, problems in (("note", report.notes), ("not imported", report.failed)):
        for problem in problems[:_SHOWN]:
            output.note(f"{kind}: {problem.path}: {problem.reason}")
        if len(problems) > _SHOWN:
            output.note(f"… and {len(problems) - _SHOWN} more; --json has all")
    would = "would be " if report.dry_run else ""
    parts = [
        f"{output.counted(len(report.created), 'session')} {would}created",
        f"{len(report.continued)} {would}continued",
        f"{len(report.present)} present already",
        output.counted(report.messages, "message"),
        f"{output.counted(report.files, 'file')} ({output.size(report.size_bytes)})",
        f"{len(report.failed)} not imported",
    ]
    output.note(", ".join(parts))


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (KeyError, ValueError, OSError) as error:
        raise InvalidError(f"there is no time zone {name!r}", field="timezone", remedy="e.g. Asia/Shanghai") from error
