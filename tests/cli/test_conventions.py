"""What every command has in common: JSON, a look before anything goes, ids by their beginning, exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from alcove.cli.main import cli
from cli.conftest import Run, either

# Their output is what a program wrote, a file, a folder's name, a script for a shell, a picture, or a story.
PLAIN = {"demo", "exec", "cat", "cp", "dialog draw", "audit export", "scratch dir", "completion"}
REMOVE = {"rm", "prune", "cleanup-empty", "cleanup-old", "scratch sweep", "audit erase"}
ASKED_FOR = {
    *(
        "serve",
        "demo",
        "doctor",
        "config",
        "chat",
        "exec",
        "create",
        "list",
        "detail",
        "children",
        "files",
        "cat",
        "cp",
    ),
    *("tail", "rm", "restore", "prune", "cleanup-empty", "cleanup-old", "export", "import", "runs", "scratch"),
}


def _commands(group: click.Group = cli, above: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


COMMANDS = dict(_commands())


def _options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def test_every_command_that_was_asked_for_is_there() -> None:
    assert {name.partition(" ")[0] for name in COMMANDS} >= ASKED_FOR


@pytest.mark.parametrize("name", COMMANDS)
def test_programs_get_json_and_nothing_goes_unseen(name: str) -> None:
    options = _options(COMMANDS[name])
    assert ("--json" in options) == (name not in PLAIN)
    if name in REMOVE or name.startswith("import "):
        assert "--dry-run" in options
    assert COMMANDS[name].help, "it says what it does"


# How each of them is told which session; ID stands for it.
ON_A_SESSION = {
    "chat": "chat --session ID true",
    "exec": "exec ID true",
    "detail": "detail ID",
    "children": "children ID",
    "files": "files ID",
    "cat": "cat ID:file",
    "cp": "cp ID:file copy",
    "tail": "tail ID",
    "runs": "runs ID",
    "export": "export FILE.json ID",
    "export an archive": "export FILE.alcove ID",
    "dialog show": "dialog show ID",
    "create below": "create --parent ID",
    "rm": "rm --dry-run ID",
    "restore": "restore ID",
}


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (where, name)
        for where in ("here", "server")
        for name in ON_A_SESSION
        # An archive is written where the installation is.
        if (where, name) != ("server", "export an archive")
    ],
    indirect=["run"],
)
def test_a_beginning_that_is_one_sessions_only_is_enough(run: Run, place: Path, name: str) -> None:
    for session in ("report-1", "order-1", "order-2"):
        run("create", "--id", session)
        (place / "sessions" / session / "file").write_text("content")
    for session in ("report-1", "order-1", "order-2") if name == "restore" else ():
        run("rm", session)

    def typed(session: str, code: int = 0) -> str:
        line = ON_A_SESSION[name].replace("ID", session).replace("FILE", session or "none")
        return run(*line.split(), exit_code=code).output

    if name == "dialog show":
        assert "report-1" in typed("rep", 5), "it has no dialog"
    else:
        typed("rep")
    ambiguous = typed("order", 2)
    assert "order-1" in ambiguous
    assert "order-2" in ambiguous
    assert "nobody" in typed("nobody", 5)


@either
def test_the_exit_code_says_what_went_wrong(run: Run, place: Path) -> None:
    run("create", "--id", "ana")
    for words, code in (
        (["list"], 0),
        (["exec", "ana", "--", "sh", "-c", "exit 7"], 7),
        (["list", "--status", "nonsense"], 2),
        (["create", "--id", "ana"], 3),
        (["detail", "nobody"], 5),
        (["cat", "ana:nothing"], 5),
    ):
        run(*words, exit_code=code)


def test_who_has_no_key_is_told_so_by_the_exit_code(run: Run, server: str) -> None:
    run("key", "create", "--role", "admin", "--label", "Ana")
    assert run("--url", server, "list", exit_code=4).stdout == ""


def test_json_of_an_error_is_for_programs_too(run: Run) -> None:
    run("create", "--id", "ana")
    result = run("detail", "nobody", "--json", exit_code=5)
    assert result.stdout == "" or json.loads(result.stdout)
    assert result.stderr.startswith("error: ")
