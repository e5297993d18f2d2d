"""`alcove files`, `cat` and `cp`."""

from __future__ import annotations

import codecs
import os
from urllib.parse import quote_from_bytes

import click

from alcove import limits
from alcove.cli import installation, options, output
from alcove.cli.copying import Here, Place, There, copy, is_session
from alcove.clock import instant, seconds
from alcove.errors import FileMissingError, InvalidError
from alcove.values import Json
from alcove.workspaces.model import File


@click.command(short_help="List the files of a session.")
@click.argument("session_id", metavar="ID[:FOLDER]", shell_complete=options.complete_sessions)
@click.option("--long", "-l", is_flag=True, help="With kind, size and time.")
@click.option("--tree", is_flag=True, help="As a tree.")
@options.json
@options.server
@installation.blocking
async def files(session_id: str, long: bool, tree: bool, as_json: bool) -> None:
    """List the files of a session, those of all its folders, by path."""
    prefix, _, folder = session_id.partition(":")
    folder = folder.strip("/")
    async with installation.opened() as hub:
        session = await installation.find_session(hub, prefix)
        listing = await installation.workspaces(hub).list_files(session.id)
    found = [one for one in listing.files if not folder or f"{one.path}/".startswith(f"{folder}/")]
    if folder and not found:
        raise FileMissingError(f"there is no {folder!r} in the workspace", field="path", remedy="`alcove files` lists")
    if as_json:
        shown: list[Json] = [_json(one) for one in found]
        output.write_json(
            {
                "session_id": session.id,
                "files": shown,
                "file_count": len(found),
                "truncated": listing.truncated,
            }
        )
        return
    if tree:
        _draw(found)
    elif long:
        rows = [
            (one.kind, str(one.size_bytes), f"{instant(one.modified_at):%Y-%m-%d %H:%M:%S}", one.path) for one in found
        ]
        output.write_table(("KIND", "BYTES", "MODIFIED", "PATH"), rows)
    else:
        click.echo("".join(f"{output.visible(one.path)}\n" for one in found), nl=False)
    if listing.truncated:
        output.warn("there are more files than are listed")


def _json(file: File) -> Json:
    raw = file.path.encode("utf-8", "surrogateescape")
    path = raw.decode("utf-8", "replace")
    shown: dict[str, Json] = {
        "name": path.rpartition("/")[2],
        "path": path,
        "size": file.size_bytes,
        "modified_time": seconds(file.modified_at),
        "kind": file.kind,
    }
    return shown if path == file.path else {**shown, "raw_path": quote_from_bytes(raw)}


def _draw(found: list[File]) -> None:
    below: dict[str, list[tuple[str, str]]] = {}
    seen: set[str] = set()
    for file in found:
        above = ""
        parts = file.path.split("/")
        for i, name in enumerate(parts):
            path = "/".join(parts[: i + 1])
            if path not in seen:
                seen.add(path)
                text = f"{name}/" if i + 1 < len(parts) else f"{name}  {output.size(file.size_bytes)}"
                below.setdefault(above, []).append((path, text))
            above = path
    output.draw("", below)


@click.command(short_help="Write files of a session to standard output.")
@click.argument("paths", metavar="ID:PATH...", nargs=-1, required=True, shell_complete=options.complete_sessions)
@click.option("--raw", is_flag=True, help="Byte by byte on a terminal too, colours and cursor movements included.")
@options.server
@installation.blocking
async def cat(paths: tuple[str, ...], raw: bool) -> None:
    """Write files of sessions to standard output, one after the other.

    Into a pipe they go byte by byte. On a terminal they are shown as text, without what would steer the terminal.
    """
    async with installation.opened() as hub:
        for argument in paths:
            prefix, colon, path = argument.partition(":")
            if not colon or not path:
                raise InvalidError(f"{argument!r} names no file", field="path", remedy="write it as ID:PATH")
            session = await installation.find_session(hub, prefix)
            fd, _ = await installation.workspaces(hub).open_read(session.id, path)
            with os.fdopen(fd, "rb") as file:
                file.seek(0)
                decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape" if raw else "replace")
                while chunk := file.read(limits.SEND_BYTES):
                    if raw or output.terminal_columns() is None:
                        click.echo(chunk, nl=False)
                    else:
                        output.write_text(decoder.decode(chunk))


@click.command(short_help="Copy files into a session, out of it, or between two.")
@click.argument("source", metavar="SOURCE", shell_complete=options.complete_sessions)
@click.argument("target", metavar="TARGET", shell_complete=options.complete_sessions)
@click.option("--quiet", "-q", is_flag=True, help="Do not say what was copied.")
@options.server
@installation.blocking
async def cp(source: str, target: str, quiet: bool) -> None:
    """Copy a file or a folder: ID:PATH names one of a session, anything else one here; `-` is standard input or output.

    A TARGET that is a folder, or ends in `/`, takes the source in under its own name; `FOLDER/.` stands for what is in
    the folder. A path here with a colon in it is written with a `/` in front of that: `./a:b`.
    Files are replaced as a whole; links, pipes and devices are left out, and said so. A folder goes into a session as
    one archive, all of it or nothing; one of more than 5000 files or 1 GiB in parts.
    """
    if not is_session(source) and not is_session(target):
        raise click.UsageError("neither is in a session: write one as ID:PATH")
    async with installation.opened() as hub:

        async def place(argument: str) -> Place:
            if not is_session(argument):
                return Here(argument)
            prefix, _, path = argument.partition(":")
            session = await installation.find_session(hub, prefix)
            return There(installation.workspaces(hub), session.id, path)

        copied = await copy(await place(source), await place(target))
    for left in copied.left_out:
        output.warn(f"left out: {left} is no regular file")
    if not quiet:
        output.note(f"{output.counted(copied.files, 'file')}, {output.size(copied.size_bytes)}")
