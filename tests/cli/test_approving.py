"""`alcove runs waiting`, `approve` and `deny`: here and on a server; and a program that asks by its socket."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import alcove
from cli.conftest import Run, either, loaded

ASKING = r"""
import http.client, json, os, socket
class Here(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX); self.sock.connect(os.environ["ALCOVE_SOCKET"])
def call(method, path, body=None):
    wire = Here("run"); token = os.environ["ALCOVE_RUN_TOKEN"]
    head = {"authorization": "Bearer " + token, "content-type": "application/json"}
    wire.request(method, "/api/v1/runs/" + os.environ["ALCOVE_RUN_ID"] + "/" + path, body and json.dumps(body), head)
    return json.load(wire.getresponse())
asked = call("POST", "approvals", {"type": "tool", "id": "rm", "arguments": {"path": "/data"}, "message": "may I?"})
refused = call("POST", "approve", {"approval_id": asked["approval_id"]})
print("itself", refused["status"], flush=True)
while asked["status"] == "waiting":
    asked = call("GET", "approvals/" + asked["approval_id"] + "?wait_s=60")
print("answer", asked["status"], asked["reason"])
"""


def asking(session: str = "") -> tuple[str, str]:
    """Have a hosted run ask one thing; return the ids of the run and of the request."""

    async def ask() -> tuple[str, str]:
        async with alcove.open() as hub:
            run = (await hub.runs.register("runner", session_id=session)).run.id
            message = "may \x1b[31mI?"
            one = await hub.runs.ask(run, "tool", "rm", "call", {"path": "/data"}, message=message)
            return run, one.id

    return asyncio.run(ask())


@either
class TestApproving:
    def test_what_waits_is_listed_and_answered(self, run: Run) -> None:
        run("create", "--id", "a")
        first, yes = asking("a")
        second, no = asking()
        rows = [line.split("\t") for line in run("runs", "waiting").stdout.splitlines()]
        assert [row[:4] for row in rows] == [
            [no, second, "-", 'tool rm call {"path":"/data"}'],
            [yes, first, "a", 'tool rm call {"path":"/data"}'],
        ]
        assert rows[0][5] == "may \\x1b[31mI?", "it steers no terminal"
        assert [one["approval_id"] for one in loaded(run("runs", "waiting", "a", "--json"))["approvals"]] == [yes]
        assert "REQUEST" in run("runs", "waiting", columns=80).stdout.splitlines()[0]
        assert run("runs", "approve", yes, "--reason", "fine").stdout == f"{yes}\n"
        denied = loaded(run("runs", "deny", second, "--json"))
        assert (denied["approval_id"], denied["status"], denied["arguments"]) == (no, "denied", {"path": "/data"})
        assert run("runs", "waiting").stdout == ""
        assert run("runs", "approve", yes).stdout == f"{yes}\n", "twice is the first answer"
        assert "denied already" in run("runs", "approve", no, exit_code=3).stderr

    def test_which_request_is_meant_has_to_be_clear(self, run: Run) -> None:
        run("create", "--id", "a")
        asking()
        asking()
        assert "fits several requests" in run("runs", "approve", "0", exit_code=2).stderr
        assert "no request" in run("runs", "approve", "nothing", exit_code=5).stderr
        assert len(run("runs", "waiting").stdout.splitlines()) == 2

    def test_a_person_sees_what_it_is_first(self, run: Run, somebody: None) -> None:
        run("create", "--id", "a")
        _, one = asking()
        refused = run("runs", "approve", one, stdin="n\n", exit_code=130)
        for said in ("tool", "rm", "call", '{"path":"/data"}', "may \\x1b[31mI?"):
            assert said in refused.stderr
        assert len(run("runs", "waiting").stdout.splitlines()) == 1
        assert run("runs", "approve", one, stdin="y\n").stdout == f"{one}\n"

    def test_without_a_word_runs_are_listed(self, run: Run) -> None:
        run("create", "--id", "a")
        asked, _ = asking("a")
        assert run("runs").stdout == run("runs", "ls").stdout
        assert run("runs", "a").stdout.split("\t")[:4] == [asked, "a", "runner", "waiting"]
        assert "approve" in run("runs", "--help").stdout


@pytest.mark.parametrize(("word", "said"), [("approve", "answer approved ok"), ("deny", "answer denied ok")])
def test_a_program_asks_by_its_socket_and_a_person_answers(
    server: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    monkeypatch.setenv("ALCOVE_URL", server)
    run("create", "--id", "a")
    command = [sys.executable, "-m", "alcove", "chat", "--session", "a", f"python3 -c '{ASKING}'"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place) as chat:
        one = _waiting(run)
        assert (one["type"], one["arguments"], one["session_id"]) == ("tool", {"path": "/data"}, "a")
        run("runs", word, one["approval_id"], "--reason", "ok")
        out, err = chat.communicate(timeout=30)
    assert out.splitlines() == ["itself 404", said]
    assert 'asks: tool rm {"path": "/data"}: may I?' in err


def _waiting(run: Run) -> dict[str, Any]:
    """Return the one request that waits, once there is one."""
    end = time.monotonic() + 20
    while not (found := loaded(run("runs", "waiting", "--json"))["approvals"]):
        assert time.monotonic() < end, "nothing was asked"
    return found[0]


@pytest.mark.parametrize(
    ("key", "said"), [(b"y", b"answer approved"), (b"n", b"answer denied"), (b"", b"answer denied")]
)
def test_a_chat_on_a_terminal_asks(
    server: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, key: bytes, said: bytes
) -> None:
    monkeypatch.setenv("ALCOVE_URL", server)
    run("create", "--id", "a")
    with Talk(place) as talk:
        talk.until(b'asks: tool rm {"path": "/data"}: may I?')
        talk.until(b"? [y/N]: ")
        talk.enter(key)
        talk.until(said)
    assert run("runs", "waiting").stdout == ""


def test_an_answer_from_elsewhere_ends_the_question_of_a_chat(
    server: str, run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALCOVE_URL", server)
    run("create", "--id", "a")
    with Talk(place) as talk:
        talk.until(b"? [y/N]: ")
        run("runs", "deny", _waiting(run)["approval_id"], "--reason", "no")
        talk.until(b"answer denied no")


class Talk:
    """A chat on a terminal of its own, with a program that asks."""

    def __init__(self, place: Path) -> None:
        self._above, below = pty.openpty()
        self._heard = b""
        command = [sys.executable, "-m", "alcove", "chat", "--session", "a", f"python3 -c '{ASKING}'"]
        env = {**os.environ, "TERM": "dumb"}
        self._chat = subprocess.Popen(command, stdin=below, stdout=below, stderr=below, cwd=place, env=env)
        os.close(below)

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._chat.wait(30) == 0
        os.close(self._above)

    def until(self, text: bytes) -> None:
        while text not in self._heard:
            self._heard += os.read(self._above, 65536)
        self._heard = self._heard.partition(text)[2]

    def enter(self, line: bytes) -> None:
        os.write(self._above, line + b"\n")
