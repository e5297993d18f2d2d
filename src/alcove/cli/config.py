"""`alcove config`."""

from __future__ import annotations

import click

from alcove.cli import installation, options, output
from alcove.settings import Shown


@click.command(short_help="Show every setting, its value and where that came from.")
@options.json
def config(as_json: bool) -> None:
    """Show every setting, its value and where that came from.

    The origin is `default`, the name of an environment variable, or the file. Passwords are not shown.
    """
    settings = installation.settings()
    origins = settings.origins()
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
