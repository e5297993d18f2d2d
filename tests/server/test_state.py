"""State over HTTP: conditions, who may, and what a run may by its grant."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import alcove
from alcove.agents.base import AgentContext
from alcove.audit.model import AuditFilters
from alcove.hub import Alcove
from alcove.server.app import App
from alcove.server.auth import PortGate, RunGate
from alcove.server.call import Site
from alcove.testing.waiting import wait_until
from server.asgi import Client

ANA = "/api/v1/state/user/mood?of=ana"


async def holder(site: Site, role: str, *, tenant: str = "default", user_id: str = "") -> Client:
    issued = await site.hub.keys.create(tenant=tenant, role=role, user_id=user_id)
    return bearing(site, issued.secret)


def bearing(site: Site, token: str) -> Client:
    gate = PortGate(site.hub.keys, tokens=site.hub.runs.of_token)
    return Client(App(site, gate), {"authorization": f"Bearer {token}"})


async def test_a_value_is_set_shown_listed_and_deleted(call: Client) -> None:
    made = await call("PUT", ANA, {"value": {"now": "good"}, "ttl_s": 60})
    assert made.status == 200
    shown = await call("GET", ANA)
    assert (shown.json(), shown.headers["etag"]) == (made.json(), f'"{made.json()["version"]}"')
    assert (shown.json()["value"], shown.json()["of"], shown.json()["scope"]) == ({"now": "good"}, "ana", "user")
    assert shown.json()["expires_at"] == pytest.approx(shown.json()["updated_at"] + 60)
    assert (await call("GET", "/api/v1/state/actor?of=ana")).json()["values"] == [shown.json()]
    assert (await call("DELETE", ANA)).status == 204
    gone = await call("GET", ANA)
    assert (gone.status, gone.json()["code"]) == (404, "value_not_found")
    assert (await call("DELETE", ANA)).status == 404


async def test_a_condition_is_kept(call: Client) -> None:
    only_new = {"if-none-match": "*"}
    first = await call("PUT", ANA, {"value": 1}, headers=only_new)
    assert first.status == 200
    assert (await call("PUT", ANA, {"value": 2}, headers=only_new)).status == 412
    tag = {"if-match": first.headers["etag"]}
    second = await call("PUT", ANA, {"value": 2}, headers=tag)
    assert second.status == 200
    stale = await call("PUT", ANA, {"value": 3}, headers=tag)
    assert (stale.status, stale.json()["code"], stale.json()["details"]["version"]) == (
        412,
        "version_mismatch",
        second.json()["version"],
    )
    assert (await call("DELETE", ANA, headers=tag)).status == 412
    assert (await call("GET", ANA)).json()["value"] == 2
    assert (await call("PUT", ANA, {"value": 3}, headers={"if-match": '"a", "b"'})).status == 400
    assert (await call("DELETE", ANA, headers={"if-match": second.headers["etag"]})).status == 204


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/state/planet/k?of=x", "scope"),
        ("/api/v1/state/user/k", "of"),
        ("/api/v1/state/app/k?of=x", "of"),
        ("/api/v1/state/user/%00?of=x", "key"),
    ],
)
async def test_bad_input_names_its_field(call: Client, path: str, field: str) -> None:
    answer = await call("PUT", path, {"value": 1})
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_a_user_sees_its_own_state_and_changes_none(call: Client, site: Site) -> None:
    mine = (await call("POST", "/api/v1/sessions", {"user_id": "ana"})).json()["session_id"]
    theirs = (await call("POST", "/api/v1/sessions", {"user_id": "ben"})).json()["session_id"]
    for path in (
        *(f"/api/v1/state/session/k?of={one}" for one in (mine, theirs)),
        *(f"/api/v1/state/user/k?of={one}" for one in ("ana", "ben")),
        "/api/v1/state/app/k",
        "/api/v1/state/agent/k?of=shell",
    ):
        assert (await call("PUT", path, {"value": 1})).status == 200
    ana = await holder(site, "user", user_id="ana")
    for path in (f"/api/v1/state/session/k?of={mine}", "/api/v1/state/user/k", "/api/v1/state/user/k?of=ana"):
        assert (await ana("GET", path)).status == 200, path
    unknown = await ana("GET", "/api/v1/state/session/k?of=nobody")
    foreign = await ana("GET", f"/api/v1/state/session/k?of={theirs}")
    assert (
        (foreign.status, foreign.json()["code"])
        == (unknown.status, unknown.json()["code"])
        == (
            404,
            "session_not_found",
        )
    )
    for path in ("/api/v1/state/user/k?of=ben", "/api/v1/state/app/k", "/api/v1/state/agent/k?of=shell"):
        assert (await ana("GET", path)).status == 403, path
    assert (await ana("PUT", "/api/v1/state/user/k", {"value": 2})).status == 403


async def test_tenants_are_apart(call: Client, site: Site) -> None:
    acme, other = await holder(site, "service", tenant="acme"), await holder(site, "service", tenant="other")
    assert (await acme("PUT", ANA, {"value": "acme's"})).status == 200
    assert (await other("GET", ANA)).status == 404
    assert (await other("GET", "/api/v1/state/user?of=ana")).json()["values"] == []
    session_id = (await acme("POST", "/api/v1/sessions")).json()["session_id"]
    path = f"/api/v1/state/session/k?of={session_id}"
    assert (await acme("PUT", path, {"value": 1})).status == 200
    for method in ("GET", "PUT", "DELETE"):
        answer = await other(method, path, *([{"value": 2}] if method == "PUT" else []))
        assert (answer.status, answer.json()["code"]) == (404, "session_not_found")


async def registered(call: Client, **more: Any) -> dict[str, Any]:
    made = await call("POST", "/api/v1/runs", {"agent": "runner", **more})
    assert made.status == 201, made.json()
    return made.json()


async def test_a_run_has_the_state_that_its_grant_says_and_of_whom_it_says(call: Client, site: Site, own: str) -> None:
    grant = {"state": ["session", "user", "subject", "agent", "run"], "context": {"actor": "ana", "subject": "case-7"}}
    run = await registered(call, run_id="r", session_id=own, user_id="ana", grant=grant)
    itself = bearing(site, run["token"])
    owners = {"session": own, "user": "ana", "subject": "case-7", "agent": "runner", "run": "r"}
    for scope, of in owners.items():
        made = await itself("PUT", f"/api/v1/state/{scope}/k", {"value": scope})
        assert (made.status, made.json()["of"]) == (200, of), made.json()
        assert (await call("GET", f"/api/v1/state/{scope}/k?of={of}")).json()["value"] == scope
        assert (await call("GET", f"/api/v1/state/{scope}/k?run_id=r")).json()["value"] == scope
    denied = await itself("GET", "/api/v1/state/app/k")
    assert (denied.status, denied.json()["code"]) == (403, "not_permitted")
    assert (await itself("GET", "/api/v1/state/user/k?of=ben")).status == 400
    assert (await itself("GET", "/api/v1/state/user/k?run_id=other")).status == 404
    assert (await call("POST", "/api/v1/runs/r/finish", {})).status == 200
    for method, path in (("GET", "run/k?of=r"), ("GET", "run/k?run_id=r"), ("PUT", "user/k?run_id=r")):
        late = await call(method, f"/api/v1/state/{path}", *([{"value": 1}] if method == "PUT" else []))
        assert late.status in {403, 404}, late.json()
    assert (await itself("GET", "/api/v1/state/user/k")).status == 401


async def test_whoever_follows_a_run_hears_what_it_sets(call: Client, site: Site, hub: Alcove, own: str) -> None:
    run = await registered(call, run_id="r", session_id=own, grant={"state": ["session"]})
    itself = bearing(site, run["token"])
    first = (await itself("PUT", "/api/v1/state/conversation/k", {"value": "secret"})).json()["version"]
    second = (await call("PUT", "/api/v1/state/session/k?run_id=r", {"value": 2})).json()["version"]
    await itself("DELETE", "/api/v1/state/session/k")
    await call("PUT", f"/api/v1/state/session/other?of={own}", {"value": "not the run's"})
    told = [event.data for event in await hub.events.read("r") if event.type == "state"]
    assert told == [
        {"scope": "session", "key": "k", "version": first},
        {"scope": "session", "key": "k", "version": second},
        {"scope": "session", "key": "k", "version": 0},
    ]


async def test_what_a_run_of_ours_sets_is_in_its_journal(call: Client, site: Site, hub: Alcove, own: str) -> None:
    go_on = asyncio.Event()

    async def slow(context: AgentContext) -> str:
        context.emit("before")
        await go_on.wait()
        return "done"

    hub.agents.register("slow", slow, declared=alcove.bound(state=["session"]))
    run = await hub.runs.start(own, "x", agent="slow")
    itself = Client(App(site, RunGate(own, run.id, "token")), {"authorization": "Bearer token"})

    async def told() -> bool:
        return "output" in [event.type for event in await hub.events.read(run.id)]

    await wait_until(told)
    assert (await itself("PUT", "/api/v1/state/session/k", {"value": 1})).status == 200
    go_on.set()
    await hub.runs.reply(run.id)
    events = await hub.events.read(run.id)
    assert [event.type for event in events if event.type != "files"] == [
        "run.queued",
        "message",
        "run.started",
        "output",
        "state",
        "message",
        "run.finished",
    ]
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    await hub.runs.note_state(run.id, "session", "late", 1)
    assert await hub.events.read(run.id) == events


async def test_a_denied_scope_is_audited(call: Client, site: Site, hub: Alcove, own: str) -> None:
    run = await registered(call, run_id="r", session_id=own, grant={"state": []})
    assert (await bearing(site, run["token"])("GET", "/api/v1/state/session/k")).status == 403
    await hub.audit.flush(everything=True)
    [row] = (await hub.audit.list(AuditFilters(act="check.denied"))).rows
    assert row.chained.code in {"unknown_type", "unknown_id"}


async def test_each_binding_of_an_agent_has_state_of_its_own(call: Client, site: Site, own: str) -> None:
    for number in ("1", "2"):
        grant = {"state": ["agent"], "context": {"binding": number}}
        run = await registered(call, run_id=f"r{number}", session_id=None, grant=grant)
        itself = bearing(site, run["token"])
        made = await itself("PUT", "/api/v1/state/runner/k", {"value": number}, headers={"if-none-match": "*"})
        assert (made.status, made.json()["of"]) == (200, f"runner/{number}")


async def test_a_purged_session_takes_its_values_along(call: Client, hub: Alcove, own: str) -> None:
    await call("PUT", f"/api/v1/state/session/k?of={own}", {"value": 1})
    await call("PUT", f"/api/v1/state/user/k?of={own}", {"value": 2})
    assert (await call("DELETE", f"/api/v1/sessions/{own}?purge=true")).status in {200, 204}
    assert (await call("GET", f"/api/v1/state/session/k?of={own}")).status == 404
    assert await hub.database.write(_count) == 1


def _count(now: int) -> Any:
    from alcove.database.op import Statement

    [[count]] = yield Statement("SELECT COUNT(*) FROM state_values")
    return count
