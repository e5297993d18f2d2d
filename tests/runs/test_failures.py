"""What cannot start leaves nothing; what breaks later ends its processes, and its turn stays out of windows."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import alcove.hub
from alcove import limits
from alcove.agents.base import AgentContext
from alcove.database.op import Database
from alcove.errors import (
    AgentNotFoundError,
    AgentUnavailableError,
    ConfigurationError,
    DatabaseBusyError,
    DatabaseError,
    DatabaseFullError,
    GuaranteeError,
    InvalidError,
    LaunchError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
)
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.runs import queries
from alcove.sandbox.service import Sandbox
from alcove.settings.loading import load
from alcove.testing.rows import idle
from runs.world import alive, output, said, waiting

Fault = Callable[..., Any]


async def _nothing(hub: Alcove, session: Handle) -> None:
    assert (await hub.runs.list()).runs == []
    now = await session.refresh()
    assert (now.message_count, now.turn_count, now.epoch, now.lease_run) == (0, 0, 0, "")
    assert not list((Path(hub.settings.home) / "runs").glob("*"))


async def test_an_unknown_agent_is_named(hub: Alcove, session: Handle) -> None:
    with pytest.raises(AgentNotFoundError, match="shel"):
        await session.chat("true", agent="shel")
    await _nothing(hub, session)


async def test_an_agent_whose_program_is_missing_leaves_nothing(folder: Path) -> None:
    (folder.parent / "alcove.toml").write_text('[agents.ghost]\ncommand = "no-such-program"\n')
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create(agent="ghost")
        with pytest.raises(AgentUnavailableError, match="no-such-program"):
            await session.chat("true")
        await _nothing(hub, session)


async def test_a_program_that_cannot_be_executed_fails_its_run(folder: Path) -> None:
    broken = folder.parent / "fakes" / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)
    (folder.parent / "alcove.toml").write_text(f'[agents.broken]\ncommand = "{broken}"\n')
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create()
        reply = await session.chat("true", agent="broken")
        assert (reply.run.status, reply.run.exit_code) == ("failed", None)
        assert "cannot be executed" in reply.run.error
        assert reply.text == f"[failed: {reply.run.error}]"
        assert (await session.window()).messages == []


async def test_a_grant_that_would_show_the_installation_leaves_nothing(folder: Path) -> None:
    (folder.parent / "alcove.toml").write_text(f'[agents.nosy]\ncommand = "cat"\nread = ["{folder.parent}"]\n')
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create()
        with pytest.raises(ConfigurationError, match="would show"):
            await session.chat("true", agent="nosy")
        await _nothing(hub, session)


async def test_a_machine_below_the_minimum_runs_nothing(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(sandbox: Sandbox, **_: object) -> None:
        raise GuaranteeError("this machine cannot", remedy="lower the minimum", missing="metadata")

    monkeypatch.setattr(Sandbox, "require", refuse)
    with pytest.raises(GuaranteeError):
        await session.chat("true")
    await _nothing(hub, session)
    # A function needs no confinement.
    hub.agents.register("hello", lambda context: "hello")
    assert (await session.chat("go", agent="hello")).text == "hello"


async def test_a_minimum_that_the_chosen_rung_lacks_is_enforced(folder: Path) -> None:
    settings = load(overrides={"base": str(folder), "sandbox.rung": "none", "sandbox.minimum": ["network"]})
    async with alcove.hub.open(settings=settings) as hub:
        session = await hub.sessions.create()
        with pytest.raises(GuaranteeError) as caught:
            await session.chat("true")
        assert caught.value.details["missing"] == "network"
        await _nothing(hub, session)


async def test_a_sandbox_that_cannot_be_opened_leaves_nothing_and_is_tried_again(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(**options: object) -> Sandbox:
        raise LaunchError("no spawner", step="spawner")

    with monkeypatch.context() as patch:
        patch.setattr(Sandbox, "open", broken)
        with pytest.raises(LaunchError):
            await session.chat("true")
    await _nothing(hub, session)
    assert (await session.chat("echo now")).text == "now"


async def test_a_session_that_is_not_there_runs_nothing(hub: Alcove, session: Handle) -> None:
    await session.delete()
    for session_id in ("nothing", "../x", session.id):
        with pytest.raises(SessionNotFoundError):
            await hub.runs.start(session_id, "true")
    assert (await hub.runs.list()).runs == []


async def test_an_expired_session_runs_nothing(hub: Alcove) -> None:
    session = await hub.sessions.create(ttl_s=60)
    await idle(hub.database, session.id, 100)
    with pytest.raises(SessionExpiredError):
        await session.chat("true")
    await _nothing(hub, session)


@pytest.mark.parametrize("language", ["x" * 65, "a\nb", "\ud800"])
async def test_a_language_that_is_none_is_refused(hub: Alcove, session: Handle, language: str) -> None:
    with pytest.raises(InvalidError, match="language"):
        await hub.runs.start(session.id, "hello", agent="q", language=language, idempotency_key="k")
    await _nothing(hub, session)


def _raises(context: AgentContext) -> str:
    context.emit("so far")
    raise ValueError("broken \x00 \ud800 " + "x" * 100_000)


async def test_a_function_that_raises_fails_its_run_and_not_the_server(
    hub: Alcove, session: Handle, caplog: pytest.LogCaptureFixture
) -> None:
    hub.agents.register("broken", _raises)
    reply = await session.chat("go", agent="broken")
    assert reply.run.status == "failed"
    assert reply.run.error.startswith("ValueError: broken \ufffd ? xxx")
    assert len(reply.run.error.encode()) <= limits.RUN_ERROR_BYTES
    assert "agent broke" in caplog.text
    assert await output(hub, reply.run.id) == "so far"
    # Visible in the history, not in the window.
    assert [turn.status for turn in await hub.messages.turns(session.id)] == ["failed"]
    assert [one.role for one in await session.last()] == ["user", "assistant"]
    assert (await session.window()).messages == []
    assert (await session.chat("echo on")).text == "on"


@pytest.mark.parametrize("answer", [None, 5, b"bytes", ["list"]])
async def test_a_function_that_answers_no_text_fails_its_run(hub: Alcove, session: Handle, answer: object) -> None:
    hub.agents.register("odd", lambda context: answer)  # pyright: ignore[reportArgumentType]
    reply = await session.chat("go", agent="odd")
    assert reply.run.status == "failed"
    assert "not text" in reply.run.error


async def test_a_function_reads_history_and_writes_files(hub: Alcove, session: Handle) -> None:
    assert hub.workspaces
    await session.append_turn("my name is Ana", "hello Ana")

    async def remembers(context: AgentContext) -> str:
        (Path(context.workspace) / "note").write_text("written")
        return " | ".join(f"{line.role}: {line.text}" for line in await context.history(5))

    hub.agents.register("remembers", remembers)
    reply = await session.chat("who am I?", agent="remembers")
    assert reply.text == "user: my name is Ana | assistant: hello Ana"
    events = [event async for event in hub.runs.events(reply.run.id)]
    assert [event.data for event in events if event.type == "files"] == [{"changed": ["note"]}]
    assert (await hub.workspaces.usage(session.id)).files == 1


def _failing(monkeypatch: pytest.MonkeyPatch, database: Database, operation: object, fault: Exception, times: int):
    """Let the database fail at an operation, so often."""
    write = database.write
    left = [times]

    async def failing(what: Fault, *arguments: Any, **more: Any) -> Any:
        if what is operation and left[0]:
            left[0] -= 1
            raise fault
        return await write(what, *arguments, **more)

    monkeypatch.setattr(database, "write", failing)


@pytest.mark.parametrize("script", ["%s", "yes & %s"], ids=["quiet", "loud"])
async def test_a_journal_that_cannot_be_written_ends_the_run(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    marker = f"marker-{session.id}"
    _failing(monkeypatch, hub.database, queries.journal, DatabaseFullError(), -1)
    async with asyncio.timeout(20):
        reply = await session.chat(script % waiting(marker).replace("\n", ";").strip(";"))
    assert reply.run.status == "failed"
    assert "disk of the database is full" in reply.run.error
    assert alive(marker) == []
    assert [event.n async for event in hub.runs.events(reply.run.id)] == list(range(1, 7))


async def test_a_program_whose_start_cannot_be_recorded_is_ended(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = f"marker-{session.id}"
    _failing(monkeypatch, hub.database, queries.launched, DatabaseBusyError(), 1)
    reply = await session.chat(waiting(marker))
    assert reply.run.status == "failed"
    assert alive(marker) == []
    assert [event.n async for event in hub.runs.events(reply.run.id)] == list(range(1, 6))


async def test_an_end_that_cannot_be_written_at_first_is_tried_again(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch, short_lease: None
) -> None:
    _failing(monkeypatch, hub.database, queries.finish, DatabaseFullError(), 2)
    assert (await session.chat("echo patience")).text == "patience"


@pytest.mark.long
async def test_an_end_that_cannot_be_written_at_all_is_the_caller_s_error(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch, short_lease: None, caplog: pytest.LogCaptureFixture
) -> None:
    marker = f"marker-{session.id}"
    with monkeypatch.context() as patch:
        _failing(patch, hub.database, queries.finish, DatabaseFullError(), -1)
        with pytest.raises(DatabaseError):
            await session.chat(f"exec -a {marker} sleep 0.1")
    assert alive(marker) == []
    assert "could not be written" in caplog.text
    # The session is free as soon as the lease is over.
    [run] = (await hub.runs.list(session.id)).runs
    assert not run.ended
    assert (await _chat_when_free(session, "echo free")).text == "free"
    assert (await hub.runs.get(run.id)).status == "lost"


async def test_a_workspace_that_cannot_be_compared_does_not_lose_the_answer(
    hub: Alcove, session: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(session_id: str) -> None:
        raise OSError(5, "Input/output error")

    assert hub.workspaces
    monkeypatch.setattr(hub.workspaces, "measure", broken)
    reply = await session.chat("echo answer")
    assert (reply.text, reply.run.status) == ("answer", "finished")


async def test_a_spawner_that_dies_ends_its_runs_and_is_started_again(hub: Alcove, session: Handle) -> None:
    marker = f"marker-{session.id}"
    run = await hub.runs.start(session.id, waiting(marker))
    await said(hub, run.id, "ready")
    pid = (await hub.workshop.sandbox())._spawner.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert (await hub.runs.reply(run.id)).run.ended
    assert alive(marker) == []
    assert (await session.chat("echo again")).text == "again"


async def _chat_when_free(session: Handle, message: str):
    while True:
        try:
            return await session.chat(message)
        except SessionBusyError:
            await asyncio.sleep(0.05)
