"""`alcove key create`, `ls` and `revoke`: who may call the server, and as what."""

from __future__ import annotations

import click

from alcove import limits
from alcove.cli import installation, options, output
from alcove.clock import Micros, SystemClock, seconds
from alcove.durations import duration_s
from alcove.principals.model import Key


@click.group(short_help="Keys of the server: create, ls, revoke.")
def key() -> None:
    """Keys of the server. Once there is one, nobody calls the server without; this command line needs none here."""


@key.command(short_help="Make a key and print its secret, once.")
@click.option("--role", type=click.Choice(["admin", "service", "user"]), default="service", help="What it may do.")
@click.option("--tenant", metavar="TENANT", default="default", help="Whose sessions its holder sees.")
@click.option("--user", metavar="USER", default="", help="The user of a key of the role user.")
@click.option("--label", metavar="TEXT", default="", help="For people: who holds it, and for what.")
@click.option("--expires", metavar="DURATION", default="never", help="After how long it is refused: 90d, never.")
@click.option("--rate", type=int, metavar="N", help="Requests a second, 0 for any number; any, but 50 for a user.")
@options.json
@options.server
@installation.blocking
async def create(role: str, tenant: str, user: str, label: str, expires: str, rate: int | None, as_json: bool) -> None:
    """Make a key and print its secret: now, and never again.

    An admin runs the installation, a service acts for all users of its tenant, a user for itself only.
    """
    ttl_s = duration_s(expires, field="expires")
    async with installation.opened(start=True, folders=False) as hub:
        issued = await hub.keys.create(
            role=role, tenant=tenant, user_id=user, label=label, ttl_s=ttl_s, rate_per_s=rate
        )
    if as_json:
        output.write_json({**_shown(issued.key), "secret": issued.secret})
        return
    click.echo(issued.secret)
    output.note(f"key {issued.key.id}: this is the only time that its secret is shown")


@key.command("ls", short_help="List keys, newest first.")
@options.json
@options.server
@installation.blocking
async def ls(as_json: bool) -> None:
    """List keys, newest first, revoked and expired ones too; their secrets are kept nowhere."""
    found: list[Key] = []
    cursor: str | None = None
    async with installation.opened(folders=False) as hub:
        while True:
            page = await hub.keys.list(limit=limits.PAGE, cursor=cursor)
            found += page.keys
            cursor = page.next_cursor
            if cursor is None:
                break
    if as_json:
        output.write_json({"keys": [_shown(one) for one in found], "next_cursor": None})
        return
    now = SystemClock().now()
    rows = [
        (one.id, one.role, one.tenant, one.user_id or "-", one.refused(now) or "active", _age(now, one.used_us))
        + (one.label or "-",)
        for one in found
    ]
    output.write_table(("KEY", "ROLE", "TENANT", "USER", "STATUS", "USED", "LABEL"), rows)


@key.command(short_help="Revoke keys for good.")
@click.argument("key_ids", metavar="KEY...", nargs=-1, required=True)
@options.json
@options.server
@installation.blocking
async def revoke(key_ids: tuple[str, ...], as_json: bool) -> None:
    """Revoke keys for good; a server that runs refuses them within a second."""
    async with installation.opened(folders=False) as hub:
        revoked = [await hub.keys.revoke(key_id) for key_id in key_ids]
    if as_json:
        output.write_json({"keys": [_shown(one) for one in revoked]})
        return
    for one in revoked:
        click.echo(one.id)


def _age(now: Micros, at: Micros) -> str:
    return f"{output.duration(now - at)} ago" if at else "never"


def _shown(one: Key) -> dict[str, object]:
    """Return a key in the shape of the HTTP API."""
    return {
        "key_id": one.id,
        "role": one.role,
        "tenant": one.tenant,
        "user_id": one.user_id,
        "label": one.label,
        "rate_per_s": one.rate_per_s,
        "created_at": seconds(one.created_us),
        "expires_at": seconds(one.expires_us) if one.expires_us else None,
        "revoked_at": seconds(one.revoked_us) if one.revoked_us else None,
        "last_used_at": seconds(one.used_us) if one.used_us else None,
    }
