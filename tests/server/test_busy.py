"""Messages for a session that is busy, over HTTP: waiting, steering and giving way, and who may."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from alcove import limits
from alcove.agents.base import AgentContext
from alcove.hub import Alcove
from alcove.server.app import App
from alcove.server.auth import PortGate
from alcove.server.call import Site
from server.asgi import Client


class Agent:
    """Says `ready`, takes what comes each time it is told to, and answers with what it took."""

    def __init__(self) -> None:
        self.go_on: asyncio.Queue[bool] = asyncio.Queue()
        self.ready = asyncio.Event()

    async def __call__(self, context: AgentContext) -> str:
        self.ready.set()
        taken: list[str] = []
        while await self.go_on.get():
            taken += await context.pull()
        return f"{context.message}: {taken}"


@pytest.fixture
async def agent(hub: Alcove, call: Client, own: str) -> Agent:
    agent = Agent()
    hub.agents.register("agent", agent)
    return agent


@pytest.fixture
async def running(call: Client, own: str, agent: Agent) -> str:
    """A run that goes on."""
    run = await call("POST", f"/api/v1/sessions/{own}/runs", {"message": "first", "agent": "agent"})
    await agent.ready.wait()
    return str(run.json()["run_id"])


def key(site: Site, secret: str) -> Client:
    return Client(
        App(site, PortGate(site.hub.keys, tokens=site.hub.runs.of_token)), {"authorization": f"Bearer {secret}"}
    )


async def test_a_second_message_is_refused_or_waits_as_it_says(
    call: Client, own: str, agent: Agent, running: str
) -> None:
    path = f"/api/v1/sessions/{own}/runs"
    refused = await call("POST", path, {"message": "x", "agent": "agent"})
    assert (refused.status, refused.json()["code"], refused.json()["details"]["run_id"]) == (
        409,
        "session_busy",
        running,
    )
    body = {"message": "second", "agent": "agent", "busy": "queue"}
    queued = await call("POST", path, body, headers={"idempotency-key": "k"})
    assert (queued.status, queued.json()["status"], queued.json()["turn"], queued.json()["digest"]) == (
        202,
        "queued",
        0,
        "",
    )
    again = await call("POST", path, body, headers={"idempotency-key": "k"})
    assert (again.json(), again.headers["idempotent-replayed"]) == (queued.json(), "true")
    run_id = queued.json()["run_id"]
    [waiting] = (await call("GET", f"/api/v1/sessions/{own}/queue")).json()["queue"]
    assert (waiting["run_id"], waiting["position"], waiting["message"], waiting["made_by"]) == (
        run_id,
        1,
        "second",
        "local",
    )
    listed = (await call("GET", "/api/v1/runs?status=queued")).json()["runs"]
    assert [run["run_id"] for run in listed] == [run_id]
    asked = await call("POST", f"/api/v1/runs/{run_id}/authorize", {"type": "tool", "id": "rm"})
    assert (asked.json()["allowed"], asked.json()["code"]) == (False, "not_started")
    assert (await call("GET", f"/api/v1/runs/{run_id}/grant")).status == 409
    for _ in range(2):
        agent.go_on.put_nowait(False)
    events = await call("GET", f"/api/v1/runs/{run_id}/events")
    assert b'"position":1' in events.body
    assert b"event: run.finished" in events.body
    assert (await call("GET", f"/api/v1/runs/{run_id}")).json()["status"] == "finished"
    assert (await call("GET", f"/api/v1/sessions/{own}/queue")).json() == {"queue": []}


async def test_a_queued_run_is_taken_out_by_cancelling_it(call: Client, own: str, agent: Agent, running: str) -> None:
    body = {"message": "second", "agent": "agent", "busy": "queue"}
    run = (await call("POST", f"/api/v1/sessions/{own}/runs", body)).json()["run_id"]
    cancelled = await call("POST", f"/api/v1/runs/{run}/cancel")
    assert (cancelled.status, cancelled.json()["status"]) == (200, "cancelled")
    agent.go_on.put_nowait(False)


async def test_a_full_queue_says_so(
    call: Client, own: str, agent: Agent, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "QUEUE_MESSAGES", 0)
    monkeypatch.setattr(limits, "STEERING_MESSAGES", 0)
    full = await call("POST", "/api/v1/chat", {"session_id": own, "message": "x", "busy": "queue"})
    steer = await call("POST", f"/api/v1/runs/{running}/steer", {"message": "x"})
    for answer in (full, steer):
        assert (answer.status, answer.json()["code"], answer.json()["field"], answer.json()["limit"]) == (
            409,
            "queue_full",
            "message",
            0,
        )
        assert answer.headers["retry-after"]
    agent.go_on.put_nowait(False)


async def test_a_chat_interrupts_and_the_other_one_is_told(call: Client, own: str, agent: Agent, running: str) -> None:
    answer = await call("POST", "/api/v1/chat", {"session_id": own, "message": "echo newer", "busy": "interrupt"})
    assert (answer.status, answer.json()["response"], answer.json()["returned"]) == (200, "newer", [])
    ended = (await call("GET", f"/api/v1/runs/{running}")).json()
    assert ended["status"] == "interrupted"


async def test_a_message_is_put_to_the_run_taken_and_the_rest_returned(
    call: Client, own: str, agent: Agent, running: str
) -> None:
    put = await call("POST", f"/api/v1/runs/{running}/steer", {"message": "a"}, headers={"idempotency-key": "k"})
    assert (put.status, put.json()) == (202, {"run_id": running, "n": 1, "waiting": 1})
    again = await call("POST", f"/api/v1/runs/{running}/steer", {"message": "a"}, headers={"idempotency-key": "k"})
    assert (again.json(), again.headers["idempotent-replayed"]) == (put.json(), "true")
    by_session = await call("POST", f"/api/v1/sessions/{own}/steer", {"message": "b", "agent": "agent"})
    assert by_session.json() == {"run_id": running, "n": 2, "waiting": 2}
    joined = await call("POST", f"/api/v1/sessions/{own}/runs", {"message": "c", "busy": "steer"})
    assert (joined.json()["run_id"], joined.json()["steered"]) == (running, True)
    chatting = asyncio.create_task(call("POST", "/api/v1/chat", {"session_id": own, "message": "d", "busy": "steer"}))
    while len((await call("GET", f"/api/v1/runs/{running}/steering")).json()["messages"]) < 4:
        await asyncio.sleep(0)
    agent.go_on.put_nowait(True)
    while (await call("GET", f"/api/v1/runs/{running}/steering")).json()["messages"]:
        await asyncio.sleep(0)
    assert (await call("POST", f"/api/v1/runs/{running}/steer", {"message": "late"})).status == 202
    agent.go_on.put_nowait(False)
    answer = (await chatting).json()
    assert (answer["response"], answer["returned"]) == ("first: ['a', 'b', 'c', 'd']", ["late"])
    [left] = (await call("GET", f"/api/v1/runs/{running}/steering")).json()["messages"]
    assert (left["text"], left["returned"], left["made_by"]) == ("late", True, "local")
    for path, body in ((f"runs/{running}/steer", {}), (f"sessions/{own}/steer", {"agent": "agent"})):
        refused = await call("POST", f"/api/v1/{path}", {"message": "x", **body})
        assert (refused.status, refused.json()["code"]) in {(409, "run_ended"), (404, "run_not_found")}


@pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": 1}, {"message": "x", "more": 1}])
async def test_a_message_that_is_none_is_refused_by_its_field(
    call: Client, own: str, agent: Agent, running: str, body: dict[str, Any]
) -> None:
    for path in (f"runs/{running}/steer", f"sessions/{own}/steer"):
        refused = await call("POST", f"/api/v1/{path}", body)
        assert (refused.status, refused.json()["field"]) == (400, "more" if "more" in body else "message")
    agent.go_on.put_nowait(False)


async def test_a_policy_that_there_is_not_names_those_that_there_are(call: Client, own: str) -> None:
    refused = await call("POST", f"/api/v1/sessions/{own}/runs", {"message": "x", "busy": "wait"})
    assert (refused.status, refused.json()["field"]) == (400, "busy")


async def test_a_hosted_run_pulls_with_its_token_and_nobody_elses(call: Client, site: Site, own: str) -> None:
    tokens = {}
    for name in ("r", "other"):
        made = await call("POST", "/api/v1/runs", {"agent": "host", "run_id": name, "session_id": own})
        tokens[name] = made.json()["token"]
    await call("POST", "/api/v1/runs/r/steer", {"message": "a"})
    foreign = await key(site, tokens["other"])("POST", "/api/v1/runs/r/pull", {})
    assert (foreign.status, foreign.json()["code"]) == (404, "run_not_found")
    for path in ("/api/v1/runs/r/steer", f"/api/v1/sessions/{own}/steer"):
        assert (await key(site, tokens["r"])("POST", path, {"message": "to myself"})).status == 404, "no run steers"
    taken = await key(site, tokens["r"])("POST", "/api/v1/runs/r/pull", {"limit": 1})
    assert taken.json() == {"messages": [{"seq": 1, "text": "a"}], "waiting": 0}
    for bad in (0, limits.STEERING_MESSAGES + 1):
        assert (await call("POST", "/api/v1/runs/r/pull", {"limit": bad})).status == 400


async def test_a_user_steers_its_own_runs_and_takes_nothing_out_of_them(call: Client, site: Site) -> None:
    keys = {
        name: key(site, (await site.hub.keys.create(tenant="default", role="user", user_id=name)).secret)
        for name in ("ana", "bob")
    }
    session = (await keys["ana"]("POST", "/api/v1/sessions")).json()["session_id"]
    run = (await site.hub.runs.register("host", session_id=session)).run.id
    put = await keys["ana"]("POST", f"/api/v1/runs/{run}/steer", {"message": "a"})
    assert put.status == 202
    [unread] = (await keys["ana"]("GET", f"/api/v1/runs/{run}/steering")).json()["messages"]
    assert unread["made_by"].startswith("key:")
    assert (await keys["ana"]("POST", f"/api/v1/runs/{run}/pull", {})).status == 403
    for method, path, body in (
        ("POST", f"runs/{run}/steer", {"message": "a"}),
        ("POST", f"sessions/{session}/steer", {"message": "a"}),
        ("GET", f"runs/{run}/steering", None),
        ("GET", f"sessions/{session}/queue", None),
    ):
        assert (await keys["bob"](method, f"/api/v1/{path}", body)).status == 404
