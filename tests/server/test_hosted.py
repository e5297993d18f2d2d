"""Runs of a host framework over HTTP: registered, kept alive, heard, ended; and their own tokens."""

from __future__ import annotations

from typing import Any

import pytest

from alcove.hub import Alcove
from alcove.server.app import App
from alcove.server.auth import PortGate
from alcove.server.call import Site
from alcove.testing.rows import execute
from server.asgi import Client

GRANT = {"resources": {"tool": ["search"]}, "caller": "plug-in"}
SEARCH = {"type": "tool", "id": "search", "operation": "call", "caller": "plug-in"}


async def registered(client: Client, **more: Any) -> dict[str, Any]:
    made = await client("POST", "/api/v1/runs", {"agent": "runner", "grant": GRANT, **more})
    assert made.status == 201, made.body
    assert made.headers["location"] == f"/api/v1/runs/{made.json()['run_id']}"
    return made.json()


def bearing(site: Site, token: str) -> Client:
    gate = PortGate(site.hub.keys, tokens=site.hub.runs.of_token)
    return Client(App(site, gate), {"authorization": f"Bearer {token}"})


async def test_a_hosted_run_from_its_beginning_to_its_end(call: Client, own: str) -> None:
    run = await registered(call, session_id=own, run_id="query-42")
    assert (run["run_id"], run["hosted"], run["rung"], run["status"]) == ("query-42", True, "hosted", "running")
    assert run["due_at"] - run["created_at"] == 3600
    path = "/api/v1/runs/query-42"
    assert (await call("POST", f"{path}/authorize", SEARCH)).json()["allowed"]
    assert (await call("POST", f"{path}/heartbeat")).json()["cancelling"] is False
    said = {"text": "thinking", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(2):
        reported = await call("POST", f"{path}/report", said, headers={"idempotency-key": "1"})
        assert reported.json() == {"last_event": 3, "last_seq": 1}
    assert (await call("POST", f"{path}/cancel")).status == 202
    assert (await call("POST", f"{path}/heartbeat")).json()["cancelling"] is True
    ended = await call("POST", f"{path}/finish", {"text": "hello"})
    assert (ended.json()["status"], ended.json()["answer_seq"]) == ("finished", 2)
    for again in ("finish", "heartbeat", "report"):
        refused = await call("POST", f"{path}/{again}", {})
        assert (refused.status, refused.json()["code"]) == (409, "run_ended")
    assert (await call("POST", f"{path}/authorize", SEARCH)).json()["code"] == "finished"
    assert (await call("GET", f"{path}/events?follow=false")).body.count(b"event: ") == 5
    assert (await call("GET", path)).json()["status"] == "finished"
    taken = await call("POST", "/api/v1/runs", {"agent": "runner", "run_id": "query-42"})
    assert (taken.status, taken.json()["code"]) == (409, "already_exists")


async def test_a_runs_token_is_good_for_that_run_while_it_lives(call: Client, site: Site) -> None:
    run, other = await registered(call), await registered(call)
    itself = bearing(site, run["token"])
    path = f"/api/v1/runs/{run['run_id']}"
    assert (await itself("POST", f"{path}/authorize", SEARCH)).json()["allowed"]
    assert (await itself("POST", f"{path}/heartbeat")).status == 200
    assert (await itself("GET", path)).status == 200
    for foreign in ("heartbeat", "finish", "authorize", "report"):
        body = SEARCH if foreign == "authorize" else {}
        assert (await itself("POST", f"/api/v1/runs/{other['run_id']}/{foreign}", body)).status == 404
    for closed in (
        "/api/v1/runs",
        "/api/v1/sessions",
        "/api/v1/keys",
        f"/api/v1/runs/{other['run_id']}",
        f"{path}/grant",
    ):
        assert (await itself("GET", closed)).status == 404, closed
    for forged in (run["token"][:-1], run["token"] + "0", "alcove_run_", "alcove_run_" + "0" * 64):
        assert (await bearing(site, forged)("POST", f"{path}/heartbeat")).status == 401, (
            "not even where no key is needed"
        )
    assert (await itself("POST", f"{path}/finish", {})).status == 200
    assert (await itself("POST", f"{path}/heartbeat")).status == 401


async def test_a_lost_run_has_no_authority_and_its_heartbeat_comes_too_late(
    call: Client, site: Site, hub: Alcove
) -> None:
    run = await registered(call, stale_s=60)
    path = f"/api/v1/runs/{run['run_id']}"
    await execute(hub.database, "UPDATE runs SET due_at = 1 WHERE id = ?", run["run_id"])
    fresh = await call("POST", f"{path}/authorize", {**SEARCH, "fresh": True})
    assert fresh.json()["code"] == "finished"
    assert (await call("POST", f"{path}/heartbeat")).json()["code"] == "run_ended"
    assert (await bearing(site, run["token"])("POST", f"{path}/heartbeat")).status == 401
    await hub.runs.sweep_stale()
    assert (await call("GET", path)).json()["status"] == "lost"


async def test_runs_are_listed_by_filters_and_as_a_tree(call: Client) -> None:
    await registered(call, run_id="top")
    await registered(call, run_id="below", agent="worker", parent_run="top")
    await call("POST", "/api/v1/runs/below/finish", {})

    async def found(query: str) -> list[str]:
        return sorted(run["run_id"] for run in (await call("GET", f"/api/v1/runs?{query}")).json()["runs"])

    assert await found("active=true") == ["top"]
    assert await found("status=finished&agent=worker") == ["below"]
    assert await found("root_run=top&hosted=true") == ["below", "top"]
    assert await found("parent_run=top") == ["below"]
    assert await found("hosted=false") == []
    assert [run["run_id"] for run in (await call("GET", "/api/v1/runs/top/tree")).json()["runs"]] == ["top", "below"]
    assert (await call("GET", "/api/v1/runs/nothing/tree")).status == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "agent"),
        ({"agent": ""}, "agent"),
        ({"agent": "a", "run_id": "../x"}, "run_id"),
        ({"agent": "a", "stale_s": 0}, "stale_s"),
        ({"agent": "a", "grant": {"resources": {"path": ["a"]}}}, "resources.path"),
        ({"agent": "a", "role": "admin"}, "role"),
    ],
)
async def test_a_registration_that_is_not_valid_is_named(call: Client, body: dict[str, Any], field: str) -> None:
    answer = await call("POST", "/api/v1/runs", body)
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_a_run_of_another_tenant_is_nobodys_here(site: Site, hub: Alcove) -> None:
    async def holder(tenant: str) -> Client:
        issued = await hub.keys.create(tenant=tenant)
        return Client(App(site, PortGate(hub.keys)), {"authorization": f"Bearer {issued.secret}"})

    acme, rival = await holder("acme"), await holder("rival")
    await registered(acme, run_id="query-42")
    for verb in ("heartbeat", "report", "finish", "authorize", "revoke", "narrow"):
        body = SEARCH if verb == "authorize" else {}
        there = await rival("POST", f"/api/v1/runs/query-42/{verb}", body)
        assert (there.status, there.json()["code"]) == (404, "run_not_found")
    child = await rival("POST", "/api/v1/runs", {"agent": "a", "parent_run": "query-42"})
    assert (child.status, child.json()["code"]) == (404, "run_not_found")
    assert (await rival("GET", "/api/v1/runs")).json()["runs"] == []
