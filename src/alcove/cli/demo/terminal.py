"""The terminal at which the demo is typed: a shell for each command, and a server that can be killed.

This is the one place besides the sandbox that starts processes, because it stands for a person who does. What is
started here is not confined, as nothing is that a person types.
"""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

import click

from alcove.cli import output
from alcove.errors import AlcoveError

_PATIENCE_S: Final = 30  # for what takes a moment on a machine that is not busy
_LOOK_S: Final = 0.1  # between two looks whether something has happened
_ROWS: Final = 50
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


class StoryError(AlcoveError):
    """A step of the demo did not do what it says."""

    code = "demo"


class Terminal:
    """A person's shell in the folder of the demo.

    Args:
        folder: The working directory; the installation is made there.
        port: Where the server listens, each time that it is started.

    Attributes:
        server_pid: The process of the server; 0 while there is none.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.server_pid = 0
        self._port = port
        self._server: subprocess.Popen[bytes] | None = None
        self._log = folder / "server.log"
        self._behind: list[Behind] = []
        self._environ = {name: value for name, value in os.environ.items() if not _ours(name)}
        # `alcove` is this one, also where it is on no path.
        self._environ["BASH_FUNC_alcove%%"] = '() { "$ALCOVE_DEMO_PYTHON" -m alcove "$@"; }'
        # A sweep of the server's own, in the middle of the story, would be ahead of it.
        self._environ["AUTO_CLEANUP_SESSIONS"] = "false"
        self._environ |= {"ALCOVE_DEMO_PYTHON": sys.executable, "XDG_CONFIG_HOME": str(folder / "config")}

    def chapter(self, title: str, *about: str) -> None:
        """Begin a part of the story."""
        click.echo(f"\n{click.style(f'── {title}', bold=True)}")
        for line in about:
            click.echo(click.style(f"   {line}", dim=True))

    def type(self, command: str, *shows: str, hides: Sequence[str] = (), code: int | None = 0) -> str:
        """Type a command, show what it says, and check that.

        Args:
            command: For the shell.
            shows: What has to be in its output, in this order.
            hides: What may not be.
            code: The exit code that it has to have; None for any but 0.

        Returns:
            What it said, without colours.

        Raises:
            StoryError: It did something else.
        """
        self._prompt(command)
        said, exit_code = self._run(command)
        if exit_code != code and (code is not None or exit_code == 0):
            self._fail(command, f"exit code {exit_code}")
        begins = 0
        for words in shows:
            begins = said.find(words, begins)
            if begins < 0:
                self._fail(command, f"no {words!r} in what it said")
            begins += len(words)
        for words in hides:
            if words in said:
                self._fail(command, f"{words!r} in what it said")
        return said

    def behind(self, command: str) -> Behind:
        """Type a command that goes on in the background."""
        self._prompt(f"{command} &")
        one = Behind(self, command)
        self._behind.append(one)
        return one

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for something that takes a moment.

        Raises:
            StoryError: It did not happen.
        """
        ends = time.monotonic() + _PATIENCE_S
        while not true():
            if time.monotonic() > ends:
                self._fail(what, f"not within {_PATIENCE_S} seconds")
            time.sleep(_LOOK_S)

    def check(self, true: bool, otherwise: str) -> None:
        """Go on only when something is as it has to be. Raises StoryError."""
        if not true:
            self._fail("what was kept", otherwise)

    def serve(self) -> None:
        """Start the server, and wait until it listens."""
        self._prompt(f"alcove serve --port {self._port} &")
        begun = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            # Out of our group: Ctrl-C is for us, and we are the one who stops it.
            self._server = subprocess.Popen(
                [sys.executable, "-m", "alcove", "serve", "--port", str(self._port)],
                cwd=self.folder,
                env={**self._environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.server_pid = self._server.pid
        line = f"Alcove listens on {self.url}"

        def listens() -> bool:
            assert self._server
            return line.encode() in self._log.read_bytes()[begun:] or self._server.poll() is not None

        self.until(listens, "alcove serve")
        if self._server.poll() is not None:
            self._fail("alcove serve", f"exit code {self._server.returncode}")
        click.echo(line)
        self._environ["ALCOVE_URL"] = self.url

    def kill_server(self) -> None:
        """Kill it, without a word of warning."""
        assert self._server
        self._prompt(f"kill -9 {self.server_pid}     # the server")
        self._server.send_signal(signal.SIGKILL)
        self._server.wait()
        self._server, self.server_pid = None, 0

    def close(self) -> None:
        """End what was started."""
        for one in self._behind:
            one.end()
        if self._server:
            self._server.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._server.wait(_PATIENCE_S)
            self._server.kill()
            self._server.wait()

    def start(self, command: str, out: int | IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a shell for a command."""
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )

    def _prompt(self, command: str) -> None:
        click.echo(f"{click.style('$', fg='green', bold=True)} {click.style(command, fg='cyan')}")

    def _run(self, command: str) -> tuple[str, int]:
        """Run a command; what it says is shown as it comes. On a terminal it has a terminal of its own."""
        said: list[bytes] = []
        with _pair() as (ours, theirs):
            process = self.start(command, theirs)
            os.close(theirs)
            # The last reader of a terminal gets an error where that of a pipe gets an end.
            with suppress(OSError):
                while chunk := os.read(ours, 65536):
                    said.append(chunk)
                    click.echo(chunk, nl=False)
            exit_code = process.wait()
        text = b"".join(said).decode(errors="replace").replace("\r\n", "\n")
        return _STYLE.sub("", text), exit_code

    def _fail(self, command: str, why: str) -> None:
        log = self._log.read_text(errors="replace").splitlines()[-10:] if self._log.exists() else []
        if log:
            output.note("the last lines of the server's log:\n" + "\n".join(f"  {line}" for line in log))
        raise StoryError(
            f"this step did not do what it says: {command}: {why}",
            remedy="`alcove doctor` says what this machine can do; ALCOVE_DEBUG=1 shows where it stopped",
        )


class Behind:
    """A command that was left running in the background."""

    def __init__(self, terminal: Terminal, command: str) -> None:
        self._file = (terminal.folder / "behind.log").open("w+b")
        self._process = terminal.start(command, self._file)

    @property
    def said(self) -> str:
        """What it has said so far."""
        return os.pread(self._file.fileno(), 1 << 20, 0).decode(errors="replace")

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def end(self) -> None:
        """End it, if it has not ended by itself."""
        self._process.terminate()
        self._process.wait()
        self._file.close()


@contextmanager
def _pair() -> Generator[tuple[int, int]]:
    """Yield where to read, and where a command is to write: its end is closed by whoever starts it."""
    columns = output.terminal_columns()
    if columns is None:
        ours, theirs = os.pipe()
    else:
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (_ROWS, columns))
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def _ours(name: str) -> bool:
    """Return whether a variable says something about the person's own installation, which is not to be touched."""
    named = name.startswith("ALCOVE_") and not name.startswith("ALCOVE_SANDBOX")
    return named or name in {"SESSIONS_BASE_DIR", "AUTO_CLEANUP_SESSIONS"}
