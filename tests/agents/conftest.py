from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alcove.agents.base import Invocation
from alcove.agents.command import CommandAgent
from alcove.agents.table import CommandTable
from alcove.agents.transcript import Transcript

FAKES = Path(__file__).with_name("fakes")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH begins with the fake programs; they run on the Python of these tests."""
    folder = tmp_path / "fakes"
    folder.mkdir()
    for source in FAKES.iterdir():
        program = folder / source.name
        program.write_text(source.read_text("utf-8").replace("#!/usr/bin/env python3", f"#!{sys.executable}"), "utf-8")
        program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path)}


@pytest.fixture
def command_agent(environ: dict[str, str], tmp_path: Path) -> Callable[..., CommandAgent]:
    def make(**keys: object) -> CommandAgent:
        keys.setdefault("command", ["q", "chat"])
        return CommandAgent("it", CommandTable(**keys), folder=tmp_path, environ=environ)  # pyright: ignore[reportArgumentType]

    return make


def collect(invocation: Invocation, transcript: Transcript, workspace: Path, enough: bytes = b"") -> int:
    """Run a program as a run would, and end its group when its output ends or holds `enough`; return its exit code."""
    given = workspace / "stdin"
    given.write_bytes(invocation.stdin)
    with given.open("rb") as stdin, selectors.DefaultSelector() as selector:
        process = subprocess.Popen(
            invocation.argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=workspace,
            env={"PATH": "/usr/bin:/bin", **invocation.env},
            start_new_session=True,
        )
        with process:
            assert process.stdout
            assert process.stderr
            selector.register(process.stdout, selectors.EVENT_READ, "stdout")
            selector.register(process.stderr, selectors.EVENT_READ, "stderr")
            while selector.get_map():
                for key, _ in selector.select():
                    chunk = os.read(key.fd, 65536)
                    transcript.feed(key.data, chunk)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif enough and enough in chunk:
                        os.killpg(process.pid, signal.SIGKILL)
        return process.returncode


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[str, int]]:
    workspace = tmp_path / "workspace"

    def run_once(agent: CommandAgent, invocation: Invocation, enough: bytes = b"") -> tuple[str, int]:
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir()
        transcript = agent.transcript()
        exit_code = collect(invocation, transcript, workspace, enough)
        return agent.answer(transcript, exit_code), exit_code

    return run_once
