"""`alcove demo`."""

from __future__ import annotations

import shlex
import shutil
import socket
import tempfile
from pathlib import Path

import click

from alcove.cli.demo.story import tell
from alcove.cli.demo.terminal import Terminal
from alcove.errors import ConfigurationError

_NEEDED = ("bash", "git", "python3")


@click.command(short_help="Show what Alcove does, on a server of its own.")
@click.option("--keep", is_flag=True, help="Leave the server and its sessions, for a look.")
def demo(keep: bool) -> None:
    """Show what Alcove does, in under a minute: each step as the command that you would type, with its real output.

    A server is started on a free port in a folder of its own below $TMPDIR. Programs are built and run in two sessions;
    one tries to get at the other's files; the server is killed and started again; sessions go and come back. What
    comes is checked: the exit code is 0 only when every step did what it says. Your own sessions are not touched, and
    at the end everything is removed, unless --keep is given.
    """
    for program in _NEEDED:
        if not shutil.which(program):
            raise ConfigurationError(
                f"the demo builds real programs, and there is no {program}", remedy=f"install {program}"
            )
    folder = Path(tempfile.mkdtemp(prefix="alcove-demo-"))
    # What runs in a session may have a uid of its own, which has to get through.
    folder.chmod(0o711)
    terminal = Terminal(folder, _free_port())
    kept = False
    try:
        tell(terminal)
        kept = keep
    finally:
        if not kept:
            terminal.close()
            shutil.rmtree(folder, ignore_errors=True)
    if kept:
        _explain(terminal)
    else:
        click.echo(f"\nThe server is stopped, and {folder} is gone; `alcove demo --keep` leaves them for a look.")


def _explain(terminal: Terminal) -> None:
    folder = shlex.quote(str(terminal.folder))
    click.echo("\nThe server is still there, with everything above. To have a look:")
    click.echo(f"  export ALCOVE_URL={terminal.url}")
    click.echo("  alcove list; alcove detail ben; alcove chat --session ben")
    click.echo(f"{terminal.url}/docs shows the API. To end it:")
    click.echo(f"  kill {terminal.server_pid}; rm -rf {folder}; unset ALCOVE_URL")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]
