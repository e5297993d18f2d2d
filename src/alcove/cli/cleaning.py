"""`alcove restore`, `prune`, `cleanup-empty` and `cleanup-old`."""

from __future__ import annotations

import click
import msgspec

from alcove import limits
from alcove.cli import installation, options, output
from alcove.cli.installation import Hub
from alcove.clock import SystemClock, seconds
from alcove.durations import duration_s
from alcove.janitor.model import Cleaned, What
from alcove.lifecycle.model import Restored
from alcove.values import Json

_STEP = 1000  # sessions in one call: how often the progress is shown, and how long a server takes to answer


@click.command(short_help="Bring sessions back from the trash.")
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--without-keys", is_flag=True, help="Leave keys behind that belong to another session now.")
@click.option("--as-root", is_flag=True, help="Bring it back as a root: its parent is in the trash, or gone.")
@options.json
@options.server
@installation.blocking
async def restore(session_ids: tuple[str, ...], without_keys: bool, as_root: bool, as_json: bool) -> None:
    """Bring sessions back from the trash, with files and history, and print their ids.

    What went to the trash together comes back together, whichever of it is named. The beginning of an id is enough.
    """
    back: list[Restored] = []
    async with installation.opened() as hub:
        for session in [await installation.find_trashed(hub, prefix) for prefix in session_ids]:
            # One that was named may have come back with another one.
            if not any(session.id in one.sessions for one in back):
                back.append(await hub.sessions.restore(session.id, without_keys=without_keys, as_root=as_root))
                if not as_json:
                    click.echo("\n".join(back[-1].sessions))
    if as_json:
        output.write_json({"restored": [msgspec.to_builtins(one) for one in back]})
        return
    for one in back:
        for session_id in one.keyless:
            output.warn(f"{session_id} came back without its key, which belongs to another session now")
    output.note(f"{output.counted(sum(len(one.sessions) for one in back), 'session')} restored")


@click.command(short_help="Remove for good what is in the trash for long enough.")
@click.option("--older-than", metavar="TIME", help="In it for longer than this: 12h, 7d; by default for its grace.")
@click.option("--all", "everything", is_flag=True, help="All that is in it.")
@click.option("--strays", is_flag=True, help="Instead: folders that belong to no session, untouched for an hour.")
@options.force
@options.dry_run
@options.json
@options.server
@installation.blocking
async def prune(
    older_than: str | None, everything: bool, strays: bool, force: bool, dry_run: bool, as_json: bool
) -> None:
    """Remove for good what is in the trash for long enough: history, files, everything.

    By default that is what is past its grace (ALCOVE_TRASH_GRACE), which a server removes by itself too.
    """
    if older_than and everything:
        raise click.UsageError("--older-than and --all exclude each other")
    if not force and not dry_run and not output.can_ask():
        raise click.UsageError("this is for good, and nobody can be asked here: add --force")
    what = What.STRAYS if strays else What.TRASH
    older_s = 0.0 if everything else _seconds(older_than)
    async with installation.opened() as hub:
        preview = await hub.janitor.clean(what, older_s=older_s, dry_run=True)
        size = len(preview.strays) if strays else preview.sessions
        noun = "folder" if strays else "session"
        if dry_run or not size:
            _show(preview, as_json=as_json)
            return
        if not force and not output.agreed(f"Remove {output.counted(size, noun)} for good?"):
            output.note("nothing was removed")
            raise click.exceptions.Exit(output.ERROR)
        done = await _do(hub, preview, older_s)
    _show(done, as_json=as_json)


@click.command("cleanup-empty", short_help="Move sessions to the trash in which nothing ever was.")
@click.option("--older-than", metavar="TIME", help="Untouched for longer than this: 10m, 1h; by default for an hour.")
@options.dry_run
@options.json
@options.server
@installation.blocking
async def cleanup_empty(older_than: str | None, dry_run: bool, as_json: bool) -> None:
    """Move sessions to the trash that have no message, no file, no child and no run, and print their ids."""
    await _trash(What.EMPTY, _seconds(older_than), dry_run=dry_run, as_json=as_json)


@click.command("cleanup-old", short_help="Move sessions to the trash that were not used for long.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Idle for longer than so many hours.")
@click.option("--older-than", metavar="TIME", help="The same in other words: 90m, 24h, 7d.")
@options.dry_run
@options.json
@options.server
@installation.blocking
async def cleanup_old(hours: float | None, older_than: str | None, dry_run: bool, as_json: bool) -> None:
    """Move sessions to the trash that were idle for longer than the time given, whatever their TTL.

    What is pinned, in use, or has a descendant that is, stays. Their ids are printed.
    """
    if (hours is None) == (older_than is None):
        raise click.UsageError("say how long they were idle: --hours 24, or --older-than 7d")
    older_s = hours * 3600 if hours is not None else _seconds(older_than)
    await _trash(What.OLD, older_s, dry_run=dry_run, as_json=as_json)


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = duration_s(text, field="older_than")
    if found is None:
        raise click.UsageError("--older-than wants a time such as 12h or 7d")
    return found


async def _trash(what: What, older_s: float | None, *, dry_run: bool, as_json: bool) -> None:
    async with installation.opened() as hub:
        found = await hub.janitor.clean(what, older_s=older_s, dry_run=True)
        if not dry_run and found.sessions:
            found = await _do(hub, found, older_s)
        elif not dry_run:
            found = msgspec.structs.replace(found, dry_run=False)
    _show(found, as_json=as_json)


async def _do(hub: Hub, preview: Cleaned, older_s: float | None) -> Cleaned:
    """Do what was shown, some at a time."""
    parts: list[Cleaned] = []
    with output.progress("cleaning up", preview.sessions) as advance:
        while True:
            parts.append(await hub.janitor.clean(preview.what, older_s=older_s, limit=_STEP))
            advance(parts[-1].sessions)
            if not parts[-1].more:
                break
    problems = tuple(dict.fromkeys(problem for part in parts for problem in part.problems))
    return Cleaned(
        what=preview.what,
        dry_run=False,
        sessions=sum(part.sessions for part in parts),
        groups=tuple(group for part in parts for group in part.groups),
        strays=tuple(stray for part in parts for stray in part.strays),
        size_bytes=sum(part.size_bytes for part in parts),
        problems=problems,
    )


def _show(found: Cleaned, *, as_json: bool) -> None:
    if as_json:
        output.write_json(_json(found))
    elif found.what is What.STRAYS:
        for path in found.strays:
            click.echo(output.visible(path))
    elif found.dry_run:
        now = SystemClock().now()
        since = "IN TRASH" if found.what is What.TRASH else "IDLE"
        rows = [[one.session_id, str(one.sessions), output.duration(now - one.since_us)] for one in found.groups]
        output.write_table(("ID", "SESSIONS", since), rows)
    else:
        for one in found.groups:
            click.echo(one.session_id)
    for problem in found.problems:
        output.warn(problem)
    if not as_json:
        if found.dry_run and found.sessions > sum(one.sessions for one in found.groups):
            output.note(f"the first {limits.CLEANED} are shown")
        output.note(_summary(found))
    if found.problems:
        raise click.exceptions.Exit(output.ERROR)


def _summary(found: Cleaned) -> str:
    counted = output.counted(len(found.strays), "folder")
    if found.what is not What.STRAYS:
        counted = output.counted(found.sessions, "session")
    if found.what not in {What.TRASH, What.STRAYS}:
        return f"{counted} {'would go to the trash' if found.dry_run else 'in the trash'}"
    if found.dry_run:
        return f"{counted} would go for good"
    return f"{counted} removed for good, {output.size(found.size_bytes)} freed"


def _json(found: Cleaned) -> dict[str, Json]:
    groups: list[Json] = [
        {
            "session_id": one.session_id,
            "sessions": one.sessions,
            "since": seconds(one.since_us),
            "trash_id": one.trash_id,
        }
        for one in found.groups
    ]
    return {
        "what": found.what.value,
        "dry_run": found.dry_run,
        "sessions": found.sessions,
        "groups": groups,
        "strays": list(found.strays),
        "size_bytes": found.size_bytes,
        "problems": list(found.problems),
    }
