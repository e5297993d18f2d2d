"""Grants of runs that Alcove executes: what the kernel is told, and what ends with a grant."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import alcove
import alcove.hub
from alcove.agents.base import AgentContext
from alcove.audit.model import AuditFilters
from alcove.errors import GuaranteeError, NotPermittedError
from alcove.hub import Alcove
from alcove.lifecycle.service import Handle
from alcove.runs.checking import Denial
from alcove.runs.model import Run
from runs.world import Other, output, rows_with, until

LISTEN = (
    "import socket, sys; s = socket.socket(); s.settimeout(5); "
    "print('reached' if s.connect_ex(('127.0.0.1', int(sys.argv[1]))) == 0 else 'not reached')"
)


@pytest.fixture
async def hub(place: Path, folder: Path) -> AsyncIterator[Alcove]:
    """An installation whose agent `wide` may read and write beyond its session, and reach the network."""
    for name in ("data", "out"):
        (place / name).mkdir(mode=0o777)
        (place / name).chmod(0o777)
    (place / "data" / "secret").write_text("42\n")
    (place / "data" / "secret").chmod(0o644)
    read = sorted({sys.prefix, sys.base_prefix, str(place / "data")})
    with (place / "alcove.toml").open("a") as file:
        file.write(
            f'[agents.wide]\ncommand = ["/bin/bash", "-s"]\nread = {read}\nwrite = ["{place}/out"]\nnetwork = "host"\n'
            "[agents.wide.resources]\ntool = ['search']\n"
        )
    async with alcove.hub.open(workspaces=folder) as hub:
        yield hub


async def ran(hub: Alcove, session: Handle, script: str, **grant: object) -> tuple[Run, str]:
    asked = alcove.ask(**grant) if grant else None  # pyright: ignore[reportArgumentType]
    run = await hub.runs.start(session.id, script, agent="wide", grant=asked)
    await hub.runs.reply(run.id)
    return run, await output(hub, run.id)


async def test_a_path_that_is_not_granted_is_denied_by_the_kernel_too(
    hub: Alcove, session: Handle, place: Path
) -> None:
    script = f"cat {place}/data/secret; echo x > {place}/out/file && echo written; echo y > {place}/data/new || echo no"
    run, heard = await ran(hub, session, script)
    assert "42" in heard, "the control: the agent declares it, and nobody asked for less"
    assert "written" in heard
    assert "no\n" in heard, "what may be read may not be written"
    assert not (place / "data" / "new").exists()
    held = await hub.runs.grant(run.id)
    assert (held.grant.write, held.grant.own[0]) == ((f"{place}/out",), str(hub.settings.base / session.id))
    (place / "out" / "file").unlink()

    run, heard = await ran(hub, session, script, read=[sys.prefix], write=[])
    assert "42" not in heard
    assert "written" not in heard
    assert not (place / "out" / "file").exists()
    held = await hub.runs.grant(run.id)
    assert held.grant.read == (sys.prefix,)
    assert held.rights.read == (), "a run that has ended holds nothing"


async def test_a_host_that_is_not_granted_is_denied_by_the_kernel_too(hub: Alcove, session: Handle) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    script = f'{sys.executable} -c "{LISTEN}" {port}'
    async with server:
        _, heard = await ran(hub, session, script)
        assert heard == "reached\n", "the control"
        _, heard = await ran(hub, session, script, network="none")
        assert heard == "not reached\n"


FETCH = (
    "import sys, urllib.request\n"
    "for url in sys.argv[1:]:\n"
    "    try: print(urllib.request.urlopen(url, timeout=10).read().decode())\n"
    "    except OSError as error: print(error)"
)


@pytest.fixture
async def site() -> AsyncIterator[int]:
    """The port of a server on this machine's loopback."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nwelcome")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_a_list_of_hosts_is_what_a_run_reaches_and_what_it_is_refused_is_told(
    hub: Alcove, session: Handle, site: int, caplog: pytest.LogCaptureFixture
) -> None:
    denials: list[Denial] = []
    hub.runs.on_denial = denials.append
    script = f"{sys.executable} -c '{FETCH}' http://127.0.0.1:{site}/ http://127.0.0.1:{site + 1}/ http://x.org/"
    with caplog.at_level("INFO", "alcove.runs"):
        run, heard = await ran(hub, session, script, network=[f"127.0.0.1:{site}", "x.org:443"])
    assert heard == "welcome\n" + 2 * "HTTP Error 403: Refused by Alcove (unlisted)\n"
    assert (await hub.runs.grant(run.id)).grant.network == (f"127.0.0.1:{site}", "x.org:443")
    assert "hosts" in run_guarantees(await hub.runs.get(run.id))
    assert [(one.run_id, one.check.kind, one.check.name, one.decision.code) for one in denials] == [
        (run.id, "network", f"127.0.0.1:{site + 1}", "unlisted"),
        (run.id, "network", "x.org:80", "unlisted"),
    ]
    await hub.audit.flush(everything=True)
    rows = (await hub.audit.list(AuditFilters(denied=True, subject=f"run:{run.id}"))).rows
    assert sorted(str(row.told["id"]) for row in rows) == [f"127.0.0.1:{site + 1}", "x.org:80"]
    told = [record.__dict__ for record in caplog.records if record.message == "destination refused"]
    assert [(one["run_id"], one["destination"]) for one in told] == [
        (run.id, f"127.0.0.1:{site + 1}"),
        (run.id, "x.org:80"),
    ]


def run_guarantees(run: Run) -> set[str]:
    return {name for name, holds in json.loads(run.guarantees_json).items() if holds}


async def test_of_what_is_asked_for_a_run_reaches_only_what_its_agent_lists(
    place: Path, folder: Path, site: int
) -> None:
    with (place / "alcove.toml").open("a") as file:
        listed = f'["127.0.0.1:{site}", "*.example.org:443"]'
        file.write(f'[agents.wide]\ncommand = ["/bin/bash", "-s"]\nread = ["{sys.prefix}", "{sys.base_prefix}"]\n')
        file.write(f"network = {listed}\n")
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create(user_id="ana")
        asked = ["127.0.0.1", "a.example.org", "example.org:443", "*.b.example.org:443", "*.org:80"]
        fetch = f"{sys.executable} -c '{FETCH}' http://127.0.0.1:{site}/ http://127.0.0.1:{site + 1}/"
        run, heard = await ran(hub, session, fetch, network=asked)
        assert heard == "welcome\nHTTP Error 403: Refused by Alcove (unlisted)\n"
        held = await hub.runs.grant(run.id)
        assert held.grant.network == ("*.b.example.org:443", f"127.0.0.1:{site}", "a.example.org:443")
        [cut] = held.cuts
        assert (cut.by, cut.count) == ("agent", 4)
        run, heard = await ran(hub, session, fetch)
        assert heard == "welcome\nHTTP Error 403: Refused by Alcove (unlisted)\n", "nobody asked for less"
        run, heard = await ran(hub, session, fetch, network="none")
        assert "welcome" not in heard


async def test_a_list_of_hosts_that_no_sandbox_can_hold_is_refused_before_anything_runs(
    place: Path, folder: Path
) -> None:
    with (place / "alcove.toml").open("a") as file:
        file.write('[sandbox]\nrung = "none"\n[agents.wide]\ncommand = ["/bin/bash", "-s"]\nnetwork = ["x.org"]\n')
    async with alcove.hub.open(workspaces=folder) as hub:
        session = await hub.sessions.create(user_id="ana")
        with pytest.raises(GuaranteeError) as refused:
            await ran(hub, session, "true")
        assert (refused.value.details["missing"], bool(refused.value.remedy)) == ("hosts", True)
        assert (await hub.runs.list()).runs == []


async def test_a_run_that_loses_a_host_is_ended(hub: Alcove, session: Handle) -> None:
    asked = alcove.ask(network=["x.org:443", "y.org:443"])
    run = await hub.runs.start(session.id, "sleep 100", agent="wide", grant=asked)
    await hub.runs.narrow(run.id, alcove.bound(network=["*.org", "x.org", "y.org"]))
    assert not (await hub.runs.get(run.id)).ended
    await hub.runs.narrow(run.id, alcove.bound(network=["x.org"]))
    assert (await hub.runs.get(run.id)).status == "cancelled"


@pytest.fixture
async def slow(hub: Alcove) -> str:
    """A function agent that goes on until it is ended; what it declares is what its checks are answered by."""

    async def wait(_: AgentContext) -> str:
        await asyncio.Event().wait()
        return ""

    hub.agents.register("slow", wait, declared=alcove.bound(resources={"tool": ["search"]}, network="host"))
    return "slow"


async def test_a_live_run_is_answered_for_and_an_ended_one_is_not(hub: Alcove, session: Handle, slow: str) -> None:
    run = await hub.runs.start(session.id, "go", agent=slow)
    assert hub.runs.check(run.id, "tool", "search", "call")
    await hub.runs.cancel(run.id)
    assert hub.runs.check(run.id, "tool", "search", "call").code == "finished"


async def test_revoking_ends_the_run_and_those_below_it(hub: Alcove, session: Handle, slow: str) -> None:
    parent = await hub.runs.start(session.id, "go", agent=slow)
    other = await hub.sessions.create()
    child = await hub.runs.start(other.id, "go", agent=slow, parent_run=parent.id)
    third = await hub.sessions.create()
    stranger = await hub.runs.start(third.id, "go", agent=slow)
    await hub.runs.revoke(parent.id)
    statuses = [(await hub.runs.get(run.id)).status for run in (parent, child, stranger)]
    assert statuses == ["cancelled", "cancelled", "running"]
    with pytest.raises(NotPermittedError):
        await hub.runs.start(other.id, "go", agent=slow, parent_run=parent.id)


async def test_withdrawing_a_tool_leaves_the_run_and_withdrawing_the_network_ends_it(
    hub: Alcove, session: Handle, slow: str
) -> None:
    run = await hub.runs.start(session.id, "go", agent=slow)
    await hub.runs.narrow(run.id, alcove.bound(resources={}))
    assert hub.runs.check(run.id, "tool", "search").code == "unknown_type"
    assert (await hub.runs.get(run.id)).status == "running"
    await hub.runs.narrow(run.id, alcove.bound(network="none"))
    assert (await hub.runs.get(run.id)).status == "cancelled"


async def test_a_run_ends_when_its_grant_expires(hub: Alcove, session: Handle, slow: str) -> None:
    run = await hub.runs.start(session.id, "go", agent=slow, grant=alcove.ask(ttl_s=0.2))
    assert (await hub.runs.reply(run.id)).run.status == "timed_out"


async def test_another_process_decides_the_same_and_a_revocation_there_ends_the_run_here(
    hub: Alcove, session: Handle, folder: Path, slow: str, short_lease: None
) -> None:
    run = await hub.runs.start(session.id, "go", agent=slow)
    async with Other(folder, lease_s=2, renew_s=0.2) as other:
        assert (await other.call("check", run.id, "tool", "search", "call"))["allowed"]
        assert (await other.call("check", run.id, "tool", "rm", "call"))["code"] == "unknown_id"
        await other.call("revoke", run.id)
        assert hub.runs.check(run.id, "tool", "search", "call", fresh=True).code in {"revoked", "finished"}

        async def ended() -> bool:
            return (await hub.runs.get(run.id)).ended

        await until(ended)


async def test_a_purged_session_leaves_no_grant_behind(hub: Alcove, session: Handle, slow: str) -> None:
    await hub.runs.set_ceiling(session.id, alcove.bound(storage=[]))
    run = await hub.runs.start(session.id, "go", agent=slow)
    await hub.runs.revoke(run.id)
    assert {"grants", "grant_changes"} <= (await rows_with(hub, run.id)).keys()
    assert "ceilings" in await rows_with(hub, session.id)
    await session.delete(purge=True)
    assert await rows_with(hub, run.id) == {}
    assert await rows_with(hub, session.id) == {}
