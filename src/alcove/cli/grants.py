"""`alcove grant show`, `diff` and `check`: what a run may do, and why not."""

from __future__ import annotations

import click
import msgspec

from alcove.cli import installation, options, output
from alcove.clock import instant, seconds
from alcove.rights.model import Rights
from alcove.rights.rules import removed
from alcove.runs.checking import Held
from alcove.runs.deciding import Check

_SHOWN = 20  # ids of one type in a table; --json has all


@click.group(short_help="What a run may do: show, diff, check.")
def grant() -> None:
    """Grants: what a run may do, frozen when it started, and what was withdrawn since."""


@grant.command(short_help="Show what a run was granted and what is left.")
@click.argument("run_id", metavar="RUN")
@options.json
@options.server
@installation.blocking
async def show(run_id: str, as_json: bool) -> None:
    """Show what a run was granted, what was cut off and withdrawn, and what is left of it."""
    async with installation.opened(folders=False) as hub:
        held = await hub.runs.grant(run_id)
    if as_json:
        output.write_json(_shown(held))
        return
    grant = held.grant
    facts = {
        "run": held.run_id,
        "agent": grant.agent,
        "caller": grant.caller or "whoever knows the run",
        "parent": grant.parent,
        "digest": held.digest,
        "expires": f"{instant(grant.expires_us):%Y-%m-%d %H:%M:%S} UTC" if grant.expires_us else "with the run",
        "holds": f"nothing: {held.refusal}" if held.refusal else "yes",
        "labels": " ".join(f"{name}={value}" for name, value in grant.labels.items()),
    }
    output.write_facts({name: value for name, value in facts.items() if value}, kind="grant")
    left = set(_words(held.rights))
    rows = [(*_split(word), "yes" if word in left else "withdrawn") for word in _brief(grant.rights)]
    if rows:
        output.heading("rights")
        output.write_table(("TYPE", "ID", "OPERATION", "HOLDS"), rows, kind="right")


@grant.command(short_help="Show what a run did not get, or how two grants differ.")
@click.argument("run_id", metavar="RUN")
@click.argument("other", metavar="[OTHER]", required=False)
@options.json
@options.server
@installation.blocking
async def diff(run_id: str, other: str | None, as_json: bool) -> None:
    """Show what was asked for and cut off, and what was withdrawn; with OTHER, what each has that the other lacks."""
    async with installation.opened(folders=False) as hub:
        held = await hub.runs.grant(run_id)
        against = await hub.runs.grant(other) if other else None
    rows: list[tuple[str, str, str]] = []
    if against:
        rows += [("-", word, f"only {run_id}") for word in removed(held.grant.rights, against.grant.rights)]
        rows += [("+", word, f"only {other}") for word in removed(against.grant.rights, held.grant.rights)]
    else:
        for cut in held.cuts:
            rows += [("-", word, f"cut off by the {cut.by}") for word in cut.first]
            if cut.count > len(cut.first):
                rows.append(("-", f"and {cut.count - len(cut.first)} more", f"cut off by the {cut.by}"))
        for change in held.changes:
            why = f"{change.kind} by {change.made_by}{f': {change.reason}' if change.reason else ''}"
            rows.append(("!", f"of run {change.run_id}", why))
        rows += [("-", word, "does not hold now") for word in removed(held.grant.rights, held.rights)]
    if as_json:
        output.write_json({"differences": [{"sign": sign, "right": word, "why": why} for sign, word, why in rows]})
        return
    output.write_table(("", "RIGHT", "WHY"), rows)


@grant.command(short_help="Ask whether a run may do something now, and why not.")
@click.argument("run_id", metavar="RUN")
@click.argument("kind", metavar="TYPE")
@click.argument("name", metavar="ID")
@click.argument("operation", metavar="[OPERATION]", default="")
@click.option("--caller", metavar="CALLER", default="", help="Who asks.")
@options.json
@options.server
@installation.blocking
async def check(run_id: str, kind: str, name: str, operation: str, caller: str, as_json: bool) -> None:
    """Ask whether a run may do OPERATION on ID now: exit code 0 when it may, 4 when it may not.

    TYPE is a type of resource, or `path`, `network`, `storage`, `state`. Without an operation it is asked whether
    the run may do anything with it.
    """
    async with installation.opened(folders=False) as hub:
        asked = Check(kind=kind, name=name, operation=operation, caller=caller)
        [decision] = await hub.runs.authorize(run_id, [asked], fresh=True)
    if as_json:
        output.write_json({"allowed": decision.allowed, "code": decision.code, "message": decision.message})
    elif decision.allowed:
        click.echo("allowed")
    else:
        click.echo(f"denied\t{decision.code}\t{output.visible(decision.message)}")
    if not decision.allowed:
        raise click.exceptions.Exit(output.UNAUTHORIZED)


def _shown(held: Held) -> dict[str, object]:
    """Return a run's authority in the shape of the HTTP API."""
    grant = held.grant
    return {
        "run_id": held.run_id,
        "digest": held.digest,
        "agent": grant.agent,
        "caller": grant.caller,
        "parent_run": grant.parent or None,
        "labels": grant.labels,
        "context": grant.context,
        "granted": msgspec.to_builtins(grant.rights),
        "rights": msgspec.to_builtins(held.rights),
        "refusal": held.refusal or None,
        "expires_at": seconds(grant.expires_us) if grant.expires_us else None,
        "cuts": msgspec.to_builtins(held.cuts),
        "changes": [
            {
                "run_id": change.run_id,
                "kind": change.kind,
                "rights": msgspec.to_builtins(change.rights),
                "reason": change.reason,
                "made_by": change.made_by,
                "created_at": seconds(change.created_us),
            }
            for change in held.changes
        ],
    }


def _words(rights: Rights) -> list[str]:
    return list(removed(rights, Rights(network="none")))


def _brief(rights: Rights) -> list[str]:
    """Return rights as words, of each type no more than a person reads."""
    counts: dict[str, int] = {}
    shown: list[str] = []
    for word in _words(rights):
        kind = word.partition(" ")[0]
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= _SHOWN:
            shown.append(word)
    for kind, count in counts.items():
        if count > _SHOWN:
            output.note(f"{count - _SHOWN} more of the type {kind}: --json has them")
    return shown


def _split(word: str) -> tuple[str, str, str]:
    """Return type, id and operation: an id may have spaces in it, the others of resources seldom."""
    kind, _, rest = word.partition(" ")
    if kind in {"storage", "state", "read", "write", "network"}:
        return kind, rest, "-"
    name, _, operation = rest.rpartition(" ")
    return kind, name, operation
