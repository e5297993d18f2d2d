"""What `doctor` and `serve` tell, word for word where it is the same everywhere; the rest has a word for it.

`GOLDEN=write` in the environment writes the files anew, as for `test_golden.py`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from cli.conftest import GOLDEN, Run, golden, loaded, masked
from cli.test_golden import known


@pytest.fixture
def made(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation whose rung is the same on every machine."""
    monkeypatch.setenv("ALCOVE_SANDBOX", "none")
    (place / "alcove.toml").write_text(
        '[agents.wit]\ncommand = ["no-such-program"]\n[secrets.TOKEN]\nenv = "NO_SUCH_VARIABLE"\n'
    )
    run("create", "--id", "ana")


def examined(text: str) -> str:
    """Leave out what differs from machine to machine: versions, sizes, and how each rung fared."""
    text = re.sub(r"(?m)^((?:alcove|database)?\s*(?:version|python|system|schema)\s+).*$", r"\1<here>", text)
    text = re.sub(
        r"(?m)^((?:sandbox)?\s*(?:userns|bwrap|landlock|none)(?: remedy)?\s+)\S.*(?:\n {10,}.*)*$", r"\1<tried>", text
    )
    text = re.sub(r"(?m)^.*(?:userns|bwrap|landlock) remedy.*\n", "", text)
    text = re.sub(r"(?m)^((?:sandbox)?\s*(?:limit \w+\s+kept|end of a run\s+)) ?by .*$", r"\1 by <here>", text)
    text = re.sub(r"sqlite [\d.]+", "sqlite <version>", text)
    text = re.sub(r"[\d.]+ [KMGT]iB", "<size>", text)
    return re.sub(r"\S+/(?:ba)?sh\b", "<shell>", text)


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(("kind", "columns"), [("piped", None), ("100", 100)])
def test_doctor(run: Run, place: Path, kind: str, columns: int | None) -> None:
    told = re.sub(r"\x1b\[[0-9;]*m", "", run("doctor", columns=columns).stdout)
    golden(f"doctor.{kind}.txt", re.sub(r" +\n", "\n", examined(told)), place)


@pytest.mark.usefixtures("made")
def test_doctor_for_programs(run: Run, place: Path) -> None:
    found = json.loads(masked(json.dumps(loaded(run("doctor", "--json"))), place))
    if os.environ.get("GOLDEN") == "write":
        golden("doctor.json.txt", json.dumps(shaped(found), indent=1, sort_keys=True) + "\n", place)
    then = json.loads((GOLDEN / "doctor.json.txt").read_text())
    assert known(shaped(found), then) == then, "what is pinned is there as it was; fields may have been added since"


_HERE = {"version", "python", "system", "free_bytes", "home_free_bytes", "durability", "program", "cost_ms", "schema"}


def shaped(value: Any, name: str = "") -> Any:
    """Return JSON with a word for what differs from machine to machine, and of the rungs the first one's shape."""
    if name in _HERE:
        return f"<{type(value).__name__}>"
    if name == "limits":
        return dict.fromkeys(value, "<here>")
    if name == "rungs":
        return [{**dict.fromkeys(sorted(one), "<tried>"), "rung": one["rung"]} for one in value]
    if isinstance(value, dict):
        return {key: shaped(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [shaped(one) for one in value]
    return value


class Serving:
    """`alcove serve` in a process, from its first line to its end."""

    def __init__(self, place: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "alcove", "serve", "--port", "0", *arguments],
            cwd=place,
            env={**os.environ, "ALCOVE_TRUST_HOST_AGENTS": "true", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.first = self.process.stdout.readline()

    def end(self) -> tuple[str, str]:
        """Ask it to stop; return all that it said."""
        self.process.send_signal(signal.SIGTERM)
        rest, log = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, log
        return self.first + rest, log


@pytest.mark.usefixtures("made")
def test_serve(place: Path) -> None:
    serving = Serving(place)
    [port] = re.findall(r":(\d+)$", serving.first.strip())
    with urlopen(f"http://127.0.0.1:{port}/api/v1/isolation") as answer:  # waits until the sandbox is ready
        assert answer.status == 200
    said, log = serving.end()
    golden("serve.piped.txt", _steady(f"{said}-- stderr\n{log}"), place)


@pytest.mark.usefixtures("made")
def test_serve_for_programs(place: Path) -> None:
    serving = Serving(place, "--json")
    url = json.loads(serving.first)["url"]
    with urlopen(f"{url}/api/v1/isolation") as answer:
        assert answer.status == 200
    said, log = serving.end()
    lines = [json.loads(line) for line in said.splitlines()] + [json.loads(line) for line in log.splitlines()]
    assert lines[0]["pid"] == serving.process.pid
    golden("serve.json.txt", "".join(f"{json.dumps(_told(line))}\n" for line in lines), place)


def _told(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of JSON with a word for what differs each time."""
    words = {"url": "<url>", "pid": "<pid>"}
    for name, value in line.items():
        if isinstance(value, float) or name in {"time", "at", "ts", "timestamp", "port", "request_id", "trace_id"}:
            words[name] = f"<{name}>"
    return {**line, **{name: word for name, word in words.items() if name in line}}


def _steady(text: str) -> str:
    text = re.sub(r":\d{4,5}\b", ":<port>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|\+\d\d:\d\d)?", "<time>", text)
    text = re.sub(r"\b\d+(?:\.\d+)? ?ms\b", "<duration>", text)
    return re.sub(r"(duration_ms|took_ms|ms|request_id|pid)=\S+", r"\1=<it>", text)


def test_every_golden_file_is_compared_with_something() -> None:
    words = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    for file in GOLDEN.iterdir():
        assert file.name.split(".")[0].split("-")[0] in words, f"nothing makes {file.name}"
