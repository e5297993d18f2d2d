"""`alcove config`."""

from __future__ import annotations

import click

from alcove.cli import installation, options, output
from alcove.settings.model import Origin, Shown


@click.command(short_help="Show every setting, its value and where that came from.")
@options.json
def config(as_json: bool) -> None:
    """Show every setting, its value and where that came from.

    The origin is `default`, the name of an environment variable, or the file. Passwords are not shown, and of secrets
    only where their values come from.
    """
    from alcove.agents.catalog import Catalog

    settings = installation.settings()
    secrets = Catalog(settings.agents, secrets=settings.secrets, file=settings.file).describe_secrets()
    origins = settings.origins() + [
        Origin(f"secrets.{one.name}", one.source, str(settings.file) if one.declared else "default") for one in secrets
    ]
    if as_json:
        output.write_json(
            {
                "file": str(settings.file) if settings.file else None,
                "settings": [source._asdict() for source in origins],
                "warnings": list(settings.warnings),
            }
        )
        return
    rows = [(source.name, _text(source.value), source.origin) for source in origins]
    output.write_table(("SETTING", "VALUE", "ORIGIN"), rows)


def _text(value: Shown) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)
