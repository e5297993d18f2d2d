"""`alcove audit ls`, `export`, `verify` and `erase`: what was denied, and what was done with authority."""

from __future__ import annotations

from typing import BinaryIO

import click
import msgspec

from alcove import limits
from alcove.audit.lines import line, verify as verify_lines
from alcove.audit.model import AuditFilters, Recorded
from alcove.cli import installation, options, output
from alcove.clock import SECOND, Micros, SystemClock, instant, seconds
from alcove.durations import duration_s


@click.group(short_help="What was denied and done: ls, export, verify, erase.")
def audit() -> None:
    """Rows on every denial, grant, revocation, key and deletion: chained, sealed, and never changed."""


@audit.command("ls", short_help="List rows, newest first.")
@click.option("--act", metavar="ACT", help="Only this: check.denied, grant.revoked, key.created.")
@click.option("--denied", is_flag=True, help="Only what was denied.")
@click.option("--run", "run_id", metavar="RUN", help="Only what was about this run.")
@click.option("--session", "session_id", metavar="SESSION", help="Only what was in this session.")
@click.option("--user", "user_id", metavar="USER", help="Only what was this user's.")
@click.option("--tenant", metavar="TENANT", help="Only what was this tenant's.")
@click.option("--by", metavar="WHO", help="Only by this principal: key:ID, local, library, janitor.")
@click.option("--since", metavar="DURATION", help="Only of the last 30m, 24h, 7d.")
@click.option("--limit", "-n", type=click.IntRange(min=1), metavar="N", default=50, help="How many; 50.")
@options.json
@options.server
@installation.blocking
async def ls(
    act: str | None,
    denied: bool,
    run_id: str | None,
    session_id: str | None,
    user_id: str | None,
    tenant: str | None,
    by: str | None,
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List what was denied, and what was done with authority, keys and sessions: newest first."""
    filters = AuditFilters(
        act=act,
        denied=True if denied else None,
        subject=f"run:{run_id}" if run_id else None,
        session_id=session_id,
        user_id=user_id,
        tenant=tenant,
        who=by,
        after_us=_ago(since, field="since"),
    )
    rows: list[Recorded] = []
    cursor: str | None = None
    async with installation.opened(folders=False) as hub:
        while len(rows) < limit:
            page = await hub.audit.list(filters, limit=min(limits.PAGE, limit - len(rows)), cursor=cursor)
            rows += page.rows
            cursor = page.next_cursor
            if cursor is None:
                break
    if as_json:
        output.write_json({"rows": [_shown(row) for row in rows], "next_cursor": cursor})
        return
    table = [
        (f"{instant(row.chained.created_us):%Y-%m-%d %H:%M:%S}", row.chained.act, row.chained.code)
        + (str(row.chained.times), *_names(row), _told(row))
        for row in rows
    ]
    output.write_table(("WHEN", "ACT", "CODE", "TIMES", "SUBJECT", "BY", "WORDS"), table)


@audit.command(short_help="Write every row as a line of JSON.")
@click.argument("file", metavar="[FILE]", type=click.File("xb"), default="-")
@click.option("--since", metavar="DURATION", help="Only of the last 30m, 24h, 7d.")
@options.server
@installation.blocking
async def export(file: BinaryIO, since: str | None) -> None:
    """Write every row as a line of JSON, with all that its hash is made of; to FILE, which must not exist."""
    count = 0
    async with installation.opened(folders=False) as hub:
        async for row in hub.audit.records(after_us=_ago(since, field="since") or 0):
            file.write(line(row))
            count += 1
    output.note(f"{count} rows")


@audit.command(short_help="Say whether a row was altered, lost or forged.")
@click.argument("file", metavar="[FILE]", type=click.File("rb"), required=False)
@options.json
@options.server
@installation.blocking
async def verify(file: BinaryIO | None, as_json: bool) -> None:
    """Look through the whole audit: exit code 0 when it is intact, 1 when not; each finding names its row.

    With FILE, through what was exported to it, oldest first: that needs neither an installation nor the key, and tells
    whether a row was altered, lost or moved.
    """
    if file is not None:
        found = verify_lines(file)
    else:
        async with installation.opened(folders=False) as hub:
            found = await hub.audit.verify()
    if as_json:
        output.write_json({"intact": not found.findings, **msgspec.to_builtins(found)})
    else:
        rows = [(one.what, one.node, str(one.n), one.message) for one in found.findings]
        output.write_table(("WHAT", "NODE", "ROW", "MESSAGE"), rows)
        counted = f"{found.rows} rows of {found.nodes} nodes, {found.erased} of them erased"
        if found.foreign:
            counted += f"; {found.foreign} are sealed with keys that are not here"
        output.note(f"{'NOT intact' if found.findings else 'intact'}: {counted}")
    if found.findings:
        raise click.exceptions.Exit(output.ERROR)


@audit.command(short_help="Erase the words of rows; the rows stay.")
@click.option("--run", "run_id", metavar="RUN", help="Of what was about this run.")
@click.option("--key", "key_id", metavar="KEY", help="Of what was about this key.")
@click.option("--session", "session_id", metavar="SESSION", help="Of what was in this session.")
@click.option("--user", "user_id", metavar="USER", help="Of what was this user's.")
@click.option("--older-than", metavar="DURATION", help="Of all that is older: 400d.")
@options.dry_run
@options.force
@options.json
@options.server
@installation.blocking
async def erase(
    run_id: str | None,
    key_id: str | None,
    session_id: str | None,
    user_id: str | None,
    older_than: str | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Erase what people read of rows: names, reasons, ids. Codes, times and digests stay, and the chain holds."""
    given = (run_id, key_id, session_id, user_id, older_than)
    if sum(one is not None for one in given) != 1:
        raise click.UsageError("give one of --run, --key, --session, --user and --older-than")
    subject = f"run:{run_id}" if run_id else f"key:{key_id}" if key_id else None
    before = _ago(older_than, field="older-than")
    async with installation.opened(folders=False) as hub:
        filters = AuditFilters(subject=subject, session_id=session_id, user_id=user_id, before_us=before)
        count = await _standing(hub, filters)
        if not dry_run and (force or click.confirm(f"Erase the words of {count} rows?", err=True)):
            done = await hub.audit.erase(subject=subject, session_id=session_id, user_id=user_id, before_us=before)
            count = done.rows
        elif not dry_run:
            raise click.Abort
    if as_json:
        output.write_json({"rows": count, "dry_run": dry_run})
    else:
        output.note(f"{'would erase' if dry_run else 'erased'} the words of {count} rows")


async def _standing(hub: installation.Hub, filters: AuditFilters) -> int:
    count, cursor = 0, None
    while True:
        page = await hub.audit.list(filters, limit=limits.PAGE, cursor=cursor)
        count += sum(bool(row.words and not row.words.erased) for row in page.rows)
        cursor = page.next_cursor
        if cursor is None:
            return count


def _ago(text: str | None, *, field: str) -> Micros | None:
    seconds_ago = duration_s(text, field=field) if text else None
    return None if seconds_ago is None else SystemClock().now() - seconds_ago * SECOND


def _names(row: Recorded) -> tuple[str, str]:
    subject, who = (row.words.subject, row.words.who) if row.words else (row.chained.subject, row.chained.who)
    return subject or "-", who or "-"


def _told(row: Recorded) -> str:
    if row.words is None or row.words.erased:
        return "(erased)" if row.words else "(missing)"
    return " ".join(f"{name}={value}" for name, value in row.told.items()) or "-"


def _shown(row: Recorded) -> dict[str, object]:
    """Return a row in the shape of the HTTP API."""
    one, words = row.chained, row.words
    subject, who = (words.subject, words.who) if words else (one.subject, one.who)
    return {
        "node": one.node,
        "n": one.n,
        "created_at": seconds(one.created_us),
        "first_at": seconds(one.first_us),
        "act": one.act,
        "code": one.code,
        "times": one.times,
        "subject": subject,
        "who": who,
        "tenant": words.tenant if words else "",
        "user_id": words.user_id if words else "",
        "session_id": words.session_id if words else "",
        "words": row.told,
        "erased": bool(words and words.erased),
        "digests": [one.subject, one.who, one.words],
        "prev": one.prev,
        "hash": one.hash,
        "seal": one.seal,
    }
