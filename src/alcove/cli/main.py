"""`alcove`: finds the command, loads only that, and turns every error into two lines and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from alcove import __version__
from alcove.cli import options, output
from alcove.errors import AlcoveError, InvalidError


class _Place(NamedTuple):
    """Where a command is, and what it does: said here too, so that `--help` loads none of them."""

    module: str
    function: str
    help: str


_COMMANDS: Final = {
    "serve": _Place("serve", "serve", "Serve sessions over HTTP."),
    "doctor": _Place("doctor", "doctor", "Say whether runs can start here, and what to do if not."),
    "config": _Place("config", "config", "Show every setting, its value and where that came from."),
    "demo": _Place("demo.command", "demo", "Show what Alcove does, on a server of its own."),
    "chat": _Place("chat", "chat", "Run an agent on MESSAGE in a session and show what it says."),
    "exec": _Place("runs", "execute", "Run a command in a session's workspace, confined."),
    "create": _Place("sessions", "create", "Create a session and print its id."),
    "list": _Place("sessions", "list_sessions", "List sessions, newest first."),
    "detail": _Place("sessions", "detail", "Show one session: files, last messages, last runs."),
    "children": _Place("sessions", "children", "List the children of a session, or all below it."),
    "files": _Place("files", "files", "List the files of a session."),
    "cat": _Place("files", "cat", "Write files of a session to standard output."),
    "cp": _Place("files", "cp", "Copy files into a session, out of it, or between two."),
    "tail": _Place("runs", "tail", "Show what happens in the runs of a session, while it happens."),
    "runs": _Place("runs", "runs", "List runs; answer, steer and cancel them."),
    "state": _Place("state", "state", "Values by scope and key: get, set, ls, rm."),
    "search": _Place("search", "search", "Find messages and titles by their words."),
    "rm": _Place("sessions", "rm", "Move sessions and their descendants to the trash."),
    "restore": _Place("cleaning", "restore", "Bring sessions back from the trash."),
    "prune": _Place("cleaning", "prune", "Remove for good what is in the trash for long enough."),
    "cleanup-empty": _Place("cleaning", "cleanup_empty", "Move sessions to the trash in which nothing ever was."),
    "cleanup-old": _Place("cleaning", "cleanup_old", "Move sessions to the trash that were not used for long."),
    "dialog": _Place("dialog", "dialog", "Check and draw a dialog, show where a session is in one."),
    "export": _Place("exporting", "export", "Write sessions to a file: FILE.json, FILE.alcove."),
    "import": _Place("importing", "importing", "Import FILE.alcove, or what other programs kept."),
    "grant": _Place("grants", "grant", "What a run may do: show, diff, check."),
    "audit": _Place("audit", "audit", "What was denied and done: ls, export, verify, erase."),
    "key": _Place("keys", "key", "Keys of the server: create, ls, revoke."),
    "scratch": _Place("scratch", "scratch", "Folders per trace id, for scripts: dir, ls, sweep."),
    "completion": _Place("completion", "completion", "Print what makes a shell complete session ids."),
}


class Program(click.Group):
    """The group of commands. Each is loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the documentation."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        place = _COMMANDS.get(cmd_name)
        return getattr(import_module(f"alcove.cli.{place.module}"), place.function) if place else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.help) for name, place in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, or one that looks like it to suggest."""
        if args[0] not in _COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            close = get_close_matches(args[0], _COMMANDS, 1)
            remedy = f"did you mean `alcove {close[0]}`?" if close else "`alcove --help` lists the commands"
            raise InvalidError(f"there is no command {args[0]!r}", remedy=remedy)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command line and exit: see `click.Command.main`."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        sys.exit(_guarded(lambda: super(Program, self).main(*args, **{**kwargs, "standalone_mode": False})))


def _guarded(run: Callable[[], Any]) -> int:
    """Call `run` and return an exit code: whatever it raises becomes a line or two on stderr, never a traceback."""
    try:
        return run() or output.OK
    except AlcoveError as error:
        _trace()
        output.complain(error.message, error.remedy)
        return output.exit_code(error)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return output.USAGE
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        output.complain(error.format_message(), f"`{context.command_path} --help` explains" if context else "")
        return error.exit_code
    except click.Abort:
        return output.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last line of defence
        _trace()
        output.complain(
            f"internal: {type(error).__name__}: {error}", "run it again with ALCOVE_DEBUG=1 and report what it shows"
        )
        return output.ERROR


def _trace() -> None:
    if output.debugging():
        import traceback

        traceback.print_exc()


@click.command(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@options.server
@click.version_option(__version__, message="alcove %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Durable sessions for AI agents: history, a folder of its own, confined runs.

    Results go to stdout, messages to stderr. Exit codes: 0 ok, 1 error, 2 usage, 3 conflict, 4 needs authorization,
    5 not found, 130 interrupted.
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Run the command line of this process."""
    cli.main(prog_name="alcove")
