"""What the command line can do stands in its page, and its short texts say the same everywhere."""

from __future__ import annotations

import click

from alcove.cli.main import cli
from tidy import commands


def test_every_command_and_option_is_in_the_page() -> None:
    assert commands.PAGE.read_text() == commands.page(), "docs/cli.md is out of date: run `make stubs`"


def test_help_says_of_each_command_what_the_command_says() -> None:
    """`--help` loads no command, so that the texts stand twice."""
    context = click.Context(cli)
    loaded = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    said = {name: command.short_help for name, command in loaded.items() if command}
    formatter = click.HelpFormatter(width=200)
    cli.format_commands(context, formatter)
    listed = [line.split(maxsplit=1) for line in formatter.getvalue().splitlines()[1:]]
    assert dict(listed) == said
