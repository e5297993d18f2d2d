"""Options that commands share. Light: the group of commands has some of them too."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

json = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
dry_run = click.option("--dry-run", "-n", is_flag=True, help="Only show what would go.")
force = click.option("--force", "-f", "--yes", "-y", is_flag=True, help="Do not ask.")


def _keep(context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[f"alcove.{option.name}"] = value


def server(command: F) -> F:
    """Give a command the options that name a server to work on instead of the installation here."""
    key = click.option(
        "--api-key", expose_value=False, callback=_keep, metavar="KEY", help="Who you are to that server [ALCOVE_KEY]."
    )
    url = click.option(
        "--url", expose_value=False, callback=_keep, metavar="URL", help="Work on that server [ALCOVE_URL]."
    )
    return url(key(command))


def complete_sessions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids that begin so, for a shell that completes; none where nothing can be asked."""
    # By name: what finds them has options itself.
    return import_module("alcove.cli.completion").session_ids(context, incomplete)


def server_named() -> tuple[str, str]:
    """Return the address of the server that the command line or the environment names, and the key for it."""
    meta = click.get_current_context().meta
    url = meta.get("alcove.url", os.environ.get("ALCOVE_URL", ""))
    return url, meta.get("alcove.api_key", os.environ.get("ALCOVE_KEY", ""))
