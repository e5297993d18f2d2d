"""`alcove list`, `detail`, `create` and `rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from alcove import limits
from alcove.cli import installation, options, output, views
from alcove.cli.installation import Hub, Rows
from alcove.clock import SystemClock
from alcove.durations import duration_s
from alcove.errors import InvalidError
from alcove.sessions.model import Session, Status
from alcove.values import Json, Metadata

if TYPE_CHECKING:
    from alcove.lifecycle.model import Receipt

_LAST = 5  # messages and runs in `detail`


@click.command("list", short_help="List sessions, newest first.")
@click.option("--user", metavar="USER", help="Only this user's.")
@click.option("--app", metavar="APP", help="Only this app's.")
@click.option(
    "--status",
    type=click.Choice([status.value for status in Status]),
    help="Only those; trashed ones are shown only so.",
)
@click.option("--parent", metavar="ID", shell_complete=options.complete_sessions, help="Only children of this session.")
@click.option(
    "--limit", type=click.IntRange(1, limits.PAGE), default=limits.PAGE_DEFAULT, show_default=True, help="At most."
)
@click.option("--all", "everything", is_flag=True, help="Not only --limit of them.")
@options.json
@options.server
@installation.blocking
async def list_sessions(
    user: str | None,
    app: str | None,
    status: str | None,
    parent: str | None,
    limit: int,
    everything: bool,
    as_json: bool,
) -> None:
    """List sessions, newest first."""
    async with installation.opened_rows() as hub:
        parent_id = (await installation.find_session(hub, parent)).id if parent else None
        found: list[Session] = []
        cursor: str | None = None
        while True:
            page = await hub.sessions.list(
                user_id=user,
                app=app,
                status=status,
                parent_id=parent_id,
                limit=limits.PAGE if everything else limit,
                cursor=cursor,
            )
            found += page.sessions
            cursor = page.next_cursor
            if not everything or cursor is None:
                break
        shown = [views.session_json(one, installation.folder(hub, one.id)) for one in found] if as_json else []
    if as_json:
        output.write_json({"sessions": shown, "next_cursor": cursor})
        return
    views.write_sessions(found, SystemClock().now())
    if cursor:
        output.note(f"the newest {limit} are shown; --all shows all")


@click.command(short_help="Show one session: files, last messages, last runs.")
@click.argument("session_id", metavar="ID", shell_complete=options.complete_sessions)
@options.json
@options.server
@installation.blocking
async def detail(session_id: str, as_json: bool) -> None:
    """Show one session: files, last messages, last runs. The beginning of an id is enough."""
    async with installation.opened() as hub:
        session = await installation.find_session(hub, session_id)
        usage = await installation.workspaces(hub).usage(session.id)
        last = await hub.messages.last(session.id, _LAST)
        runs = (await hub.runs.list(session.id, limit=_LAST)).runs
        folder = installation.folder(hub, session.id)
    if as_json:
        shown = views.session_json(session, folder)
        shown["files"] = {"count": usage.files, "size_bytes": usage.size_bytes}
        shown["last_messages"] = [views.message_json(message) for message in last]
        shown["last_runs"] = [views.run_json(run) for run in runs]
        output.write_json(shown)
        return
    now = SystemClock().now()
    views.write_session(session, usage, folder, now)
    views.write_messages(last)
    views.write_runs(runs, now)


@click.command(short_help="List the children of a session, or all below it.")
@click.argument("session_id", metavar="ID", shell_complete=options.complete_sessions)
@click.option("--tree", is_flag=True, help="All descendants, as a tree.")
@options.json
@options.server
@installation.blocking
async def children(session_id: str, tree: bool, as_json: bool) -> None:
    """List the children of a session, newest first, or with --tree all its descendants."""
    async with installation.opened_rows() as hub:
        session = await installation.find_session(hub, session_id)
        if tree:
            found = (await hub.sessions.tree(session.id))[1:]
        else:
            found = await _all(hub, parent_id=session.id)
        shown = [views.session_json(one, installation.folder(hub, one.id)) for one in found] if as_json else []
    if as_json:
        output.write_json({"sessions": shown})
    elif tree:
        views.draw_sessions(session, found)
    else:
        views.write_sessions(found, SystemClock().now())


@click.command(short_help="Create a session and print its id.")
@click.option("--id", "session_id", metavar="ID", help="Your own id; a UUIDv7 by default.")
@click.option("--user", metavar="USER", help="Whose it is.")
@click.option("--app", metavar="APP", help="Which app it belongs to.")
@click.option("--title", default="", help="For people.")
@click.option("--key", metavar="KEY", help="Your own name for it, unique per user.")
@click.option("--parent", metavar="ID", help="The session it is a child of.")
@click.option("--agent", metavar="NAME", help="Who answers by default.")
@click.option("--ttl", metavar="TIME", help="How long it may be idle: 30m, 24h, 7d; never.")
@click.option("--metadata", "pairs", metavar="NAME=VALUE", multiple=True, help="A fact about it; may be repeated.")
@options.json
@options.server
@installation.blocking
async def create(
    session_id: str | None,
    user: str | None,
    app: str | None,
    title: str,
    key: str | None,
    parent: str | None,
    agent: str | None,
    ttl: str | None,
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Create a session and its folder, and print its id."""
    metadata = _metadata(pairs)
    ttl_s = duration_s(ttl, field="ttl") if ttl else msgspec.UNSET
    async with installation.opened(start=parent is None) as hub:
        if agent:
            await installation.check_agent(hub, agent)
        session = await hub.sessions.create(
            session_id=session_id,
            user_id=user,
            app=app,
            title=title,
            key=key,
            parent_id=(await installation.find_session(hub, parent)).id if parent else None,
            agent=agent,
            ttl_s=ttl_s,
            metadata=metadata,
        )
        folder = installation.folder(hub, session.id)
    if as_json:
        output.write_json(views.session_json(session, folder))
    else:
        click.echo(session.id)


@click.command(short_help="Move sessions and their descendants to the trash.")
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True, shell_complete=options.complete_sessions)
@click.option("--purge", is_flag=True, help="Remove them for good: history, files, everything.")
@options.force
@options.dry_run
@options.json
@options.server
@installation.blocking
async def rm(session_ids: tuple[str, ...], purge: bool, force: bool, dry_run: bool, as_json: bool) -> None:
    """Move sessions and their descendants to the trash, and print their ids. What runs in them is cancelled.

    The beginning of an id is enough. With --purge they are removed for good, also from the trash.
    """
    if purge and not force and not dry_run and not output.can_ask():
        raise click.UsageError("a purge is for good, and nobody can be asked here: add --force")
    async with installation.opened() as hub:
        named = [await installation.find_session(hub, prefix, trashed=purge) for prefix in session_ids]
        going = {one.id: one for session in named for one in await _subtree(hub, session)}
        if dry_run:
            await _write_going(hub, [*going.values()], purge=purge, as_json=as_json)
            return
        if purge and not force and not output.agreed(f"Remove {output.counted(len(going), 'session')} for good?"):
            output.note("nothing was removed")
            raise click.exceptions.Exit(output.ERROR)
        receipts: list[Receipt] = []
        # On a terminal the ids that come are the progress.
        shown = output.terminal_columns() is not None and not as_json
        with output.progress("removing", len(going), shown=not shown) as step:
            for session in named:
                # One that was named may have gone with another one above it.
                if not any(session.id in receipt.sessions for receipt in receipts):
                    receipts.append(await hub.sessions.delete(session.id, purge=purge))
                    step(len(receipts[-1].sessions))
                    if not as_json:
                        click.echo("\n".join(receipts[-1].sessions))
    if as_json:
        output.write_json({"removed": [msgspec.to_builtins(receipt) for receipt in receipts]})
        return
    count = sum(len(receipt.sessions) for receipt in receipts)
    where = "removed for good" if purge else "in the trash"
    freed = sum(receipt.size_bytes for receipt in receipts)
    output.note(f"{output.counted(count, 'session')} {where}" + (f", {output.size(freed)} freed" if purge else ""))


async def _all(
    hub: Hub | Rows, *, parent_id: str | None = None, root_id: str | None = None, status: str | None = None
) -> list[Session]:
    """Return every session that fits, page after page."""
    found: list[Session] = []
    cursor: str | None = None
    while True:
        page = await hub.sessions.list(
            parent_id=parent_id, root_id=root_id, status=status, limit=limits.PAGE, cursor=cursor
        )
        found += page.sessions
        cursor = page.next_cursor
        if cursor is None:
            return found


async def _subtree(hub: Hub, session: Session) -> list[Session]:
    """Return the sessions that go when this session goes, itself first."""
    if session.status != Status.TRASHED:
        return await hub.sessions.tree(session.id)
    trashed = await _all(hub, root_id=session.root_id, status="trashed")
    found = [session]
    for above in found:
        found += [one for one in trashed if one.parent_id == above.id]
    return found


async def _write_going(hub: Hub, going: list[Session], *, purge: bool, as_json: bool) -> None:
    rows: list[dict[str, Json]] = []
    for session in going:
        usage = await installation.workspaces(hub).usage(session.id)
        shown = {"session_id": session.id, "user_id": session.user_id, "messages": session.message_count}
        rows.append({**shown, "files": usage.files, "size_bytes": usage.size_bytes, "title": session.title})
    if as_json:
        output.write_json({"dry_run": True, "purge": purge, "sessions": rows})
        return
    header = ("ID", "USER", "MESSAGES", "FILES", "BYTES", "TITLE")
    output.write_table(header, [[str(value) for value in row.values()] for row in rows])
    output.note(f"{output.counted(len(rows), 'session')} would go {'for good' if purge else 'to the trash'}")


def _metadata(pairs: tuple[str, ...]) -> Metadata:
    metadata: Metadata = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InvalidError(f"metadata {pair!r} has no name", field="metadata", remedy="write it as name=value")
        metadata[name] = value
    return metadata
