"""What a run may take: by its agent's table or the installation's, and what is told of one that took more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import alcove.hub
from alcove.agents.catalog import Catalog
from alcove.errors import ConfigurationError, StorageError
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.sandbox.limits import NAMES, Limits
from alcove.settings.loading import load

HOG = 'awk \'BEGIN { s = "x"; while (length(s) < 200000000) s = s s; print length(s); system("sleep 60") }\''
FILL = "head -c 30000000 /dev/zero > big; sleep 60"


@pytest.fixture
async def small(folder: Path) -> Any:
    """An installation whose runs may take little, and whose agent `roomy` may take more memory."""
    file = folder.parent / "alcove.toml"
    table = '\n[agents.roomy]\ncommand = ["/bin/bash", "-s"]\nlimits = { memory = "2GiB" }\n'
    limits = '\n[sandbox.limits]\nmemory = "64MiB"\ndisk = "8MiB"\nfiles = 50\noutput = 100_000\n'
    file.write_text(file.read_text() + table + limits)
    async with alcove.hub.open(workspaces=folder) as hub:
        yield hub


async def test_a_run_past_its_memory_fails_by_name_with_value_and_remedy(small: Alcove) -> None:
    session = await small.sessions.create()
    reply = await session.chat(f"echo before; {HOG}")
    assert reply.run.status == "failed"
    assert "limit memory" in reply.run.error
    assert "64MiB" in reply.run.error
    assert "raise memory in [agents.shell.limits]" in reply.run.error
    assert reply.text.startswith("before"), "what was said so far is kept"
    assert "[failed: limit memory" in reply.text
    [finished] = [event async for event in small.runs.events(reply.run.id) if event.type == "run.finished"]
    assert (finished.data["status"], finished.data["limit"]) == ("failed", "memory")
    assert (await session.chat("echo on")).text == "on", "the session goes on"


async def test_an_agents_own_limit_goes_before_the_installations(small: Alcove) -> None:
    session = await small.sessions.create()
    reply = await session.chat(HOG.replace("sleep 60", "true"), agent="roomy")
    assert reply.run.status == "finished"
    assert reply.text.strip() == "268435456"


async def test_a_run_that_fills_the_disk_fails_while_another_session_works_on(small: Alcove) -> None:
    filler, other = await small.sessions.create(), await small.sessions.create()
    filling = asyncio.create_task(filler.chat(FILL))
    assert (await other.chat("echo works > file; cat file")).text == "works"
    reply = await filling
    assert reply.run.status == "failed"
    assert "limit disk" in reply.run.error
    assert "8MiB" in reply.run.error
    assert "delete files of the session" in reply.run.error
    assert (await other.chat("cat file")).text == "works"
    assert (await (await small.sessions.create()).chat("echo new")).text == "new"


async def test_files_from_outside_meet_the_same_limit_and_say_so(small: Alcove) -> None:
    assert small.workspaces
    session = await small.sessions.create()
    await small.workspaces.write(session.id, "a", bytes(6_000_000))
    with pytest.raises(StorageError, match="may have 8388608 bytes") as refused:
        await small.workspaces.write(session.id, "b", bytes(6_000_000))
    assert (refused.value.field, refused.value.limit) == ("quota", 8 << 20)
    assert "delete files" in refused.value.remedy
    await small.workspaces.delete(session.id, "a")
    await small.workspaces.write(session.id, "b", bytes(6_000_000))


async def test_a_full_session_may_tidy_up_by_a_run(small: Alcove) -> None:
    session = await small.sessions.create()
    assert "limit disk" in (await session.chat(FILL)).run.error
    reply = await session.chat("sleep 0.5; rm big; echo done")
    assert (reply.run.status, reply.text) == ("finished", "done")
    assert (await session.chat("sleep 0.5; echo again")).text == "again"


async def test_output_without_end_ends_the_run_in_bounded_memory(small: Alcove) -> None:
    reply = await (await small.sessions.create()).chat("yes flood")
    assert reply.run.status == "failed"
    assert "limit output" in reply.run.error
    assert len(reply.text) < 400_000


async def test_a_cancelled_run_is_cancelled_whatever_it_took(hub: Alcove, session: Handle) -> None:
    run = await hub.runs.start(session.id, "sleep 60")
    await hub.runs.cancel(run.id)
    assert (await hub.runs.reply(run.id)).run.status == "cancelled"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({"memry": 1}, "there is no limit 'memry'"),
        ({"memory": "much"}, "'much' is no limit"),
        ({"memory": "1KiB"}, "cannot be the limit"),
        ({"memory": "9999999TiB"}, "cannot be the limit"),
        ({"processes": "10MiB"}, "'10MiB' is no limit"),
        ({"processes": 0}, "cannot be the limit"),
        ({"processes": -1}, "cannot be the limit"),
        ({"cpu": "never"}, "cannot be the limit"),
        ({"cpu": "ten"}, "not a duration"),
        ({"wall": "10m"}, "there is no limit 'wall'"),
    ],
)
def test_a_limit_that_cannot_be_names_its_key_and_a_remedy(written: dict[str, str | int], words: str) -> None:
    [name] = written
    with pytest.raises(ConfigurationError, match=words) as refused:
        Limits().changed(written, where="sandbox.limits")
    assert refused.value.field == f"sandbox.limits.{name}"
    assert refused.value.remedy
    with pytest.raises(ConfigurationError) as refused:
        Catalog({"one": {"command": "true", "limits": written}})
    assert refused.value.field == f"agents.one.limits.{name}"


async def test_an_installation_with_a_bad_limit_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "alcove.toml").write_text("[sandbox.limits]\nmemry = 1")
    with pytest.raises(ConfigurationError, match=r"sandbox\.limits: there is no limit 'memry'"):
        async with alcove.hub.open(settings=load(tmp_path, {})):
            pass


def test_limits_read_as_they_are_written() -> None:
    written: dict[str, str | int] = {
        "memory": "512MiB",
        "processes": 64,
        "cpu": "10m",
        "file_size": "1GiB",
        "open_files": 256,
        "output": "64KiB",
        "disk": "3GiB",
        "files": 1000,
    }
    limits = Limits().changed(written, where="sandbox.limits")
    assert limits.written() == written
    assert set(written) == set(NAMES)
    assert (limits.memory_bytes, limits.cpu_s, limits.disk_bytes) == (512 << 20, 600, 3 << 30)
    assert Limits().changed({"memory": "33554432", "cpu": 90}, where="x").written()["memory"] == "32MiB"
