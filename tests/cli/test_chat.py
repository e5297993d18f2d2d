"""`alcove chat`: real programs, in the sandbox of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import alcove
from alcove import limits
from alcove.cli import output
from alcove.sandbox.service import Sandbox
from alcove.settings.loading import load
from cli.conftest import Run, either, loaded

ALCOVE = [sys.executable, "-m", "alcove"]


@either
def test_output_goes_where_the_program_wrote_it(run: Run) -> None:
    result = run("chat", "echo out; echo err >&2; exit 3")
    assert result.stdout == "out\n"
    session, err, code = result.stderr.splitlines()
    assert (session.split()[0], err, code) == ("session", "err", "exit code 3")


@either
def test_the_session_goes_on(run: Run) -> None:
    session = run("chat", "echo 1 >note").stderr.split()[1]
    assert run("chat", "--session", session[:18], "cat note").stdout == "1\n"
    shown = loaded(run("detail", session, "--json"))
    assert [message["content"] for message in shown["last_messages"]] == [
        "echo 1 >note",
        "(no output)",
        "cat note",
        "1",
    ]
    assert [one["exit_code"] for one in shown["last_runs"]] == [0, 0]
    assert shown["files"]["count"] == 1


@either
def test_a_user_goes_on_in_the_live_session_unless_a_new_one_is_asked_for(run: Run) -> None:
    first = run("chat", "--user", "ana", "true").stderr
    assert run("chat", "--user", "ana", "true").stderr == first
    assert run("chat", "--user", "ana", "--new", "true").stderr != first
    assert run("chat", "true").stderr != first


@either
def test_a_program_gets_the_reply_as_json(run: Run) -> None:
    result = run("chat", "--json", "echo out; exit 3")
    reply = loaded(result)
    assert (reply["response"], reply["status"], reply["exit_code"], reply["agent"]) == ("out", "finished", 3, "shell")
    assert {"session_id", "run_id", "error", "rung"} < reply.keys()
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [["-"], []])
def test_the_message_may_come_by_standard_input(run: Run, arguments: list[str]) -> None:
    assert run("chat", *arguments, stdin="echo 'héllo'\necho 2\n").stdout == "héllo\n2\n"


def test_a_message_that_begins_with_a_dash_comes_after_two(run: Run) -> None:
    assert "No such option" in run("chat", "-x", exit_code=2).stderr
    assert "exit code 127" in run("chat", "--", "-x").stderr


@either
def test_a_message_that_is_no_command_is_explained(run: Run) -> None:
    result = run("chat", "What is in this folder?")
    assert "docs/agents.md" in result.stderr.splitlines()[-1]


@either
@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (b"", "message"),
        (b" \n", "the message is empty"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"a\x00b", "NUL"),
        ("é".encode() * (limits.CHAT_BYTES // 2 + 1), "the message is"),
    ],
)
def test_what_is_no_message_is_refused(run: Run, stdin: bytes, said: str) -> None:
    assert said in run("chat", stdin=stdin, exit_code=2).stderr


@either
@pytest.mark.parametrize(
    ("options", "exit_code", "said"),
    [
        (["--session", "a", "--new"], 2, "leave out --new and --user"),
        (["--agent", "shel"], 5, "did you mean 'shell'?"),
        (["--timeout", "soon"], 2, "write a whole number and a unit"),
        (["--timeout", "never"], 2, "a run has to end some time"),
        (["--timeout", "2d"], 2, "timeout_s"),
        (["--session", "nobody"], 5, "there is no session 'nobody'"),
        (["--session", "../x"], 2, "is not a session id"),
    ],
)
def test_what_cannot_be_is_refused(run: Run, options: list[str], exit_code: int, said: str) -> None:
    run("create")
    assert said in run("chat", *options, "true", exit_code=exit_code).stderr
    assert len(run("list").stdout.splitlines()) == 1, "no session is left of a run that never was"


def test_a_session_that_must_be_there_starts_no_installation(run: Run, place: Path) -> None:
    run("chat", "--session", "a", "true", exit_code=5)
    assert list(place.iterdir()) == []


def test_an_agent_whose_program_is_missing_says_so(run: Run, place: Path) -> None:
    (place / "alcove.toml").write_text('[agents.gone]\ncommand = "no-such-program"\n')
    result = run("chat", "--agent", "gone", "hello", exit_code=1)
    assert "no-such-program is not on the server's PATH" in result.stderr
    assert "[agents.gone]" in result.stderr


@either
def test_a_run_that_times_out_is_an_error(run: Run) -> None:
    result = run("chat", "--timeout", "1s", "echo begun; sleep 60", exit_code=1)
    assert (result.stdout, result.stderr.splitlines()[-1]) == ("begun\n", "error: the run timed out")
    assert loaded(run("chat", "--timeout", "1s", "--json", "sleep 60", exit_code=1))["status"] == "timed_out"


def test_what_the_machine_cannot_guarantee_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def require(_: Sandbox, **__: object) -> None:
        raise alcove.GuaranteeError("the rung does not guarantee here that files cannot be read", remedy="use another")

    monkeypatch.setattr(Sandbox, "require", require)
    result = run("chat", "true", exit_code=1)
    assert result.stderr.splitlines() == [
        "error: the rung does not guarantee here that files cannot be read",
        "hint: use another",
    ]
    result = run("doctor", exit_code=1)
    assert "alcove\truns\tcannot start" in result.stdout
    assert "hint: use another" in result.stderr


def test_a_busy_session_is_a_conflict(place: Path, run: Run) -> None:
    run("create", "--id", "a")
    with _chat("--session", "a", "echo begun; sleep 60") as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "begun\n"
        result = run("chat", "--session", "a", "true", exit_code=3)
        assert "holds session a" in result.stderr
        held.send_signal(signal.SIGINT)
        held.wait(30)


def test_ctrl_c_cancels_the_run_and_waits_for_its_end(place: Path, run: Run) -> None:
    run("create", "--id", "a")
    with _chat("--session", "a", "echo begun; sleep 60") as chat:
        assert chat.stdout is not None
        assert chat.stderr is not None
        assert chat.stdout.readline() == "begun\n"
        chat.send_signal(signal.SIGINT)
        assert chat.wait(30) == 130
        said = chat.stderr.read()
    assert "cancelling" in said
    assert "Traceback" not in said
    shown = loaded(run("detail", "a", "--json"))
    assert (shown["last_runs"][0]["status"], shown["run_id"]) == ("cancelled", None)
    assert "begun" in shown["last_messages"][-1]["content"]


async def test_a_chat_beside_another_process_shares_its_installation(place: Path) -> None:
    """As beside `alcove serve`: the hub here is that other process; it sees the run and cancels it."""
    async with alcove.open(settings=load()) as hub:
        session = await hub.sessions.create()
        chat = await asyncio.create_subprocess_exec(
            *ALCOVE, "chat", "--session", session.id, "--json", "echo begun; sleep 60", stdout=subprocess.PIPE
        )
        assert chat.stdout is not None
        async with asyncio.timeout(30):
            while not (runs := (await hub.runs.list(session.id)).runs):
                await asyncio.sleep(0.02)
            with pytest.raises(alcove.SessionBusyError):
                await hub.runs.start(session.id, "true")
            assert [event.type async for event in _until_output(hub, runs[0].id)][-1] == "output"
            asked = await hub.runs.cancel(runs[0].id)
            assert not asked.ended
            reply = json.loads(await chat.stdout.read())
            assert await chat.wait() == 1
        assert (reply["status"], reply["run_id"]) == ("cancelled", runs[0].id)
        assert (await hub.runs.get(runs[0].id)).status == "cancelled"
        assert (await hub.runs.chat(session.id, "echo free")).text == "free"


async def _until_output(hub: alcove.Alcove, run_id: str) -> AsyncIterator[alcove.Event]:
    async for event in hub.runs.events(run_id):
        yield event
        if event.type == "output":
            return


def _chat(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ALCOVE, "chat", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@either
def test_a_pipe_gets_what_the_program_wrote_and_a_terminal_is_not_steered(run: Run) -> None:
    program = r"printf '\033[31mr\r\n\007\303\251\n'"
    assert run("chat", program).stdout_bytes == b"\x1b[31mr\r\n\x07\xc3\xa9\n"
    assert run("chat", program, columns=80).stdout == "r\né\n"
    assert run("chat", "--raw", program, columns=80).stdout_bytes == b"\x1b[31mr\r\n\x07\xc3\xa9\n"


@either
class TestConversation:
    @pytest.fixture(autouse=True)
    def somebody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(output, "can_ask", lambda: True)

    def test_each_line_is_a_run_in_the_same_session(self, run: Run) -> None:
        result = run("chat", stdin="echo 1 >note\n\ncat note; exit 3\n/quit\nnever said\n", columns=80)
        assert result.stdout.splitlines() == ["> ", "> ", "> 1", "> "] or "1\n" in result.stdout
        assert "changed: note" in result.stderr
        assert "exit code 3" in result.stderr
        session = result.stderr.split()[1].rstrip(";")
        assert f"`alcove chat --session {session}` goes on" in result.stderr
        assert loaded(run("detail", session, "--json"))["turn_count"] == 2

    def test_it_goes_on_with_what_was_said_before(self, run: Run) -> None:
        run("create", "--id", "a")
        run("chat", "--session", "a", "echo before")
        result = run("chat", "--session", "a", stdin="cat /nonexistent\n", columns=80)
        assert "> echo before\nbefore\n" in result.stdout
        assert "No such file" in result.output

    def test_an_error_ends_one_message_only(self, run: Run) -> None:
        run("create", "--id", "a")
        result = run("chat", "--session", "a", "--agent", "shel", stdin="one\ntwo\n", columns=80)
        assert result.stderr.count("there is no agent 'shel'") == 2


@pytest.mark.parametrize("where", ["here", "server"])
def test_a_conversation_shows_output_and_files_while_they_come(
    place: Path, run: Run, where: str, request: pytest.FixtureRequest
) -> None:
    url = {"ALCOVE_URL": request.getfixturevalue("server")} if where == "server" else {}
    above, below = pty.openpty()
    with subprocess.Popen(
        [*ALCOVE, "chat"], stdin=below, stdout=below, stderr=below, env={**os.environ, "TERM": "dumb", **url}
    ) as chat:
        os.close(below)
        said = b""

        def until(text: bytes) -> bytes:
            nonlocal said
            while text not in said:
                said += os.read(above, 65536)
            before, _, said = said.partition(text)
            return before

        until(b"> ")
        # Each step waits for the next word from us, in a file: what is seen is seen while the run goes on.
        os.write(
            above, b"echo be''gun; sleep 1; touch on''e; until test -e go; do sleep .1; done; rm on''e; echo en''d\n"
        )
        until(b"begun")
        until(b"changed: one")
        [session] = [one for one in (place / "sessions").iterdir() if not one.name.startswith(".")]
        (session / "go").touch()
        until(b"end")
        assert b"changed: one" not in until(b"> "), "it is told once"
        os.write(above, b"\x04")
        until(b"goes on")
        assert chat.wait(30) == 0
        os.close(above)


def test_ctrl_c_cancels_a_run_and_the_conversation_goes_on(place: Path, run: Run) -> None:
    above, below = pty.openpty()
    with subprocess.Popen(
        [*ALCOVE, "chat"], stdin=below, stdout=below, stderr=below, env={**os.environ, "TERM": "dumb"}
    ) as chat:
        os.close(below)
        said = b""

        def until(text: bytes) -> None:
            nonlocal said
            while text not in said:
                said += os.read(above, 65536)
            said = said.partition(text)[2]

        until(b"> ")
        os.write(above, b"echo be''gun; sleep 60\n")
        until(b"begun")
        chat.send_signal(signal.SIGINT)
        until(b"> ")
        os.write(above, b"echo go''ing on\n")
        until(b"going on")
        until(b"> ")
        os.write(above, b"\x04")
        until(b"goes on")
        assert chat.wait(30) == 0
        os.close(above)
    assert [one["status"] for one in loaded(run("runs", "--json"))["runs"]] == ["finished", "cancelled"]
