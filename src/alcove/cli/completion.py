"""`alcove completion`, and the ids that a shell completes."""

from __future__ import annotations

import asyncio
import os

import click
from click.shell_completion import get_completion_class

from alcove.cli import installation
from alcove.errors import AlcoveError

_SHOWN = 50  # ids that a shell offers


@click.command(short_help="Print what makes a shell complete session ids.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), required=False)
def completion(shell: str | None) -> None:
    """Print what makes SHELL complete commands, options and session ids; your login shell by default.

    bash: `eval "$(alcove completion bash)"` in ~/.bashrc; zsh the same in ~/.zshrc; fish:
    `alcove completion fish | source` in ~/.config/fish/completions/alcove.fish.
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    kind = get_completion_class(name)
    if kind is None:
        raise click.UsageError(f"there is no completion for {name or 'an unknown shell'!r}: name bash, zsh or fish")
    context = click.get_current_context().find_root()
    click.echo(kind(context.command, {}, "alcove", "_ALCOVE_COMPLETE").source())


def session_ids(context: click.Context, incomplete: str) -> list[str]:
    """Return the ids of sessions that begin so, newest first."""

    async def ask() -> list[str]:
        async with installation.opened_rows() as hub:
            if incomplete:
                found = await hub.sessions.find_prefix(incomplete)
            else:
                found = (await hub.sessions.list(limit=_SHOWN)).sessions
            return [session.id for session in found]

    try:
        with context.scope(cleanup=False):
            return asyncio.run(ask())
    except AlcoveError:
        return []
