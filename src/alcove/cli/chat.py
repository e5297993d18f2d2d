"""`alcove chat`: one message, or a conversation on the terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

import click

from alcove import limits
from alcove.cli import installation, options, output, views
from alcove.cli.answering import Answering
from alcove.cli.installation import Hub
from alcove.cli.speaking import Speaker
from alcove.cli.steering import busy
from alcove.durations import duration_s
from alcove.errors import AlcoveError, InvalidError
from alcove.runs.model import Reply, Run, RunStatus
from alcove.sessions.model import Session
from alcove.values import Json

_LEAVE = frozenset({"/quit", "/exit"})
_SHOWN = 6  # messages that a conversation which goes on begins with


@click.command(short_help="Run an agent on MESSAGE in a session and show what it says.")
@click.argument("message", required=False)
@click.option(
    "--session",
    "session_id",
    metavar="ID",
    shell_complete=options.complete_sessions,
    help="Where; the beginning of an id is enough.",
)
@click.option("--new", is_flag=True, help="In a new session, also for a user who has one.")
@click.option("--user", metavar="USER", help="In this user's live session, or as the user of the new one.")
@click.option("--agent", metavar="NAME", help="Who answers.")
@click.option(
    "--timeout", "ends_after", metavar="TIME", help="End the run after 30s, 15m, 2h; the agent's own time by default."
)
@busy
@click.option("--raw", is_flag=True, help="On a terminal too, show colours and cursor movements.")
@options.json
@options.server
def chat(
    message: str | None,
    session_id: str | None,
    new: bool,
    user: str | None,
    agent: str | None,
    ends_after: str | None,
    busy: str,
    raw: bool,
    as_json: bool,
) -> None:
    """Run an agent on MESSAGE in a session and show what it says, while it says it.

    Without --session or --user the session is new; its id is printed on stderr. MESSAGE is read from standard input
    when it is `-`, or missing in a pipe; write `--` before one that begins with a dash. Without MESSAGE on a terminal
    it is a conversation: a message a line, `/quit` or Ctrl-D ends it, Ctrl-C cancels the run.

    Into a pipe the output goes as the program wrote it. On a terminal it is shown as text: terminal sequences are left
    out, unless --raw is given. What the run asks a person is put to you there: y approves, anything else denies. The
    agent's answer as it is kept, without banners and prompts, is in --json.

    The exit code is 0 when the program ended by itself, whatever its own exit code was (that is shown), and 1 when it
    failed or timed out. Ctrl-C cancels the run and waits until its processes are gone.
    """
    if session_id and (new or user):
        raise click.UsageError("--session says which session it is: leave out --new and --user")
    timeout_s = duration_s(ends_after, field="timeout") if ends_after else None
    if ends_after and timeout_s is None:
        raise InvalidError("a run has to end some time", field="timeout", remedy="leave --timeout out, or give 24h")
    place = Where(session_id, new=new, user=user)
    how = How(agent, timeout_s, busy=busy, raw=raw, as_json=as_json)
    if message is None and output.can_ask() and not as_json:
        converse(place, how)
    else:
        asyncio.run(say(_message(message), place, how))


class Where:
    """Which session a message goes to."""

    def __init__(self, prefix: str | None, *, new: bool = False, user: str | None = None) -> None:
        self.prefix = prefix
        self._new = new
        self._user = user

    async def find(self, hub: Hub) -> tuple[Session, bool]:
        """Return the session, and whether it was made for this."""
        if self.prefix is not None:
            return await installation.find_session(hub, self.prefix), False
        if self._user and not self._new:
            return await hub.sessions.live(self._user)
        return await hub.sessions.create(user_id=self._user), True


class How:
    """Who answers, for how long, and how that is shown."""

    def __init__(self, agent: str | None, timeout_s: float | None, *, busy: str, raw: bool, as_json: bool) -> None:
        self.agent = agent
        self.busy = busy
        self.timeout_s = timeout_s
        self.raw = raw
        self.as_json = as_json

    async def start(self, hub: Hub, session_id: str, message: str) -> Run:
        """Start the run."""
        return await hub.runs.start(session_id, message, agent=self.agent, timeout_s=self.timeout_s, busy=self.busy)


async def say(message: str, place: Where, how: How) -> None:
    """Say one message and show what is answered."""
    async with installation.opened(start=place.prefix is None) as hub:
        session, made = await place.find(hub)
        try:
            run = await how.start(hub, session.id, message)
        except BaseException:
            if made:
                await hub.sessions.delete(session.id, purge=True)
            raise
        if not how.as_json:
            output.note(f"session {session.id}")
        reply = await _answered(hub, run, how)
        if how.as_json:
            output.write_json(_json(reply))
    if reply.run.status != RunStatus.FINISHED:
        raise click.exceptions.Exit(output.ERROR)


async def _answered(hub: Hub, run: Run, how: How, *, files: bool = False) -> Reply:
    """Show a run to its end, and say how that was; cancel it when this is cancelled."""
    answering = Answering(hub, run.id) if output.can_ask() and not how.as_json else None
    speaker = Speaker(raw=how.raw, files=files, answering=answering)
    watching = asyncio.create_task(speaker.watch(hub, run.session_id)) if files else None
    try:
        if not how.as_json:
            await speaker.follow(hub, run)
        reply = await hub.runs.reply(run.id)
    except asyncio.CancelledError:
        output.note("cancelling")
        await hub.runs.cancel(run.id)
        raise
    finally:
        if answering:
            await answering.close()
        if watching:
            watching.cancel()
            await asyncio.wait([watching])
    if not how.as_json:
        _comment(reply, speaker.said)
    return reply


def _comment(reply: Reply, said: str) -> None:
    """Say how a run ended, where the output does not."""
    run = reply.run
    if run.status != RunStatus.FINISHED:
        output.complain(views.ending(run))
    elif run.exit_code:
        output.note(f"exit code {run.exit_code}")
        # An agent may explain an exit code: then its answer ends with a line that its program did not say.
        last = reply.text.rstrip().rpartition("\n")[2]
        if last not in said:
            output.note(last)


def converse(place: Where, how: How) -> None:
    """Hold a conversation on the terminal: a run for each line that is entered."""
    with asyncio.Runner() as runner, _opened(runner, start=place.prefix is None) as hub:
        session, _ = runner.run(place.find(hub))
        output.note(f"session {session.id}; /quit or Ctrl-D ends, Ctrl-C cancels a run")
        runner.run(_recall(hub, session))
        for line in _lines():
            try:
                run = runner.run(how.start(hub, session.id, line))
                runner.run(_answered(hub, run, how, files=True))
            except KeyboardInterrupt:
                continue  # the run is cancelled, and the conversation goes on
            except AlcoveError as error:
                output.complain(error.message, error.remedy)
        output.note(f"`alcove chat --session {session.id}` goes on")


@contextmanager
def _opened(runner: asyncio.Runner, *, start: bool) -> Generator[Hub]:
    opening = installation.opened(start=start)
    hub = runner.run(opening.__aenter__())
    try:
        yield hub
    except BaseException as error:
        runner.run(opening.__aexit__(type(error), error, error.__traceback__))
        raise
    runner.run(opening.__aexit__(None, None, None))


def _lines() -> Iterator[str]:
    """Yield what is entered, line by line, with the keys of a line editor where there is one."""
    with suppress(ImportError):
        import_module("readline")  # `input` uses it once it is loaded
    while True:
        try:
            line = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            click.echo()
            return
        if line in _LEAVE:
            return
        if line:
            yield line


async def _recall(hub: Hub, session: Session) -> None:
    """Show the end of a conversation that goes on."""
    for message in await hub.messages.last(session.id, _SHOWN):
        sign = "> " if message.role == "user" else ""
        click.echo(output.harmless(f"{sign}{message.text}"))


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


def _json(reply: Reply) -> dict[str, Json]:
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
        "returned": [*reply.returned],
    }
