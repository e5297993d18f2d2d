"""The ways to open an installation, what each makes, and how it closes."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

import alcove.hub
from alcove.errors import AgentNotFoundError, AlcoveError, ClosedError, ConfigurationError, DatabaseError
from alcove.hub import Alcove
from alcove.settings.loading import load
from alcove.testing.clock import FrozenClock
from runs.world import Other


async def test_in_memory_nothing_is_made(place: Path) -> None:
    async with alcove.hub.open("memory://") as hub:
        session = await hub.sessions.create(user_id="ana")
        await session.append_turn("a", "b")
        hub.agents.register("echo", lambda context: context.message)
        assert (await session.chat("hello", agent="echo")).text == "hello"
        with pytest.raises(ConfigurationError, match="no workspaces") as caught:
            await session.chat("echo hi")
        assert caught.value.remedy
        await session.delete(purge=True)
    assert os.listdir(place) == []


async def test_a_database_without_workspaces_makes_the_database_only(place: Path) -> None:
    async with alcove.hub.open("sqlite:///deep/own.db") as hub:
        session = await hub.sessions.create()
        assert hub.workspaces is None
    assert os.listdir(place) == ["deep"]
    assert {name.partition("-")[0] for name in os.listdir(place / "deep")} == {"own.db"}
    async with alcove.hub.open("sqlite:///deep/own.db") as hub:
        assert (await hub.sessions.get(session.id)).id == session.id


async def test_without_arguments_it_is_the_installation_of_this_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with alcove.hub.open() as hub:
        assert (hub.settings.base, hub.settings.home) == (place / "sessions", place / ".alcove")
        assert hub.settings.session_ttl_s == 86400
        session = await hub.sessions.create()
    assert (place / "sessions" / session.id).is_dir()
    assert (place / ".alcove" / "database" / "alcove.db").is_file()
    assert stat.S_IMODE((place / ".alcove").stat().st_mode) & 0o066 == 0
    assert stat.S_IMODE((place / ".alcove" / "database" / "alcove.db").stat().st_mode) == 0o600
    # A folder named beside it is another installation, in which sessions live for ever.
    monkeypatch.setenv("ALCOVE_HOME", str(place / "second"))
    async with alcove.hub.open(workspaces="elsewhere") as hub:
        assert hub.settings.session_ttl_s is None
        assert await hub.sessions.find(session.id) is None


async def test_settings_may_be_given(place: Path) -> None:
    settings = load(overrides={"base": "b", "home": "h", "database": "sqlite:///d/x.db", "session_ttl": "60s"})
    async with alcove.hub.open(settings=settings) as hub:
        session = await hub.sessions.create()
        assert (await session.chat("echo hi")).text == "hi"
    assert {"b", "h", "d"} == set(os.listdir(place))


async def test_a_ttl_and_a_clock_may_be_given() -> None:
    clock = FrozenClock()
    async with alcove.hub.open("memory://", ttl_s=60, clock=clock) as hub:
        session = await hub.sessions.create()
        clock.move(61)
        assert (await session.refresh()).status == "expired"


async def test_reopening_keeps_everything(folder: Path) -> None:
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create(user_id="ana", key="k", metadata={"a": 1})
        reply = await session.chat("echo kept | tee file; echo home > ~/file")
        events = [event async for event in hub.runs.events(reply.run.id)]
        installation, before = hub.installation, await session.refresh()
    async with alcove.hub.open(workspaces=folder) as hub:
        assert hub.installation == installation
        again = await hub.sessions.get(session.id)
        assert again.last_seq == before.last_seq == 2
        assert await hub.runs.get(reply.run.id) == reply.run
        assert [event async for event in hub.runs.events(reply.run.id)] == events
        assert (await again.chat("cat file ~/file")).text == "kept\nhome"


async def test_two_processes_share_an_installation(hub: Alcove, folder: Path) -> None:
    async with Other(folder) as other:
        theirs = await other.call("create")
        session = await hub.sessions.get(theirs)
        run = await other.call("start", theirs, "echo theirs > file")
        assert (await hub.runs.reply(run["id"])).run.status == "finished"
        assert (await session.chat("cat file")).text == "theirs"
        ours = await hub.sessions.create()
        runs = [(await other.call("start", ours.id, "echo theirs"))["id"]]
        runs.append((await hub.runs.start(theirs, "echo ours")).id)
        assert [(await hub.runs.reply(run_id)).text for run_id in runs] == ["theirs", "ours"]
        assert (await other.call("reply", runs[1]))["text"] == "ours"


async def test_two_hubs_in_one_process_share_an_installation(hub: Alcove, folder: Path) -> None:
    async with alcove.hub.open(workspaces=folder) as second:
        sessions = [await one.sessions.create() for one in (hub, second)]
        replies = await asyncio.gather(
            *(one.runs.chat(session.id, "echo hi") for one in (hub, second) for session in sessions),
            return_exceptions=True,
        )
        assert {getattr(reply, "text", "") or type(reply).__name__ for reply in replies} <= {"hi", "SessionBusyError"}
        assert "hi" in {getattr(reply, "text", "") for reply in replies}
        session = await second.sessions.get(sessions[0].id)
        assert (await session.chat("echo second")).text == "second"


async def test_everything_closes_also_when_the_body_fails(folder: Path) -> None:
    opening = alcove.hub.open(workspaces=folder)
    hub = await opening.__aenter__()
    session = await hub.sessions.create()
    run = await hub.runs.start(session.id, "sleep 1000")
    assert not await opening.__aexit__(ZeroDivisionError, ZeroDivisionError(), None)
    for late in (hub.sessions.create(), hub.runs.get(run.id), hub.messages.last(session.id)):
        with pytest.raises(ClosedError):
            await late
    async with alcove.hub.open(workspaces=folder) as hub:
        assert (await hub.runs.get(run.id)).status == "cancelled"


async def test_opening_and_closing_leaves_no_descriptor_task_or_process(folder: Path) -> None:
    async def once() -> None:
        async with alcove.hub.open(workspaces=folder) as hub:
            await (await hub.sessions.create()).chat("true")

    await once()
    before = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
    for _ in range(3):
        await once()
    assert (len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())) == before
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children]
    assert [name for name in names if b"alcove.sandbox" in name] == []


async def test_a_database_that_cannot_be_used_leaves_no_base(place: Path) -> None:
    (place / "not.db").write_bytes(b"this is no database, whatever it is called" * 100)
    with pytest.raises(DatabaseError):
        async with alcove.hub.open(f"sqlite:///{place}/not.db", workspaces="sessions"):
            raise AssertionError("it was opened")
    assert not (place / "sessions").exists()


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"home": "file/home"}, "cannot be made"),
        ({"base": "file"}, "not a folder"),
        ({"base": "missing/sessions", "home": "home"}, "does not exist"),
        ({"base": "link"}, "is a link"),
    ],
)
async def test_a_folder_that_cannot_be_used_is_named(place: Path, overrides: dict[str, str], word: str) -> None:
    (place / "file").write_text("")
    (place / "folder").mkdir()
    (place / "link").symlink_to("folder")
    with pytest.raises(ConfigurationError, match=word) as caught:
        async with alcove.hub.open(settings=load(overrides=overrides)):
            raise AssertionError("it was opened")
    assert caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_place_that_is_not_writable_is_named(place: Path) -> None:
    place.chmod(0o500)
    with pytest.raises(AlcoveError, match="cannot be made"):
        async with alcove.hub.open():
            raise AssertionError("it was opened")
    place.chmod(0o700)


async def test_a_session_may_name_its_agent_and_an_unknown_one_is_an_error(hub: Alcove) -> None:
    hub.agents.register("echo", lambda context: context.message)
    session = await hub.sessions.create(agent="echo")
    assert (await session.chat("hello")).text == "hello"
    assert (await session.chat("echo hi", agent="shell")).text == "hi"
    with pytest.raises(AgentNotFoundError):
        await (await hub.sessions.create(agent="nobody")).chat("hello")
