"""What a run may do, told on the command line: here, and of a server."""

from __future__ import annotations

import asyncio
import json

import pytest

import alcove
from cli.conftest import Run


@pytest.fixture
def runs(run: Run) -> None:
    """A hosted run `top` with a child that asked for more than that holds."""
    run("create")

    async def make() -> None:
        async with alcove.open() as hub:
            grant = alcove.ask(
                resources={"tool": ["search"]}, network=["x.org"], caller="plug-in", labels={"query": "7"}
            )
            await hub.runs.register("runner", run_id="top", grant=grant)
            more = alcove.ask(resources={"tool": ["search", "rm"]}, network="none")
            await hub.runs.register("runner", run_id="below", parent_run="top", grant=more)
            await hub.runs.narrow("top", alcove.bound(resources={"tool": {"search": ["call"]}}), reason="enough")

    asyncio.run(make())


@pytest.mark.usefixtures("runs")
def test_a_decision_is_explained(run: Run) -> None:
    asked = ("grant", "check", "top", "tool", "search")
    assert run(*asked, "call", "--caller", "plug-in").stdout == "allowed\n"
    denied = run(*asked, "detail", "--caller", "plug-in", exit_code=4).stdout
    assert denied.startswith("denied\tunknown_operation\t")
    assert json.loads(run(*asked, "call", "--json", exit_code=4).stdout)["code"] == "wrong_caller"
    assert "unknown_run" in run("grant", "check", "nothing", "tool", "x", exit_code=4).stdout
    run("grant", "show", "nothing", exit_code=5)


@pytest.mark.usefixtures("runs")
def test_a_grant_is_shown_with_what_is_left_of_it(run: Run) -> None:
    shown = run("grant", "show", "top").stdout
    assert "right\ttool\tsearch\tcall\tyes" in shown
    assert "right\ttool\tsearch\tdetail\twithdrawn" in shown
    told = json.loads(run("grant", "show", "top", "--json").stdout)
    assert told["granted"]["resources"] == {"tool": {"search": ["call", "detail"]}}
    assert told["rights"]["resources"] == {"tool": {"search": ["call"]}}
    assert (told["labels"], told["changes"][0]["reason"]) == ({"query": "7"}, "enough")


@pytest.mark.usefixtures("runs")
def test_what_was_not_granted_and_how_two_differ(run: Run) -> None:
    cut = run("grant", "diff", "below").stdout
    assert "tool rm call\tcut off by the parent" in cut
    assert "narrow by local: enough" in cut
    assert "tool search detail\tdoes not hold now" in cut
    assert "network x.org\tonly top" in run("grant", "diff", "top", "below").stdout


@pytest.mark.usefixtures("runs")
def test_a_servers_grants_are_told_in_the_same_words(run: Run, server: str) -> None:
    for command in (("show", "top"), ("diff", "below"), ("show", "top", "--json"), ("diff", "top", "below")):
        assert run("grant", *command, "--url", server).stdout == run("grant", *command).stdout
    assert "wrong_caller" in run("grant", "check", "top", "tool", "search", "--url", server, exit_code=4).stdout
