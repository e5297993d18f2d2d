"""`alcove runs waiting`, `approve` and `deny`: what runs ask a person, and the answer."""

from __future__ import annotations

import click

from alcove import limits
from alcove.cli import installation, options, output
from alcove.cli.installation import Hub
from alcove.clock import SystemClock, seconds
from alcove.errors import ApprovalNotFoundError, InvalidError
from alcove.rights.approvals import Approval
from alcove.values import Json

_SHOWN_CHARS = 200  # of arguments in a table; --json has all


@click.command(short_help="List what runs ask a person.")
@click.argument("session_id", metavar="[ID]", required=False, shell_complete=options.complete_sessions)
@options.json
@options.server
@installation.blocking
async def waiting(session_id: str | None, as_json: bool) -> None:
    """List what runs ask a person and nobody has answered, newest first: in one session, or in all."""
    async with installation.opened(folders=False) as hub:
        session = await installation.find_session(hub, session_id) if session_id else None
        page = await hub.runs.approvals(session_id=session.id if session else None, waiting=True, limit=limits.PAGE)
    if as_json:
        output.write_json({"approvals": [_json(one) for one in page.approvals], "next_cursor": page.next_cursor})
        return
    now = SystemClock().now()
    rows = [
        (one.id, one.run_id, one.session_id or "-", _words(one), output.duration(one.expires_us - now), one.message)
        for one in page.approvals
    ]
    output.write_table(("REQUEST", "RUN", "SESSION", "WHAT", "EXPIRES IN", "MESSAGE"), rows)
    if page.next_cursor:
        output.note(f"the newest {limits.PAGE} are shown")


@click.command(short_help="Say yes to what a run asks.")
@click.argument("prefix", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Why; the run is told, and the audit keeps it.")
@options.force
@options.json
@options.server
@installation.blocking
async def approve(prefix: str, reason: str, force: bool, as_json: bool) -> None:
    """Say yes to what a run asks, for exactly what it shows and this once.

    ID is that of the request, its beginning, or that of a run that asks one thing. On a terminal it is shown first.
    """
    await _decide(prefix, reason, approved=True, force=force, as_json=as_json)


@click.command(short_help="Say no to what a run asks.")
@click.argument("prefix", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Why; the run is told, and the audit keeps it.")
@options.json
@options.server
@installation.blocking
async def deny(prefix: str, reason: str, as_json: bool) -> None:
    """Say no to what a run asks.

    ID is that of the request, its beginning, or that of a run that asks one thing.
    """
    await _decide(prefix, reason, approved=False, force=True, as_json=as_json)


async def _decide(prefix: str, reason: str, *, approved: bool, force: bool, as_json: bool) -> None:
    async with installation.opened(folders=False) as hub:
        request = await _find(hub, prefix)
        if not force and output.can_ask():
            _show(request)
            if not output.agreed("Approve this?"):
                raise click.Abort
        decide = hub.runs.approve if approved else hub.runs.deny
        answered = await decide(request.run_id, request.id, reason=reason)
    if as_json:
        output.write_json(_json(answered))
    else:
        click.echo(answered.id)


async def _find(hub: Hub, prefix: str) -> Approval:
    """Return the request that is meant: one that waits, or else one that was answered.

    Raises:
        ApprovalNotFoundError: There is none.
        InvalidError: There are several; the remedy names them.
    """
    for only_waiting in (True, False):
        found = await _fitting(hub, prefix, waiting=only_waiting)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(one.id for one in found[: limits.PREFIX_SESSIONS])
            raise InvalidError(f"{prefix!r} fits several requests", field="id", remedy=f"give one of them: {names}")
    raise ApprovalNotFoundError(
        f"there is no request {prefix!r}", remedy="`alcove runs waiting` lists what waits for an answer"
    )


async def _fitting(hub: Hub, prefix: str, *, waiting: bool) -> list[Approval]:
    found: list[Approval] = []
    cursor: str | None = None
    while True:
        page = await hub.runs.approvals(waiting=waiting, limit=limits.PAGE, cursor=cursor)
        found += [one for one in page.approvals if one.id.startswith(prefix) or one.run_id.startswith(prefix)]
        cursor = page.next_cursor
        if not cursor:
            return [one for one in found if prefix in {one.id, one.run_id}] or found


def _show(request: Approval) -> None:
    facts = {
        "request": request.id,
        "run": request.run_id,
        "agent": request.agent,
        "session": request.session_id,
        "type": request.kind,
        "id": request.name,
        "operation": request.operation,
        "arguments": request.arguments_json,
        "message": request.message,
    }
    for name, value in facts.items():
        if value:
            output.note(f"{name:9}  {value}")


def _words(request: Approval) -> str:
    words = " ".join(filter(None, (request.kind, request.name, request.operation)))
    arguments = "" if request.arguments_json == "null" else f" {request.arguments_json}"
    said = words + arguments
    return said if len(said) <= _SHOWN_CHARS else f"{said[:_SHOWN_CHARS]}…"


def _json(request: Approval) -> dict[str, Json]:
    """Return a request in the shape of the HTTP API."""
    return {
        "approval_id": request.id,
        "run_id": request.run_id,
        "session_id": request.session_id,
        "user_id": request.user_id,
        "agent": request.agent,
        "type": request.kind,
        "id": request.name,
        "operation": request.operation,
        "arguments": request.arguments,
        "digest": request.digest,
        "message": request.message,
        "status": request.status,
        "reason": request.reason,
        "decided_by": request.decided_by,
        "created_at": seconds(request.created_us),
        "expires_at": seconds(request.expires_us),
        "decided_at": seconds(request.decided_us) if request.decided_us else None,
    }
