"""`alcove demo`: what it tells is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from alcove.cli.demo.terminal import StoryError, Terminal
from cli.conftest import golden


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="alcove-test-") as above:
        os.chmod(above, 0o711)
        yield Path(above)


def tell(folder: Path, *arguments: str) -> str:
    """Run the demo in a folder for temporary files, as a person would whose own installation is elsewhere."""
    told = subprocess.run(
        [sys.executable, "-m", "alcove", "demo", *arguments],
        env={**os.environ, "TMPDIR": str(folder), "ALCOVE_HOME": "/nowhere", "ALCOVE_URL": "http://127.0.0.1:1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert told.returncode == 0, told.stdout
    return told.stdout


def left(folder: Path) -> list[str]:
    """Return the command lines that have to do with a folder."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        if str(folder) in command + where:
            found.append(command)
    return found


def typed(told: str) -> str:
    """Return the headings, what is explained and what is typed, with a word for what differs each time."""
    lines = [line for line in told.splitlines() if line.startswith(("── ", "   ", "$ ", "export ")) or not line]
    text = re.sub(r"alcove-demo-\w+", "alcove-demo-<it>", "\n".join(lines) + "\n")
    text = re.sub(r"kill -9 \d+", "kill -9 <pid>", text)
    text = re.sub(r"(?m)^ {3,}\d+  .*\n", "", text)  # what a program counted
    return re.sub(r"(--port |127\.0\.0\.1:)\d+", r"\1<port>", text)


@pytest.mark.timeout(180)
def test_the_story_is_told_to_its_end_and_nothing_is_left(folder: Path) -> None:
    told = tell(folder)
    golden("demo.piped.txt", typed(told), folder)
    assert told.count("alcove serve --port") == 2
    assert [*folder.iterdir()] == []
    assert left(folder) == []


@pytest.mark.long
def test_what_is_kept_can_be_looked_at_and_ended_as_it_says(folder: Path) -> None:
    told = tell(folder, "--keep")
    url = re.search(r"export ALCOVE_URL=(\S+)", told)
    ending = re.search(r"kill \d+; rm -rf \S+", told)
    assert url
    assert ending
    with urlopen(f"{url[1]}/api/v1/sessions") as answer:
        assert b"A small site" in answer.read()
    subprocess.run(["bash", "-c", ending[0]], check=True)
    assert [*folder.iterdir()] == []


@pytest.mark.parametrize(
    ("command", "shows", "hides", "code", "why"),
    [
        ("exit 3", (), (), 0, "exit code 3"),
        ("true", (), (), None, "exit code 0"),
        ("echo a", ("b",), (), 0, "no 'b'"),
        ("echo a b", ("b", "a"), (), 0, "no 'a'"),
        ("echo a", ("a", "a"), (), 0, "no 'a'"),
        ("echo secret >&2", (), ("secret",), 0, "'secret' in"),
    ],
)
def test_a_step_that_does_something_else_ends_the_story(
    folder: Path, command: str, shows: tuple[str, ...], hides: tuple[str, ...], code: int | None, why: str
) -> None:
    with pytest.raises(StoryError, match=why):
        Terminal(folder, 0).type(command, *shows, hides=hides, code=code)


def test_without_git_it_says_so(folder: Path) -> None:
    (folder / "bash").symlink_to("/bin/bash")
    told = subprocess.run(
        [sys.executable, "-m", "alcove", "demo"], env={"PATH": str(folder)}, capture_output=True, text=True
    )
    assert told.returncode == 1
    assert "there is no git" in told.stderr
    assert "hint: install git" in told.stderr
