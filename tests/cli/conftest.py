"""Commands in a folder of their own, with a clock that stands still."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from click.testing import CliRunner, Result

from alcove.cli import output
from alcove.cli.main import cli
from alcove.clock import SECOND, SystemClock
from cli.served import Served

NOW = 1_790_000_000 * SECOND
GOLDEN = Path(__file__).with_name("golden")


class Run(Protocol):
    def __call__(
        self, *args: str, stdin: str | bytes | None = None, columns: int | None = None, exit_code: int = 0
    ) -> Result: ...


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, without the developer's configuration.

    Not pytest's own: the uid of a session could not get through its folders, which only their owner may pass.
    """
    with tempfile.TemporaryDirectory(prefix="alcove-cli-") as above:
        os.chmod(above, 0o711)
        folder = Path(above, "here")
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOME", above)
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
        monkeypatch.delenv("NO_COLOR", raising=False)
        yield folder
        monkeypatch.undo()


either = pytest.mark.parametrize("run", ["here", "server"], indirect=True)
"""A command does the same on the installation here and on a server of it."""


@pytest.fixture
def server(place: Path) -> Iterator[str]:
    """A server of the installation in `place`, in a thread: the clock that a test stops stands still for it too."""
    with Served(place) as served:
        yield served.url


@pytest.fixture
def run(request: pytest.FixtureRequest, place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process; `columns` makes stdout a terminal of that width."""
    if getattr(request, "param", "here") == "server":
        monkeypatch.setenv("ALCOVE_URL", request.getfixturevalue("server"))

    def run(*args: str, stdin: str | bytes | None = None, columns: int | None = None, exit_code: int = 0) -> Result:
        monkeypatch.setattr(output, "terminal_columns", lambda: columns)
        result = CliRunner().invoke(cli, list(args), input=stdin, color=columns is not None, prog_name="alcove")
        assert (result.exit_code, result.stderr) == (exit_code, result.stderr), result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stops the clock, at a number of seconds after `NOW`."""

    def at(seconds: int) -> None:
        def now(_: SystemClock) -> int:
            return NOW + seconds * SECOND

        monkeypatch.setattr(SystemClock, "now", now)

    at(0)
    return at


@pytest.fixture
def somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts somebody at standard input, who can be asked."""
    monkeypatch.setattr(output, "can_ask", lambda: True)


def golden(name: str, text: str, place: Path) -> None:
    """Compare text with `golden/NAME`; with GOLDEN=write in the environment, write it."""
    text = masked(text, place)
    file = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


def masked(text: str, place: Path) -> str:
    """Return text with a word for the working directory, and for each UUID."""
    text = text.replace(str(place), "<place>")
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<id>", text)


def loaded(result: Result) -> Any:
    """Return the JSON that a command wrote."""
    return json.loads(result.stdout)
