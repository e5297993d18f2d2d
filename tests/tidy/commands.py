"""Writes the reference of docs/cli.md from the commands themselves: `make stubs`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Final

import click

from alcove.cli.main import cli
from tidy.house import ROOT

PAGE = ROOT / "docs" / "cli.md"
SHARED: Final = ("--json", "--url", "--api-key", "--help")
_BLOCK = "<!-- {name}: written by `make stubs` -->\n"
_END = "<!-- end -->\n"


def page() -> str:
    """Return the page as it has to be: its two tables as the commands say them."""
    text = PAGE.read_text()
    for name, lines in (("commands", _overview()), ("options", _reference())):
        begin = re.escape(_BLOCK.format(name=name))
        text, count = re.subn(
            f"{begin}.*?{_END}",
            lambda _, lines=lines, name=name: _BLOCK.format(name=name) + "\n".join(lines) + "\n" + _END,
            text,
            flags=re.DOTALL,
        )
        assert count == 1, f"docs/cli.md lacks the block {name}"
    return text


def _overview() -> Iterator[str]:
    yield "| command | what it does |"
    yield "|---|---|"
    context = click.Context(cli, info_name="alcove")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command
        yield f"| [`alcove {name}`](#alcove-{name}) | {_cell(command.get_short_help_str(200))} |"


def _reference() -> Iterator[str]:
    context = click.Context(cli, info_name="alcove")
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command
        yield from _command(command, click.Context(command, info_name=f"alcove {name}"), "###")


def _command(command: click.Command, context: click.Context, level: str) -> Iterator[str]:
    yield f"\n{level} {context.info_name}\n"
    usage = " ".join(piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]")
    yield f"`{context.info_name} {usage}`\n".replace(" `", "`")
    yield inspect.cleandoc(command.help or "")
    records = [
        record
        for option in command.get_params(context)
        if isinstance(option, click.Option)
        and not {*option.opts} & {*SHARED}
        and (record := option.get_help_record(context))
    ]
    if records:
        yield "\n| option | |\n|---|---|"
        yield from (f"| `{_cell(name)}` | {_cell(text)} |" for name, text in records)
    also = [f"`{one}`" for one in SHARED[:-1] if any(one in option.opts for option in command.params)]
    if also:
        yield f"\nAnd {', '.join(also)}."
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below
            yield from _command(below, click.Context(below, info_name=f"{context.info_name} {name}"), level + "#")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page())
