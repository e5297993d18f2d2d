"""Secrets reach the runs that they are for, and nothing that is kept or shown of these."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import alcove.hub
from alcove.errors import AgentUnavailableError, ConfigurationError
from alcove.hub import Alcove
from runs.world import Other, output, rows_with, said

VALUE, FILED = "sk-env-0123456789", "sk-file-9876543210"
MARK, FILED_MARK = "[secret API_KEY]", "[secret FILED]"

TABLES = """
[secrets]
API_KEY = {{ env = "SERVER_SIDE" }}
FILED = {{ file = "keys/filed" }}
GONE = {{ env = "NOT_SET_ANYWHERE" }}

[agents.given]
command = ["bash"]
answer = "both"
secrets = ["API_KEY", "FILED"]
check = ["bash", "-c", "env | grep -c sk-; exit 1"]

[agents.plain]
command = ["bash"]
check = ["bash", "-c", "env | grep -c sk-; exit 1"]

[agents.lacking]
command = ["bash"]
secrets = ["GONE"]

[agents.reader]
command = ["bash"]
read = ["{keys}"]
"""


@pytest.fixture
def keys(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keys = folder.parent / "keys"
    keys.mkdir(0o700)
    (keys / "filed").write_text(FILED + "\n")
    (keys / "filed").chmod(0o600)
    monkeypatch.setenv("SERVER_SIDE", VALUE)
    (folder.parent / "alcove.toml").write_text(TABLES.format(keys=keys))
    return keys


@pytest.fixture
async def hub(folder: Path, keys: Path) -> AsyncIterator[Alcove]:
    async with alcove.hub.open(workspaces=folder) as hub:
        yield hub


async def _nowhere(hub: Alcove, *values: str) -> None:
    for value in values:
        assert await rows_with(hub, value) == {}


async def test_a_secret_is_in_nothing_that_a_run_asks(hub: Alcove) -> None:
    session = await hub.sessions.create()
    run = await hub.runs.start(session.id, "echo ready; sleep 100", agent="given")
    await said(hub, run.id, "ready")
    asked = await hub.runs.ask(run.id, "tool", f"curl {VALUE}", "", {"h": [VALUE], FILED: 1}, message=f"with {FILED}")
    assert (asked.name, asked.message) == (f"curl {MARK}", f"with {FILED_MARK}")
    assert asked.arguments == {"h": [MARK], FILED_MARK: 1}
    await hub.runs.cancel(run.id)
    for value in (VALUE, FILED):
        assert await rows_with(hub, value) == {}
    assert await rows_with(hub, MARK), "the control"


async def test_a_run_has_its_secrets_and_what_is_kept_of_it_has_not(hub: Alcove) -> None:
    session = await hub.sessions.create()
    script = (
        'echo "${#API_KEY} ${#FILED} ${SERVER_SIDE-none}"; echo "<$API_KEY>"; echo "<$FILED>" >&2; touch "$API_KEY"'
    )
    events = [event async for event in session.stream(script, agent="given")]
    [run] = (await hub.runs.list(session.id)).runs
    reply = await hub.runs.reply(run.id)
    # The program had the values: it knows how long they are.
    assert reply.text.splitlines()[0] == f"{len(VALUE)} {len(FILED)} none"
    assert sorted(reply.text.splitlines()[1:]) == sorted([f"<{MARK}>", f"<{FILED_MARK}>"])
    said_of_it = json.dumps([event.data for event in events])
    assert f"<{MARK}>" in said_of_it
    assert f"<{FILED_MARK}>" in said_of_it
    assert {"changed": [MARK]} in [event.data for event in events]
    for value in (VALUE, FILED):
        assert value not in said_of_it + reply.text
    await _nowhere(hub, VALUE, FILED)
    # What names them is frozen with the run; the values are nowhere.
    frozen = (await hub.runs.grant(run.id)).grant
    assert frozen.secrets == ("API_KEY", "FILED")
    # The negative control: the same in a run whose output is not known to hold a secret is found.
    await session.chat(f"echo {VALUE[:8]}''{VALUE[8:]}", agent="plain")
    assert "messages" in await rows_with(hub, VALUE)


async def test_a_value_that_comes_in_two_pieces_is_found(hub: Alcove) -> None:
    assert hub.workspaces
    session = await hub.sessions.create()
    script = 'printf "begin ${API_KEY:0:7}"; until [ -e go ]; do sleep 0.01; done; printf "${API_KEY:7} end"'
    run = await hub.runs.start(session.id, script, agent="given")
    await said(hub, run.id, "begin")
    # What may be the beginning of the value waits, and the rest does not.
    assert await output(hub, run.id) == "begin "
    (hub.workspaces.path(session.id) / "go").touch()
    assert (await hub.runs.reply(run.id)).text == f"begin {MARK} end"
    assert await output(hub, run.id) == f"begin {MARK} end"


async def test_a_value_in_pieces_that_the_answer_puts_together_is_found(hub: Alcove) -> None:
    session = await hub.sessions.create()
    reply = await session.chat('printf "${API_KEY:0:7}\033[0m${API_KEY:7}"', agent="given")
    assert reply.text == MARK
    await _nowhere(hub, VALUE)


async def test_what_waited_is_said_when_the_run_is_cancelled(hub: Alcove) -> None:
    session = await hub.sessions.create()
    run = await hub.runs.start(session.id, 'printf "begin ${API_KEY:0:7}"; exec sleep 1000', agent="given")
    await said(hub, run.id, "begin")
    await hub.runs.cancel(run.id)
    assert (await hub.runs.reply(run.id)).text == f"begin {VALUE[:7]}\n[cancelled]"
    assert await output(hub, run.id) == f"begin {VALUE[:7]}"


async def test_other_agents_and_every_check_are_given_nothing(hub: Alcove) -> None:
    session = await hub.sessions.create()
    assert "API_KEY" not in (await session.chat("env", agent="plain")).text
    for name in ("given", "plain"):
        info = await hub.workshop.check(hub.agents.get(name))
        assert info.reason == "bash: its check ended with code 1: 0"


async def test_a_missing_secret_refuses_the_run_before_anything_is_recorded(hub: Alcove, keys: Path) -> None:
    session = await hub.sessions.create()
    with pytest.raises(
        AgentUnavailableError, match="agent 'lacking' cannot run: secret GONE: its variable is not set"
    ) as caught:
        await session.chat("true", agent="lacking")
    assert "alcove config" in caught.value.remedy
    assert "NOT_SET_ANYWHERE" not in str(caught.value)
    (keys / "filed").chmod(0o644)
    with pytest.raises(AgentUnavailableError, match="secret FILED: its file is open to others"):
        await session.chat("true", agent="given")
    assert [(info.name, info.reason) for info in hub.agents.describe() if not info.available] == [
        ("given", "secret FILED: its file is open to others"),
        ("lacking", "secret GONE: its variable is not set in the server's environment"),
    ]
    assert (await hub.runs.list(session.id)).runs == []
    assert await session.last(1) == []


async def test_no_run_is_granted_a_file_that_holds_a_secret(hub: Alcove) -> None:
    session = await hub.sessions.create()
    with pytest.raises(ConfigurationError, match=r"granting .*/keys would show .*/keys/filed"):
        await session.chat("true", agent="reader")


async def test_what_an_error_says_of_a_run_has_no_value(hub: Alcove, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await hub.sessions.create()

    def broken(*_: object) -> str:
        raise ValueError(f"cannot read {VALUE}")

    monkeypatch.setattr("alcove.agents.command.CommandAgent.answer", broken)
    reply = await session.chat("true", agent="given")
    assert reply.run.error == f"ValueError: cannot read {MARK}"
    assert reply.text == f"[failed: ValueError: cannot read {MARK}]"
    await _nowhere(hub, VALUE)


@pytest.mark.parametrize("rung", ["userns", "bwrap", "landlock"])
async def test_a_run_finds_nothing_of_the_process_that_started_it(
    folder: Path, keys: Path, rung: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Environment, arguments, descriptors, database, configuration and the files of secrets of a real process."""
    monkeypatch.setenv("ALCOVE_SANDBOX", rung)
    if rung == "landlock" and os.geteuid():
        monkeypatch.setenv("ALCOVE_SANDBOX_MINIMUM", "file_read,file_write,processes,signals")
    home = folder.parent / ".alcove"
    async with Other(folder) as server, alcove.hub.open(workspaces=folder) as hub:
        victim = await hub.sessions.create(title="canary-of-the-database")
        session = await hub.sessions.create()
        script = _hunt(server.pid, home, folder)
        run = await server.call("start", session.id, script)
        reply = await hub.runs.reply(run["id"])
        found = subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout.split()
        assert victim.id not in reply.text
    assert (reply.run.exit_code, reply.run.rung) == (0, rung)
    assert reply.text == "hunted"
    # The negative control: whoever is not confined finds all of it.
    assert found == ["environment", "arguments", "descriptors", "database", "configuration", "file", "hunted"]


def _hunt(pid: int, home: Path, folder: Path) -> str:
    """Return a script that says what it finds of a process, wherever that is shown."""
    at = shlex.quote(str(folder.parent))
    return f"""
    exec 2> /dev/null
    grep -aqs SERVER_SIDE=sk-env /proc/{pid}/environ /proc/[0-9]*/environ && echo environment
    grep -aqs runs/othe[r].py /proc/{pid}/cmdline /proc/[0-9]*/cmdline && echo arguments
    ls -l /proc/{pid}/fd /proc/[0-9]*/fd | grep -q alcove[.]db && echo descriptors
    grep -aqs canary-of-the-databas[e] {home}/database/* && echo database
    grep -qs NOT_SET_ANYWHERE {at}/alcove.toml && echo configuration
    grep -qs sk-file {at}/keys/filed && echo file
    echo hunted
    """
