"""`alcove export`: what there is to know of sessions, in a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import click
import msgspec

from alcove import limits
from alcove.cli import installation, options, output, views
from alcove.cli.installation import Hub
from alcove.clock import SystemClock, seconds
from alcove.errors import AlreadyExistsError, StorageError
from alcove.sessions.model import Session, Status
from alcove.values import Json


@click.command("export", short_help="Write what there is to know of sessions to FILE.json.")
@click.argument("file", metavar="FILE.json")
@click.argument("session_ids", metavar="[ID]...", nargs=-1, shell_complete=options.complete_sessions)
@click.option("--force", "-f", is_flag=True, help="Replace a file that is there.")
@options.server
@installation.blocking
async def export(file: str, session_ids: tuple[str, ...], force: bool) -> None:
    """Write what there is to know of sessions to FILE.json, or as JSON to standard output for `-`.

    For each session it has the fields of `alcove detail --json`: whose it is, its place, times, counts and sizes; no
    messages and no content of files. With ids, of these and all below them; without, of every session that is not in
    the trash.
    """
    if file != "-" and not file.endswith(".json"):
        raise click.UsageError(f"{file!r} is neither FILE.json nor `-`")
    async with installation.opened() as hub:
        found = await _chosen(hub, session_ids)
        shown: list[Json] = []
        with output.progress("reading", len(found)) as step:
            for session in found:
                shown.append(await _information(hub, session))
                step(1)
    told = {"exported_at": seconds(SystemClock().now()), "count": len(shown), "sessions": shown}
    if file == "-":
        output.write_json(told)
        return
    with replacing(file, force=force) as out:
        out.write(msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
    output.note(f"{output.counted(len(shown), 'session')} in {file}")


@contextmanager
def replacing(path: str, *, force: bool) -> Generator[IO[bytes]]:
    """Give a file that appears at a path when it is complete, for its owner only; until then nothing is there.

    Raises:
        AlreadyExistsError: There is something already, and `force` is false.
        StorageError: It cannot be written there.
    """
    place = Path(path)
    if not force and place.exists():
        raise AlreadyExistsError(f"{path} is there already", field="file", remedy="choose another name, or add --force")
    try:
        with tempfile.NamedTemporaryFile(dir=place.parent, prefix=f".{place.name[:100]}-", delete=False) as out:
            try:
                yield out
                out.flush()
                os.fsync(out.fileno())
                if force:
                    os.replace(out.name, place)
                else:
                    os.link(out.name, place)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(out.name)
    except FileExistsError as error:
        raise AlreadyExistsError(f"{path} is there already", field="file", remedy="add --force") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", remedy="name another file") from error


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


async def _information(hub: Hub, session: Session) -> Json:
    usage = await installation.workspaces(hub).usage(session.id)
    files: dict[str, Json] = {"count": usage.files, "size_bytes": usage.size_bytes}
    return {**views.session_json(session, installation.folder(hub, session.id)), "files": files}
