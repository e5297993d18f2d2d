"""`alcove chat`."""

from __future__ import annotations

import asyncio
import re
import sys

import click

from alcove import limits
from alcove.cli import installation, options, output
from alcove.cli.installation import Hub
from alcove.durations import duration_s
from alcove.errors import InvalidError
from alcove.runs.model import Reply, Run, RunStatus
from alcove.sessions.model import Session
from alcove.values import Json

# Whole sequences first (CSI, OSC), then every other control character but newline and tab.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@click.command(short_help="Run an agent on MESSAGE in a session and show what it says.")
@click.argument("message", required=False)
@click.option("--session", "session_id", metavar="ID", help="Where; the beginning of an id is enough.")
@click.option("--new", is_flag=True, help="In a new session, also for a user who has one.")
@click.option("--user", metavar="USER", help="In this user's live session, or as the user of the new one.")
@click.option("--agent", metavar="NAME", help="Who answers.")
@click.option(
    "--timeout", "ends_after", metavar="TIME", help="End the run after 30s, 15m, 2h; the agent's own time by default."
)
@click.option("--raw", is_flag=True, help="Show the output byte by byte, colours and cursor movements included.")
@options.json
@options.server
@installation.blocking
async def chat(
    message: str | None,
    session_id: str | None,
    new: bool,
    user: str | None,
    agent: str | None,
    ends_after: str | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Run an agent on MESSAGE in a session and show what it says, while it says it.

    Without --session or --user the session is new; its id is printed on stderr. MESSAGE is read from standard input
    when it is `-`, or missing in a pipe; write `--` before one that begins with a dash.

    What the program says is shown as text: terminal sequences are left out, unless --raw is given. The agent's answer
    as it is kept, without banners and prompts, is in --json.

    The exit code is 0 when the program ended by itself, whatever its own exit code was (that is shown), and 1 when it
    failed or timed out. Ctrl-C cancels the run and waits until its processes are gone.
    """
    if session_id and (new or user):
        raise click.UsageError("--session says which session it is: leave out --new and --user")
    timeout_s = duration_s(ends_after, field="timeout") if ends_after else None
    if ends_after and timeout_s is None:
        raise InvalidError("a run has to end some time", field="timeout", remedy="leave --timeout out, or give 24h")
    asked = _message(message)
    async with installation.opened(start=session_id is None) as hub:
        session, made = await _session(hub, session_id, new=new, user=user)
        try:
            run = await hub.runs.start(session.id, asked, agent=agent, timeout_s=timeout_s)
        except BaseException:
            if made:
                await hub.sessions.delete(session.id, purge=True)
            raise
        if not as_json:
            output.note(f"session {session.id}")
        said = ""
        try:
            if not as_json:
                said = await _show(hub, run, raw=raw)
            reply = await hub.runs.reply(run.id)
        except asyncio.CancelledError:
            output.note("cancelling")
            await hub.runs.cancel(run.id)
            raise
        if as_json:
            output.write_json(_answer(reply))
        else:
            _comment(reply, said)
    if reply.run.status != RunStatus.FINISHED:
        raise click.exceptions.Exit(output.ERROR)


def _message(argument: str | None) -> str:
    """Return the message, from the argument or from standard input."""
    if argument not in {None, "-"}:
        return str(argument)
    if argument is None and output.can_ask():
        raise click.UsageError("there is no message: give one, or `-` to read it from standard input")
    content = sys.stdin.buffer.read(limits.CHAT_BYTES + 1)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        # A message that is too long may have been cut in the middle of a character: then its size is the error.
        if len(content) > limits.CHAT_BYTES:
            return content.decode(errors="replace")
        raise InvalidError(
            f"standard input is not UTF-8 at byte {error.start}", field="message", remedy="send text"
        ) from error


async def _session(hub: Hub, prefix: str | None, *, new: bool, user: str | None) -> tuple[Session, bool]:
    """Return the session to run in, and whether it was made for this."""
    if prefix is not None:
        return await installation.find_session(hub, prefix), False
    if user and not new:
        return await hub.sessions.live(user)
    return await hub.sessions.create(user_id=user), True


async def _show(hub: Hub, run: Run, *, raw: bool) -> str:
    """Write the output of a run as it comes, each stream to our own; return the end of what was shown."""
    spoken = ""
    async for event in hub.runs.events(run.id):
        if event.type == "output":
            stream, text = sys.stderr if event.data["stream"] == "stderr" else sys.stdout, str(event.data["text"])
            # A program may say what it likes; it shall not steer the terminal of whoever reads it.
            stream.write(text if raw else _CONTROL.sub("", text))
            stream.flush()
            spoken = (spoken + text)[-limits.EVENT_BYTES :]
        elif event.type == "message" and event.data["role"] == "assistant" and not spoken:
            # A function that returned its answer said it nowhere else.
            click.echo(event.data.get("text") or "", nl=bool(event.data.get("text")))
        elif event.type == "gap":
            output.note("… output left out …")
    if spoken and not spoken.endswith("\n") and output.terminal_columns():
        click.echo()
    return spoken


def _comment(reply: Reply, spoken: str) -> None:
    """Say how a run ended, where the output does not."""
    run = reply.run
    if run.error:
        output.complain(f"the run {run.status}: {run.error}" if run.status != RunStatus.FAILED else run.error)
    elif run.status != RunStatus.FINISHED:
        output.complain(f"the run was {run.status}" if run.status == RunStatus.CANCELLED else "the run timed out")
    elif run.exit_code:
        output.note(f"exit code {run.exit_code}")
        # An agent may explain an exit code: then its answer ends with a line that its program did not say.
        last = reply.text.rstrip().rpartition("\n")[2]
        if last not in spoken:
            output.note(last)


def _answer(reply: Reply) -> dict[str, Json]:
    run = reply.run
    return {
        "session_id": run.session_id,
        "response": reply.text,
        "run_id": run.id,
        "status": run.status,
        "exit_code": run.exit_code,
        "error": run.error,
        "agent": run.agent,
        "rung": run.rung,
    }
