"""`alcove export`: sessions in a file."""

from __future__ import annotations

import click
import msgspec

from alcove import limits
from alcove.archive.writing import written
from alcove.cli import installation, options, output, views
from alcove.cli.installation import Hub
from alcove.clock import SystemClock, seconds
from alcove.sessions.model import Session, Status
from alcove.values import Json


@click.command("export", short_help="Write sessions to a file: FILE.json, FILE.alcove.")
@click.argument("file", metavar="FILE")
@click.argument("session_ids", metavar="[ID]...", nargs=-1, shell_complete=options.complete_sessions)
@click.option("--force", "-f", is_flag=True, help="Replace a file that is there.")
@options.json
@options.server
@installation.blocking
async def export(file: str, session_ids: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Write sessions to a file: with ids, these and all below them; without, all that are not in the trash.

    FILE.alcove is an archive, for `alcove import`: history, metadata, dialogs, tree and files. Not in it are runs and
    their journals, and HOMEs, because of the credentials there.

    FILE.json is information about sessions, for other programs: whose they are, times, counts and sizes, as in
    `alcove detail --json`; no messages and no files. `-` writes it to standard output.
    """
    if file.endswith(".alcove"):
        await _archive(file, session_ids, force=force, as_json=as_json)
    elif file == "-" or file.endswith(".json"):
        await _information(file, session_ids, force=force, as_json=as_json)
    else:
        raise click.UsageError(f"{file!r} ends neither in .alcove nor in .json, and is not `-`")


async def _archive(file: str, prefixes: tuple[str, ...], *, force: bool, as_json: bool) -> None:
    if options.server_named()[0]:
        raise click.UsageError("an archive is made where the sessions are: leave out --url (and ALCOVE_URL) there")
    async with installation.opened_here() as hub:
        chosen = [(await installation.find_session(hub, prefix)).id for prefix in prefixes] or None
        with output.progress_of("exporting") as progress:
            report = await hub.archive.export_archive(file, chosen, replace=force, progress=progress)
    if as_json:
        output.write_json(msgspec.to_builtins(report))
        return
    output.note(
        f"{output.counted(len(report.sessions), 'session')}, {output.counted(report.messages, 'message')}, files of "
        f"{report.workspaces} in {file} ({output.size(report.size_bytes)})"
    )


async def _information(file: str, prefixes: tuple[str, ...], *, force: bool, as_json: bool) -> None:
    async with installation.opened() as hub:
        found = await _chosen(hub, prefixes)
        shown: list[Json] = []
        with output.progress("reading", len(found)) as step:
            for session in found:
                shown.append(await _told(hub, session))
                step(1)
    told: dict[str, Json] = {"exported_at": seconds(SystemClock().now()), "count": len(shown), "sessions": shown}
    if file == "-":
        output.write_json(told)
        return
    with written(file, replace=force) as out:
        out.write(msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
    if as_json:
        output.write_json({"sessions": [session.id for session in found]})
    else:
        output.note(f"{output.counted(len(shown), 'session')} in {file}")


async def _chosen(hub: Hub, prefixes: tuple[str, ...]) -> list[Session]:
    """Return the sessions named and those below them, or all; parents before their children."""
    found: dict[str, Session] = {}
    for prefix in prefixes:
        top = await installation.find_session(hub, prefix)
        found |= {one.id: one for one in await hub.sessions.tree(top.id)}
    cursor: str | None = None
    while not prefixes:
        page = await hub.sessions.list(limit=limits.PAGE, cursor=cursor)
        found |= {one.id: one for one in page.sessions if one.status != Status.TRASHED}
        cursor = page.next_cursor
        if cursor is None:
            break
    return sorted(found.values(), key=lambda one: (one.depth, one.created_us, one.id))


async def _told(hub: Hub, session: Session) -> Json:
    usage = await installation.workspaces(hub).usage(session.id)
    files: dict[str, Json] = {"count": usage.files, "size_bytes": usage.size_bytes}
    return {**views.session_json(session, installation.folder(hub, session.id)), "files": files}
