"""`alcove state get`, `set`, `ls` and `rm`: values by scope and key."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from alcove import limits
from alcove.cli import installation, options, output
from alcove.cli.installation import Hub
from alcove.clock import SystemClock, seconds
from alcove.durations import duration_s
from alcove.errors import InvalidError
from alcove.rights.model import ALIASES, SCOPES
from alcove.state.model import Value
from alcove.values import Json

F = TypeVar("F", bound=Callable[..., Any])

_scope = click.argument("scope", metavar="SCOPE", type=click.Choice([*SCOPES, *ALIASES]))
_key = click.argument("key", metavar="KEY")


def _whose(command: F) -> F:
    of = click.option(
        "--of", metavar="OWNER", default="", help="Whose: a session, user, subject, run or agent; none for an app."
    )
    app = click.option("--app", metavar="APP", default="", help="In which app.")
    return of(app(command))


@click.group(short_help="Values by scope and key: get, set, ls, rm.")
def state() -> None:
    """Values by scope and key: of a session, a user, a subject, an agent, an app or a run."""


@state.command(short_help="Print a value as JSON.")
@_scope
@_key
@_whose
@options.json
@options.server
@installation.blocking
async def get(scope: str, key: str, of: str, app: str, as_json: bool) -> None:
    """Print a value as JSON; with --json, also its version and times."""
    async with installation.opened(folders=False) as hub:
        of = await _owner(hub, scope, of)
        found = await hub.state.get(scope, key, of=of, app=app)
    if as_json:
        output.write_json(_shown(found))
        return
    click.echo(_text(found.value))


@state.command("set", short_help="Set a value.")
@_scope
@_key
@click.argument("value", metavar="JSON")
@_whose
@click.option("--ttl", metavar="DURATION", default="never", help="After how long it is gone: 30s, 24h, never.")
@click.option("--version", "expected", type=int, metavar="N", help="Only in place of this version; 0: only a new one.")
@options.json
@options.server
@installation.blocking
async def set_value(
    scope: str, key: str, value: str, of: str, app: str, ttl: str, expected: int | None, as_json: bool
) -> None:
    """Set a value and print its version. JSON is a number, a text in quotation marks, …, or `-` for standard input."""
    content = _read(value)
    ttl_s = duration_s(ttl, field="ttl")
    async with installation.opened(start=True, folders=False) as hub:
        of = await _owner(hub, scope, of)
        made = await hub.state.set(scope, key, content, of=of, app=app, ttl_s=ttl_s, expected_version=expected)
    if as_json:
        output.write_json(_shown(made))
        return
    click.echo(str(made.version))


@state.command("ls", short_help="List values by key.")
@_scope
@_whose
@options.json
@options.server
@installation.blocking
async def ls(scope: str, of: str, app: str, as_json: bool) -> None:
    """List the values of a place by key."""
    found: list[Value] = []
    cursor: str | None = None
    async with installation.opened(folders=False) as hub:
        of = await _owner(hub, scope, of)
        while True:
            page = await hub.state.list(scope, of=of, app=app, limit=limits.STATE_PAGE, cursor=cursor)
            found += page.values
            cursor = page.next_cursor
            if cursor is None:
                break
    if as_json:
        output.write_json({"values": [_shown(one) for one in found], "next_cursor": None})
        return
    now = SystemClock().now()
    rows = [
        (one.key, f"{output.duration(now - one.updated_us)} ago")
        + (f"in {output.duration(one.expires_us - now)}" if one.expires_us else "never", _text(one.value))
        for one in found
    ]
    output.write_table(("KEY", "SET", "EXPIRES", "VALUE"), rows)


@state.command(short_help="Delete values.")
@_scope
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@_whose
@options.json
@options.server
@installation.blocking
async def rm(scope: str, keys: tuple[str, ...], of: str, app: str, as_json: bool) -> None:
    """Delete values of a place."""
    async with installation.opened(folders=False) as hub:
        of = await _owner(hub, scope, of)
        for key in keys:
            await hub.state.delete(scope, key, of=of, app=app)
    if as_json:
        output.write_json({"deleted": list(keys)})
        return
    for key in keys:
        click.echo(output.harmless(key))


async def _owner(hub: Hub, scope: str, of: str) -> str:
    """Return whose state is meant; a unique beginning of a session's id is enough."""
    return (await installation.find_session(hub, of)).id if of and ALIASES.get(scope, scope) == "session" else of


def _read(value: str) -> Json:
    data = sys.stdin.buffer.read(limits.STATE_BYTES + 1) if value == "-" else value.encode("utf-8", "surrogateescape")
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(
            f"the value is no JSON: {error}", field="value", remedy="a text needs quotation marks: '\"like this\"'"
        ) from error


def _text(value: Json) -> str:
    return output.harmless(msgspec.json.encode(value).decode())


def _shown(one: Value) -> dict[str, object]:
    """Return a value in the shape of the HTTP API."""
    return {
        "scope": one.place.scope,
        "of": one.place.owner,
        "app": one.place.app,
        "key": one.key,
        "value": one.value,
        "version": one.version,
        "created_at": seconds(one.created_us),
        "updated_at": seconds(one.updated_us),
        "expires_at": seconds(one.expires_us) if one.expires_us else None,
    }
