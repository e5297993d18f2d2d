"""The README's lines, run as printed: what a newcomer types on the first day has to work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def block(language: str) -> str:
    """The first fenced block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert found, f"README has no {language} block"
    return found[1]


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A folder that programs of a leased uid may pass through, as a checkout is."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith("pytest-"):
            folder.chmod(0o711)
    tmp_path.chmod(0o711)
    return tmp_path


def environment() -> dict[str, str]:
    """This environment with the interpreter's own commands first."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "ALCOVE_PORT": "0"}


@pytest.fixture
def port(installation: Path) -> Iterator[int]:
    """A server, started as `make run` starts it."""
    server = subprocess.Popen(
        [sys.executable, "-m", "alcove", "serve"],
        cwd=installation,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout
    try:
        line = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line
        yield int(found[1])
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
        server.stdout.close()


def test_the_curl_lines_of_the_readme_work_as_printed(installation: Path, port: int) -> None:
    lines = [line[2:] for line in block("console").splitlines() if line.startswith("$ ")]
    assert lines.pop(0).startswith("make run")
    script = "\n".join(line + "; echo" for line in lines).replace("localhost:8080", f"localhost:{port}")
    said = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=installation, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r'"session_id":"[0-9a-f-]{36}"', said)
    assert "note.txt" in said
    assert '"status":"finished"' in said
    assert '"response":"1\\n2\\n3"' in said
    assert '"name":"n.txt"' in said
    assert '"seq":2' in said
    assert "event: run.finished" in said
    assert said.rstrip().endswith("204")


def test_the_python_of_the_readme_works_as_printed(installation: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", block("python")],
        cwd=installation,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert "run.finished {'status': 'finished', 'exit_code': 0" in said.stdout
    assert "result.txt" in said.stdout
    assert (installation / ".alcove").is_dir()
    assert (installation / "sessions").is_dir()
