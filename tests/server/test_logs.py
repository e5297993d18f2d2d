"""Log lines: one fact per line, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from alcove.agents.secrets import Secrets
from alcove.telemetry import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


EVIL = "a\n2026-01-01 ERROR forged\r\x1b[2J\x00\u2028\udcff b"


def _line(form: str, fail: bool = False) -> str:
    stream = io.StringIO()
    logs.configure("json" if form == "json" else "text", stream=stream)
    try:
        raise ValueError(EVIL) if fail else KeyError
    except (ValueError, KeyError):
        logging.getLogger("alcove.x").warning("it %s", "happened", exc_info=fail, extra={"title": EVIL, "n": 5})
    return stream.getvalue()


def test_text_is_one_line_per_fact() -> None:
    line = _line("text")
    assert line.count("\n") == 1
    assert "WARNING alcove.x it happened" in line
    assert 'title="a\\u000a2026-01-01 ERROR forged\\u000d\\u001b[2J' in line
    assert line.endswith("n=5\n")
    assert line.strip().isprintable()


def test_json_is_one_object_per_line() -> None:
    told = json.loads(_line("json"))
    assert {"at", "level", "logger", "message", "title", "n"} == told.keys()
    assert told["title"].startswith("a\n2026-01-01 ERROR forged\r\x1b[2J\x00\u2028")
    assert told["n"] == 5


def test_a_traceback_cannot_forge_a_line() -> None:
    text = _line("text", fail=True)
    assert all(line.startswith("    ") for line in text.splitlines()[1:])
    assert "ValueError" in json.loads(_line("json", fail=True))["trace"]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("hidden", [True, False])
def test_no_value_of_a_secret_is_logged(form: str, hidden: bool) -> None:
    value = 'sk-"canary"-0123456789'
    secrets = Secrets({}, folder=Path("/"), environ={"KEY": value})
    secrets.give(["KEY"])
    stream = io.StringIO()
    logs.configure("json" if form == "json" else "text", stream=stream)
    if hidden:
        logs.redact_by(secrets.redact)
    try:
        raise OSError(value)
    except OSError:
        logging.getLogger("alcove.x").warning("it is %s", value, exc_info=True, extra={"path": f"/{value}", "n": 5})
    # Without it, the negative control, the value is in all three places.
    assert stream.getvalue().count("canary") == (0 if hidden else 3)
    assert stream.getvalue().count("[secret KEY]") == (3 if hidden else 0)
