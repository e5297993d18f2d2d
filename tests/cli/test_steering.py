"""`alcove chat --busy`, `alcove runs steer`, `queue` and `cancel`; and a program that takes messages by its socket."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.conftest import Run, either, loaded
from cli.test_approving import ASKING

CALLING = ASKING.partition("asked = ")[0]
TAKING = f"""{CALLING}
import sys, time
print("ready", flush=True)
taken = []
while len(taken) < 2:
    taken += call("POST", "pull", {{"limit": 1}})["messages"]
    time.sleep(0.02)
print("took", [one["text"] for one in taken], [one["seq"] for one in taken])
"""


class Chat:
    """A chat in a process of its own."""

    def __init__(self, place: Path, *words: str) -> None:
        command = [sys.executable, "-m", "alcove", "chat", "--session", "a", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place)

    def ready(self) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def end(self, code: int = 0) -> tuple[str, str]:
        out, err = self._process.communicate(timeout=30)
        assert self._process.returncode == code, err
        return out, err


@pytest.fixture
def running(server: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """A chat of a server that goes on until there is a file `go`."""
    monkeypatch.setenv("ALCOVE_URL", server)
    run("create", "--id", "a")
    chat = Chat(place, "echo ready; until [ -e go ]; do sleep 0.02; done")
    chat.ready()
    return chat


def waiting(run: Run, number: int) -> list[dict[str, object]]:
    """Return what waits, once it is so much."""
    end = time.monotonic() + 20
    while len(found := loaded(run("runs", "queue", "a", "--json"))["queue"]) != number:
        assert time.monotonic() < end, found
    return found


def test_a_message_waits_is_listed_and_answered(run: Run, place: Path, running: Chat) -> None:
    assert "holds session a" in run("chat", "--session", "a", "echo no", exit_code=3).stderr
    second = Chat(place, "--busy", "queue", "echo second")
    [queued] = waiting(run, 1)
    assert (queued["position"], queued["message"], queued["interrupts"]) == (1, "echo second", False)
    row = run("runs", "queue", "a").stdout.split("\t")
    assert row[:3] == ["1", str(queued["run_id"]), "shell"]
    assert "NEXT" in run("runs", "queue", "a", columns=100).stdout
    third = Chat(place, "--busy", "queue", "echo third")
    [_, last] = waiting(run, 2)
    assert run("runs", "cancel", str(last["run_id"])).stdout == f"{last['run_id']}\n"
    assert "cancelled" in third.end(1)[1]
    (place / "sessions" / "a" / "go").touch()
    assert running.end()[0] == ""
    out, err = second.end()
    assert (out, "queued: 1 to go" in err) == ("second\n", True)


def test_a_message_interrupts(run: Run, place: Path, running: Chat) -> None:
    assert run("chat", "--session", "a", "--busy", "interrupt", "echo newer").stdout == "newer\n"
    _, err = running.end(1)
    assert "the run was interrupted" in err
    assert loaded(run("runs", "a", "--json"))["runs"][1]["status"] == "interrupted"


def test_a_run_is_cancelled_by_the_beginning_of_its_id(run: Run, place: Path, running: Chat) -> None:
    [goes_on] = loaded(run("runs", "a", "--json"))["runs"]
    cancelled = loaded(run("runs", "cancel", goes_on["run_id"][:20], "--json"))
    assert (cancelled["run_id"], cancelled["status"]) == (goes_on["run_id"], "cancelled")
    assert "the run was cancelled" in running.end(1)[1]
    assert "goes on" in run("runs", "cancel", "0", exit_code=5).stderr
    assert run("runs", "cancel", goes_on["run_id"]).stdout == f"{goes_on['run_id']}\n", "one that has ended stays"


def test_a_program_takes_messages_by_its_socket(
    server: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALCOVE_URL", server)
    run("create", "--id", "a")
    chat = Chat(place, f"python3 -c '{TAKING}'")
    chat.ready()
    steered = loaded(run("runs", "steer", "a", "left", "--json"))
    assert (steered["n"], steered["waiting"]) == (1, 1)
    also = Chat(place, "--busy", "steer", "right")
    out, err = chat.end()
    assert out == "took ['left', 'right'] [2, 3]\n"
    assert "takes: left" in err
    assert also.end()[0].endswith("took ['left', 'right'] [2, 3]\n")
    assert "go" in run("runs", "steer", "a", "late", exit_code=5).stderr


def test_what_a_run_has_not_taken_is_told(run: Run, place: Path, running: Chat) -> None:
    run("runs", "steer", "a", "un\x1b[31mread", "--agent", "shell")
    assert "nobody" in run("runs", "steer", "a", "x", "--agent", "nobody", exit_code=5).stderr
    (place / "sessions" / "a" / "go").touch()
    assert "not taken: un\\x1b[31mread" in running.end()[1], "and it steers no terminal"


@either
def test_nothing_waits_in_a_session_that_is_free(run: Run) -> None:
    run("create", "--id", "a")
    assert run("runs", "queue", "a").stdout == ""
    assert loaded(run("runs", "queue", "a", "--json")) == {"queue": []}
    assert "goes on" in run("runs", "steer", "a", "x", exit_code=5).stderr
    assert "interrupt" in run("chat", "--session", "a", "--busy", "wait", "x", exit_code=2).stderr
