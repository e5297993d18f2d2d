"""`alcove serve`."""

from __future__ import annotations

import click

from alcove.cli import installation, options
from alcove.errors import ConfigurationError


@click.command(short_help="Serve sessions over HTTP.")
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, help="TCP port (8080); 0 for any free one.")
@click.option("--base", help="Folder of the workspaces (sessions).")
@click.option("--home", help="Folder of database, homes and keys (.alcove beside the base).")
@click.option("--database", help="URL of the database (SQLite in the home).")
@click.option("--rung", help="How runs are confined: auto, userns, bwrap, landlock or none.")
@options.json
def serve(
    host: str | None,
    port: int | None,
    base: str | None,
    home: str | None,
    database: str | None,
    rung: str | None,
    as_json: bool,
) -> None:
    """Serve sessions over HTTP.

    Flags stand above ALCOVE_* variables, and those above alcove.toml. Ctrl-C stops it: runs get a moment to end.
    With --json, the line that says where it listens and those of the log are JSON objects.
    """
    flags = {"host": host, "port": port, "base": base, "home": home, "database": database, "sandbox.rung": rung}
    flags["log"] = "json" if as_json else None
    settings = installation.configuration(**flags)
    try:
        from alcove.server import serving
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("alcove"):
            raise
        raise ConfigurationError(
            f"the server needs {error.name}, which is not installed", remedy="pip install 'alcove[server]'"
        ) from error
    serving.run(settings)
