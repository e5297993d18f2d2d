"""Runs that wait for a person, over HTTP: who asks, who answers, and who may not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from alcove.agents.base import AgentContext
from alcove.audit.model import AuditFilters
from alcove.hub import Alcove
from alcove.server.app import App
from alcove.server.auth import PortGate, RunGate
from alcove.server.call import Site
from server.asgi import Client

RM = {"type": "tool", "id": "rm", "operation": "call", "arguments": {"path": "/data"}, "message": "may I?"}


async def hosted(call: Client, **more: Any) -> dict[str, Any]:
    made = await call("POST", "/api/v1/runs", {"agent": "runner", **more})
    assert made.status == 201
    return made.json()


async def holder(site: Site, role: str, *, tenant: str = "default", user_id: str = "") -> Client:
    issued = await site.hub.keys.create(tenant=tenant, role=role, user_id=user_id)
    gate = PortGate(site.hub.keys, tokens=site.hub.runs.of_token)
    return Client(App(site, gate), {"authorization": f"Bearer {issued.secret}"})


def bearing(site: Site, token: str) -> Client:
    gate = PortGate(site.hub.keys, tokens=site.hub.runs.of_token)
    return Client(App(site, gate), {"authorization": f"Bearer {token}"})


async def test_a_run_asks_waits_and_hears(call: Client, site: Site) -> None:
    run = await hosted(call, run_id="r")
    itself = bearing(site, run["token"])
    asked = await itself("POST", "/api/v1/runs/r/approvals", RM)
    assert (asked.status, asked.json()["status"], asked.json()["arguments"]) == (201, "waiting", {"path": "/data"})
    assert asked.headers["location"] == f"/api/v1/runs/r/approvals/{asked.json()['approval_id']}"
    assert (await call("GET", "/api/v1/runs/r")).json()["status"] == "waiting"
    assert [run["run_id"] for run in (await call("GET", "/api/v1/runs?status=waiting")).json()["runs"]] == ["r"]
    [listed] = (await call("GET", "/api/v1/approvals?waiting=true")).json()["approvals"]
    assert listed == asked.json()
    waiting = asyncio.create_task(itself("GET", f"{asked.headers['location']}?wait_s=60"))
    await asyncio.sleep(0)
    answer = {"approval_id": listed["approval_id"], "reason": "fine"}
    approved = await call("POST", "/api/v1/runs/r/approve", answer)
    assert (approved.status, approved.json()["status"], approved.json()["decided_by"]) == (200, "approved", "local")
    assert (await waiting).json() == approved.json()
    again = await call("POST", "/api/v1/runs/r/approve", {**answer, "reason": "other"})
    assert (again.json(), again.headers["idempotent-replayed"]) == (approved.json(), "true")
    refused = await call("POST", "/api/v1/runs/r/deny", answer)
    assert (refused.status, refused.json()["code"]) == (409, "approval_decided")
    assert (await call("GET", "/api/v1/approvals?waiting=true")).json()["approvals"] == []
    assert len((await itself("GET", "/api/v1/runs/r/approvals")).json()["approvals"]) == 1


async def test_a_question_with_a_key_is_asked_once(call: Client) -> None:
    await hosted(call, run_id="r")
    first, again = [
        await call("POST", "/api/v1/runs/r/approvals", RM, headers={"idempotency-key": "k"}) for _ in range(2)
    ]
    assert (first.json(), first.headers.get("idempotent-replayed")) == (again.json(), None)
    assert again.headers["idempotent-replayed"] == "true"
    other = await call("POST", "/api/v1/runs/r/approvals", {**RM, "id": "cp"}, headers={"idempotency-key": "k"})
    assert other.status == 422


async def test_a_program_asks_through_its_own_socket(call: Client, site: Site, hub: Alcove, own: str) -> None:
    """What a program does with ALCOVE_RUN_TOKEN: the run is one of Alcove's own, looked after here."""
    go = asyncio.Event()

    async def waits(context: AgentContext) -> str:
        await go.wait()
        return "done"

    hub.agents.register("waits", waits)
    run = (await call("POST", f"/api/v1/sessions/{own}/runs", {"message": "hi", "agent": "waits"})).json()["run_id"]
    itself = Client(App(site, RunGate(own, run, "s3cret")), {"authorization": "Bearer s3cret"})
    asked = (await itself("POST", f"/api/v1/runs/{run}/approvals", RM)).json()
    assert (await call("GET", f"/api/v1/runs/{run}")).json()["status"] == "waiting"
    for path in ("approve", "deny"):
        refused = await itself("POST", f"/api/v1/runs/{run}/{path}", {"approval_id": asked["approval_id"]})
        assert refused.status == 404, "its socket has no such thing"
    await call("POST", f"/api/v1/runs/{run}/deny", {"approval_id": asked["approval_id"]})
    shown = await itself("GET", f"/api/v1/runs/{run}/approvals/{asked['approval_id']}")
    assert shown.json()["status"] == "denied"
    go.set()
    await hub.runs.reply(run)
    late = await call("POST", f"/api/v1/runs/{run}/approvals", RM)
    assert (late.status, late.json()["code"]) == (409, "run_ended")


async def test_only_a_principal_who_may_answers(call: Client, site: Site, hub: Alcove) -> None:
    run = await hosted(call, run_id="r", user_id="ana")
    other = await hosted(call, run_id="other", user_id="ana")
    nobodys = await hosted(call, run_id="nobodys")
    asked = {
        run_id: (await call("POST", f"/api/v1/runs/{run_id}/approvals", RM)).json()["approval_id"]
        for run_id in ("r", "nobodys")
    }
    body = {"approval_id": asked["r"]}
    for client in (
        bearing(site, run["token"]),
        bearing(site, other["token"]),
        bearing(site, nobodys["token"]),
        await holder(site, "user", user_id="bob"),
        await holder(site, "user", tenant="rival", user_id="ana"),
        await holder(site, "service", tenant="rival"),
    ):
        for path in ("approve", "deny"):
            assert (await client("POST", f"/api/v1/runs/r/{path}", body)).status == 404
    assert (await hub.runs.approval("r", asked["r"])).waiting
    ana = await holder(site, "user", user_id="ana")
    assert (await ana("POST", "/api/v1/runs/nobodys/approve", {"approval_id": asked["nobodys"]})).status == 404
    assert len((await ana("GET", "/api/v1/approvals")).json()["approvals"]) == 1
    assert (await ana("GET", "/api/v1/approvals?user_id=bob")).status == 403
    assert (await ana("POST", "/api/v1/runs/r/approvals", RM)).status == 403, "a user puts no question"
    assert (await ana("POST", "/api/v1/runs/r/approve", body)).json()["status"] == "approved", "her own session's"
    service = await holder(site, "service")
    for_nobody = {"approval_id": asked["nobodys"]}
    assert (await service("POST", "/api/v1/runs/nobodys/approve", for_nobody)).json()["status"] == "approved"
    await hub.audit.flush()
    told = [row.chained.code for row in (await hub.audit.list(AuditFilters(act="request.denied"))).rows]
    assert "foreign" in told


async def test_an_answer_serves_no_other_run_and_no_other_request(call: Client) -> None:
    for run_id in ("a", "b"):
        await hosted(call, run_id=run_id)
    one, two, other = [
        (await call("POST", f"/api/v1/runs/{run_id}/approvals", {**RM, "arguments": arguments})).json()
        for run_id, arguments in (("a", {"path": "/x"}), ("a", {"path": "/y"}), ("b", {"path": "/x"}))
    ]
    assert len({one["digest"], two["digest"], other["digest"]}) == 3
    crossed = await call("POST", "/api/v1/runs/b/approve", {"approval_id": one["approval_id"]})
    assert (crossed.status, crossed.json()["code"]) == (404, "approval_not_found")
    await call("POST", "/api/v1/runs/a/approve", {"approval_id": one["approval_id"]})
    left = (await call("GET", "/api/v1/approvals?waiting=true")).json()["approvals"]
    assert [each["approval_id"] for each in left] == [other["approval_id"], two["approval_id"]]


async def test_what_needs_approval_is_authorized_once(call: Client, site: Site) -> None:
    run = await hosted(call, run_id="r", grant={"resources": {"tool": {"rm": ["call?"]}}})
    itself = bearing(site, run["token"])
    check = {"type": "tool", "id": "rm", "operation": "call"}
    assert (await itself("POST", "/api/v1/runs/r/authorize", check)).json()["code"] == "needs_approval"
    asked = (await itself("POST", "/api/v1/runs/r/approvals", RM)).json()["approval_id"]
    await call("POST", "/api/v1/runs/r/approve", {"approval_id": asked})
    by_that = {**check, "approval_id": asked}
    told = [
        (await itself("POST", "/api/v1/runs/r/authorize", body)).json()["code"]
        for body in (
            {**by_that, "arguments": {"path": "/"}},
            {**by_that, "arguments": RM["arguments"]},
            {**by_that, "arguments": RM["arguments"]},
        )
    ]
    assert told == ["needs_approval", "allowed", "needs_approval"]
    both = await itself("POST", "/api/v1/runs/r/authorize", {"checks": [check], "approval_id": asked})
    assert (both.status, both.json()["field"]) == (400, "approval_id")


async def test_a_server_that_stops_lets_nobody_wait(call: Client, site: Site) -> None:
    await hosted(call, run_id="r")
    asked = (await call("POST", "/api/v1/runs/r/approvals", RM)).json()["approval_id"]
    waiting = asyncio.create_task(call("GET", f"/api/v1/runs/r/approvals/{asked}?wait_s=60"))
    await asyncio.sleep(0.01)
    site.stopping.set()
    assert (await asyncio.wait_for(waiting, 10)).json()["status"] == "waiting"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "type"),
        ({"type": "tool"}, "id"),
        ({**RM, "type": "x" * 300}, "type"),
        ({**RM, "operation": "a\u0000"}, "operation"),
        ({**RM, "arguments": "x" * 70_000}, "arguments"),
        ({**RM, "message": "x" * 5000}, "message"),
        ({**RM, "expires_s": 0}, "expires_s"),
        ({**RM, "expires_s": 1e9}, "expires_s"),
        ({**RM, "approved": True}, "approved"),
        ({**RM, "status": "approved"}, "status"),
    ],
)
async def test_a_bad_question_is_named(call: Client, body: dict[str, Any], field: str) -> None:
    await hosted(call, run_id="r")
    refused = await call("POST", "/api/v1/runs/r/approvals", body)
    assert refused.status in {400, 413}
    assert refused.json()["field"] == field
    assert (await call("GET", "/api/v1/runs/r/approvals")).json()["approvals"] == []


async def test_a_bad_answer_is_named(call: Client) -> None:
    await hosted(call, run_id="r")
    for body, status in (({}, 404), ({"approval_id": "x"}, 404), ({"approval_id": "x", "reason": "y" * 2000}, 400)):
        assert (await call("POST", "/api/v1/runs/r/approve", body)).status == status
    assert (await call("GET", "/api/v1/runs/r/approvals/nothing?wait_s=1")).status == 404
    assert (await call("GET", "/api/v1/runs/r/approvals/nothing?wait_s=100")).status == 400
