"""A message runs a program in its session, and leaves an answer, a turn, files and a journal."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

import alcove.hub
from alcove import limits
from alcove.errors import InvalidError, TooLargeError
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.settings.loading import load
from alcove.testing.rows import execute
from runs.world import output

CANARY = "a-value-of-the-server"


@pytest.mark.parametrize(
    ("script", "answer", "code"),
    [
        ("echo hello", "hello", 0),
        ("echo out; echo err >&2; exit 3", "out\nerr", 3),
        ("exit 255", "", 255),
        ("kill -TERM $$", "", 143),
        ("cat", "", 0),
        ("echo 'ü 中 🦊' > ☃; cat ☃", "ü 中 🦊", 0),
        ("printf '\\033[31mred\\033[0m\\n'", "red", 0),
    ],
)
async def test_any_exit_code_is_an_answer(session: Handle, script: str, answer: str, code: int) -> None:
    reply = await session.chat(script)
    assert (reply.text, reply.run.exit_code, reply.run.status) == (answer, code, "finished")


async def test_exit_code_127_is_explained(session: Handle) -> None:
    reply = await session.chat("Please summarise this")
    assert reply.run.exit_code == 127
    assert "Please: command not found" in reply.text
    assert "bash script" in reply.text


async def test_a_message_that_begins_with_a_dash_is_no_flag(session: Handle) -> None:
    reply = await session.chat("--version")
    assert reply.run.exit_code == 127
    assert "GNU bash" not in reply.text


async def test_a_message_of_one_line_quit_is_a_command_that_is_not_there(session: Handle) -> None:
    assert (await session.chat("/quit")).run.exit_code == 127


async def test_a_program_works_in_its_workspace_with_its_own_home_and_temp(
    hub: Alcove, session: Handle, folder: Path
) -> None:
    script = 'pwd; cd; pwd; echo "$TMPDIR"; test -w "$TMPDIR" && echo x > "$TMPDIR/x" && echo writable'
    here, home, temp, last = (await session.chat(script)).text.splitlines()
    assert Path(here) == folder / session.id
    assert Path(home) == folder.parent / ".alcove" / "homes" / session.id
    assert last == "writable"
    assert not Path(temp).parent.exists()


async def test_a_long_path_of_the_installation_leaves_room_for_the_socket(
    folder: Path,
) -> None:
    deep = folder.parent / ("d" * 60) / ("e" * 60)
    async with alcove.hub.open(settings=load(overrides={"home": str(deep), "session_ttl": "never"})) as hub:
        reply = await (await hub.sessions.create()).chat('echo "$TMPDIR"; echo x > "$TMPDIR/x"')
    assert reply.run.exit_code == 0
    assert len(reply.text) < 107
    assert not Path(reply.text).exists()


async def test_home_persists_between_turns_and_the_environment_is_the_session_s(
    session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await session.chat('echo kept > ~/kept; echo "$TRACE_ID $SESSION_ID $ALCOVE_SESSION_ID $ALCOVE_RUN_ID"')
    second = await session.chat('cat ~/kept; echo "$TRACE_ID $SESSION_ID $ALCOVE_SESSION_ID $ALCOVE_RUN_ID"')
    assert first.text.split() == [session.id] * 3 + [first.run.id]
    assert second.text.split() == ["kept"] + [session.id] * 3 + [second.run.id]


async def test_nothing_of_the_server_s_environment_reaches_a_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_CANARY", CANARY)
    monkeypatch.setenv("ALCOVE_LOG", "json")
    async with alcove.hub.open(workspaces=folder) as hub:
        reply = await (await hub.sessions.create()).chat("env; cat /proc/$PPID/environ /proc/1/environ; true")
    names = {line.partition("=")[0] for line in reply.text.splitlines()}
    assert CANARY not in reply.text
    # The negative control: a program that is simply started has it.
    assert CANARY in subprocess.run(["env"], capture_output=True, text=True).stdout
    assert names >= {"HOME", "TMPDIR", "PATH", "TRACE_ID", "SESSION_ID"}
    assert not names & {"SECRET_CANARY", "ALCOVE_LOG"}


async def test_files_and_sizes_are_recorded(hub: Alcove, session: Handle) -> None:
    assert hub.workspaces
    await hub.workspaces.write(session.id, "old", b"old")
    await hub.workspaces.write(session.id, "gone", b"gone")
    events = [event async for event in session.stream("echo new > new; echo more >> old; rm gone; mkdir d; echo > d/f")]
    [files] = [event for event in events if event.type == "files"]
    assert files.data == {"changed": ["d/f", "gone", "new", "old"]}
    assert (await hub.workspaces.usage(session.id)).files == 3
    assert await hub.workspaces.usage(session.id) == await hub.workspaces.measure(session.id)


async def test_a_turn_has_its_messages_in_order(hub: Alcove, session: Handle) -> None:
    for number in range(3):
        await session.chat(f"echo {number}")
    messages = await session.last(10)
    assert [(one.seq, one.turn, one.role, one.text) for one in messages] == [
        (1, 1, "user", "echo 0"),
        (2, 1, "assistant", "0"),
        (3, 2, "user", "echo 1"),
        (4, 2, "assistant", "1"),
        (5, 3, "user", "echo 2"),
        (6, 3, "assistant", "2"),
    ]
    turns = await hub.messages.turns(session.id)
    runs = (await hub.runs.list(session.id)).runs
    assert [(turn.number, turn.status, turn.run_id) for turn in turns] == [
        (3, "done", runs[0].id),
        (2, "done", runs[1].id),
        (1, "done", runs[2].id),
    ]
    now = await session.refresh()
    assert (now.message_count, now.turn_count, now.lease_run) == (6, 3, "")
    assert [(run.turn, run.answer_seq, run.ended) for run in runs] == [(3, 6, True), (2, 4, True), (1, 2, True)]


async def test_a_silent_program_leaves_a_message_that_says_so(hub: Alcove, session: Handle) -> None:
    reply = await session.chat("true")
    assert reply.text == ""
    [_, answer] = await session.last(2)
    assert answer.text == "(no output)"
    assert answer.detail.metadata == {"run_id": reply.run.id, "exit_code": 0, "silent": True}


async def test_a_script_of_the_largest_size_runs(session: Handle) -> None:
    script = "#" * (limits.CHAT_BYTES - 9) + "\necho end"
    assert (await session.chat(script)).text == "end"


async def test_output_is_bounded_as_a_message(hub: Alcove, session: Handle) -> None:
    reply = await session.chat("echo first; yes ü | head -c 3000000; echo; echo last")
    assert reply.run.exit_code == 0
    assert reply.text.startswith("first\n")
    assert reply.text.endswith("last")
    [_, answer] = await session.last(2)
    assert len(answer.text.encode()) < limits.MESSAGE_BYTES
    assert (await output(hub, reply.run.id)).count("ü") == 1_000_000


@pytest.mark.parametrize(
    ("message", "kind", "word"),
    [
        ("", InvalidError, "empty"),
        (" \n\t ", InvalidError, "empty"),
        ("echo \x00", InvalidError, "NUL"),
        ("echo \ud800", InvalidError, "surrogate"),
        ("x" * (limits.CHAT_BYTES + 1), TooLargeError, "bytes"),
        ("ü" * (limits.CHAT_BYTES // 2 + 1), TooLargeError, "bytes"),
    ],
)
async def test_a_bad_message_is_refused_and_leaves_nothing(
    hub: Alcove, session: Handle, folder: Path, message: str, kind: type[InvalidError], word: str
) -> None:
    with pytest.raises(kind, match=word) as caught:
        await session.chat(message)
    assert caught.value.remedy
    assert caught.value.field in {"message", "content"}
    assert (await hub.runs.list()).runs == []
    assert (await session.refresh()).message_count == 0


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), limits.RUN_TIMEOUT_S_MAX + 1])
async def test_a_time_out_has_bounds(hub: Alcove, session: Handle, timeout_s: float) -> None:
    with pytest.raises(InvalidError, match="timeout_s"):
        await session.runs.start(session.id, "true", timeout_s=timeout_s)


async def test_what_a_run_may_touch_is_frozen_with_its_digest(hub: Alcove, session: Handle, folder: Path) -> None:
    run = (await session.chat("true")).run
    [[body]] = await execute(hub.database, "SELECT body FROM grants WHERE run_id = ?", run.id)
    assert run.digest == hashlib.sha256(body.encode()).hexdigest()
    grant = (await hub.runs.grant(run.id)).grant
    assert (grant.network, grant.own[0]) == ("none", str(folder / session.id))
    assert run.rung in {"userns", "bwrap", "landlock"}
    assert json.loads(run.guarantees_json)["file_read"] is True


async def test_what_a_run_opened_of_its_folders_is_closed_when_it_ends(session: Handle, folder: Path) -> None:
    await session.chat("chmod -R 777 . ~; mkdir -m 777 below; echo kept > below/file; true")
    assert (folder / session.id).stat().st_mode & 0o007 == 0
    assert (folder.parent / ".alcove" / "homes" / session.id).stat().st_mode & 0o007 == 0
    assert (folder / session.id / "below" / "file").read_text() == "kept\n"
