"""`alcove search`."""

from __future__ import annotations

import click
import msgspec

from alcove import limits
from alcove.cli import installation, options, output
from alcove.clock import seconds
from alcove.search.model import Hit
from alcove.values import Json


@click.command(short_help="Find messages and titles by their words.")
@click.argument("words", nargs=-1, required=True)
@click.option("--user", metavar="USER", help="Only this user's.")
@click.option("--app", metavar="APP", help="Only this app's.")
@click.option("--session", metavar="ID", help="Only in this session.")
@click.option("--limit", type=click.IntRange(1, limits.SEARCH_HITS), default=20, show_default=True, help="At most.")
@options.json
@options.server
@installation.blocking
async def search(
    words: tuple[str, ...], user: str | None, app: str | None, session: str | None, limit: int, as_json: bool
) -> None:
    """Find messages and titles that have all WORDS, the best first.

    Case and accents do not count. WORD* finds words that begin so; quotation marks hold words together.
    """
    async with installation.opened() as hub:
        session_id = (await installation.find_session(hub, session)).id if session else None
        found = await hub.search.find(" ".join(words), user_id=user, app=app, session_id=session_id, limit=limit)
    if as_json:
        hits: list[Json] = [{**_json(one)} for one in found.hits]
        output.write_json({"hits": hits, "more": found.more, "behind": found.behind})
        return
    header = ("ID", "SEQ", "ROLE", "TEXT", "TITLE")
    output.write_table(header, [[one.session_id, str(one.seq), one.role, one.snippet, one.title] for one in found.hits])
    if not found.hits:
        output.note("nothing was found")
    if found.behind:
        output.note(f"{output.counted(found.behind, 'message')} not indexed yet; try again in a moment")
    if found.more:
        output.note("there may be more; more words or --user narrow it down")


def _json(hit: Hit) -> dict[str, Json]:
    shown = msgspec.to_builtins(hit)
    shown["created_at"] = seconds(shown.pop("created_us"))
    return shown
