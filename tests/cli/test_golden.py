"""What people and programs get, word for word. `GOLDEN=write` in the environment writes the files anew."""

from __future__ import annotations

import json
import os
import re
import shlex
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


# What a person types, with names that a terminal would obey, and the exit codes.
TYPED = (
    ("create --id ana --title TITLE --metadata n=TITLE", 0),
    ("create --id kid --parent ana --title TITLE", 0),
    (r"""exec ana -- sh -c 'mkdir sub; touch "$(printf "file \033[31m\007\302\233")" sub/deep; ls sub'""", 0),
    ("list", 0),
    ("children ana --tree", 0),
    ("files ana", 0),
    ("files ana --long", 0),
    ("files ana --tree", 0),
    ("cat ana:NAME", 0),
    ("cat ana:missing-NAME", 5),
    ("cp ana:. out", 0),
    ("cp out/sub kid:", 0),
    ("cp NAME kid:", 5),
    ("detail ana", 0),
    ("tail ana", 0),
    ("dialog check bad.toml", 2),
    ("dialog draw good.toml", 0),
    ("dialog show ana", 5),
    ("export tree.alcove ana", 0),
    ("export tree.alcove ana", 3),
    ("import tree.alcove --dry-run", 0),
    ("import tree.alcove", 0),
    ("import NAME.alcove", 2),
    ("import session-dirs old", 1),
    ("import json-sessions old", 1),
    ("key create --label TITLE", 2),
    ("key create --label Ana", 0),
    ("key ls", 0),
    ("scratch dir --app skill --root . --trace-id one", 0),
    ("scratch ls --app skill --root .", 0),
    ("scratch sweep --app skill --root . --older-than 0s --dry-run", 0),
    ("rm --dry-run ana", 0),
    ("rm ana", 0),
    ("list --status trashed", 0),
    ("restore ana", 0),
    ("restore NAME", 2),
    ("runs kid", 0),
    ("search over", 0),
    ("create --id worn --title TITLE", 0),
    ("rm worn", 0),
    ("prune --all --dry-run", 0),
    ("prune --all --force", 0),
    ("cleanup-empty --older-than 1s --dry-run", 0),
    ("cleanup-old --older-than 1s --dry-run", 0),
    ("rm ana", 0),
    ("rm --purge --force ana", 0),
)
NAME = "file \x1b[31m\x07\x9b"
DIALOG = """
name = "photo"
version = 1
start = "waiting"
[events.sent]
[states.waiting.on]
sent = "there"
[states.there]
final = true
"""


@pytest.mark.parametrize("columns", [None, 80])
def test_no_name_does_harm_whatever_shows_it(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, frozen: Callable[[int], None], columns: int | None
) -> None:
    monkeypatch.setenv("ALCOVE_SANDBOX", "none")
    frozen(0)
    (place / "good.toml").write_text(DIALOG)
    (place / "bad.toml").write_text(DIALOG + '[states."\\u001b[2J"]\n')
    (place / "old" / NAME).mkdir(parents=True)
    (place / "old" / f"{NAME}.json").write_text("{}")
    told: list[str] = []
    for line, code in TYPED:
        words = [word.replace("TITLE", HOSTILE).replace("NAME", NAME) for word in shlex.split(line)]
        result = run(*words, columns=columns, exit_code=code)
        told.append(f"$ alcove {line}\n{result.output}")
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(told))  # our own colours
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    golden(f"typed.{columns or 'piped'}.txt", faceless(text), place)


def faceless(text: str) -> str:
    """Leave out ids, secrets, times and sizes that differ each time."""
    text = re.sub(r"alcove_[\w-]+", "<secret>", steady(text))
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?Z?", "<time>", text)
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f-]+…", "<id>", text)
    text = re.sub(r"\d+s ago", "<ago>", text)
    return re.sub(r"\b[\d.]+ [KM]iB|\b(8192|12288)\b", "<size>", text)


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
