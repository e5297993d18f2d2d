"""What people and programs get, word for word. `GOLDEN=write` in the environment writes the files anew."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import GOLDEN, Run, golden, masked

HOSTILE = "title \x1b[2J\x07 \u202eover"


@pytest.fixture
def told(run: Run, frozen: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A session in which something was said and run, in an installation whose rung is the same on every machine."""
    monkeypatch.setenv("ALCOVE_SANDBOX", "none")
    run("create", "--id", "ana", "--user", "ana", "--title", HOSTILE, "--metadata", "n=\x1b[31m")
    run("chat", "--session", "ana", "echo hello; exit 3")
    run("create", "--id", "kid", "--parent", "ana", "--title", "below")
    frozen(90)


def test_settings(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "alcove.toml").write_text('port = 9000\n[sandbox]\nread = ["/usr/share"]\n')
    monkeypatch.setenv("ALCOVE_SESSION_TTL", "7d")
    lines = run("config").output.splitlines(keepends=True)
    picked = [line for line in lines if re.match(r"(host|port|session_ttl|sandbox.read)\b", line)]
    golden("config.piped.txt", "".join(picked), place)


@pytest.mark.usefixtures("told")
def test_what_was_said_and_run(run: Run, place: Path) -> None:
    for name in ("runs", "tail", "children", "detail"):
        arguments = [name] if name == "runs" else [name, "ana"]
        for kind, columns in (("80", 80), ("piped", None)):
            golden(f"ana-{name}.{kind}.txt", steady(run(*arguments, columns=columns).output), place)
        grown(f"ana-{name}.json.txt", steady(run(*arguments, "--json").output), place)
    grown("create.json.txt", run("create", "--id", "new", "--json").output, place)
    grown("chat.json.txt", run("chat", "--session", "ana", "--json", "echo hello").output, place)
    golden("chat.80.txt", run("chat", "--session", "ana", "printf '\\033[2Jhello'; exit 3", columns=80).output, place)
    grown("export.json.txt", steady(run("export", "-", "ana").output), place)
    golden("rm.piped.txt", run("rm", "ana").output, place)
    grown("rm.json.txt", run("rm", "new", "--json").output, place)


def steady(text: str) -> str:
    """Leave out what differs from machine to machine."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}(?=\s)", "<short>", text)
    # An empty folder takes what its file system gives it.
    return re.sub(r"\b4\.0 KiB", "<size>", re.sub(r"\b4096\b", "0", text))


def grown(name: str, text: str, place: Path) -> None:
    """Compare JSON, a value a line: what is pinned is there as it was, and fields may have been added since."""
    if os.environ.get("GOLDEN") == "write":
        golden(name, text, place)
    now = [json.loads(line) for line in masked(text, place).splitlines()]
    then = [json.loads(line) for line in (GOLDEN / name).read_text().splitlines()]
    assert known(now, then) == then


def known(now: object, then: object) -> object:
    """Return of a value what another one of before has too."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {key: known(value, then[key]) for key, value in now.items() if key in then}
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [known(one, was) for one, was in zip(now, then, strict=True)]
    return now


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("no-command", ["lsit"], 2),
        ("no-option", ["list", "--usr", "ana"], 2),
        ("no-session", ["detail", "nobody"], 5),
        ("no-server", ["list", "--url", "http://127.0.0.1:1"], 1),
        ("taken", ["create", "--id", "ana"], 3),
        ("hostile", ["detail", "\x1b[2J"], 2),
    ],
)
def test_refusals(run: Run, place: Path, name: str, arguments: list[str], code: int) -> None:
    run("create", "--id", "ana")
    golden(f"error-{name}.txt", run(*arguments, exit_code=code).output, place)
