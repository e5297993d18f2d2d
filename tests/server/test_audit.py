"""What a server audits, and who may read it."""

from __future__ import annotations

import pytest

from alcove.audit.model import AuditFilters
from alcove.hub import Alcove
from alcove.server.app import App
from alcove.server.auth import PortGate, RunGate
from alcove.server.call import Site
from server.asgi import Client
from server.conftest import Agents


async def _denials(hub: Alcove) -> list[tuple[str, str, str, str]]:
    """Code, subject, who and path of each denial, oldest first."""
    await hub.audit.flush(everything=True)
    rows = (await hub.audit.list(AuditFilters(denied=True))).rows
    found = [(row.chained.code, row.words, row.told) for row in reversed(rows)]
    return [(code, words.subject, words.who, str(told.get("path", ""))) for code, words, told in found if words]


async def _holder(site: Site, role: str, **given: str) -> tuple[Client, str]:
    issued = await site.hub.keys.create(role=role, **given)  # pyright: ignore[reportArgumentType]
    client = Client(App(site, PortGate(site.hub.keys)), {"authorization": f"Bearer {issued.secret}"})
    return client, f"key:{issued.key.id}"


async def test_a_call_without_a_key_or_with_a_wrong_one_is_audited(site: Site, hub: Alcove) -> None:
    await hub.keys.create()
    stranger = App(site, PortGate(hub.keys))
    assert (await Client(stranger)("GET", "/api/v1/sessions")).status == 401
    assert (await Client(stranger, {"authorization": "Bearer x"})("GET", "/api/v1/keys")).status == 401
    assert await _denials(hub) == [
        ("unauthorized", "", "nobody", "/api/v1/sessions"),
        ("unauthorized", "", "nobody", "/api/v1/keys"),
    ]


async def test_a_key_that_was_revoked_is_audited_by_its_name(site: Site, hub: Alcove) -> None:
    client, name = await _holder(site, "user", user_id="ana")
    await hub.keys.revoke(name.removeprefix("key:"))
    assert (await client("GET", "/api/v1/sessions")).status == 401
    assert [one[:3] for one in await _denials(hub)] == [
        ("revoked", name, ""),
        ("unauthorized", "", "nobody"),
    ]


async def test_whoever_tries_every_door_hides_nobody_else(site: Site, hub: Alcove) -> None:
    user, name = await _holder(site, "user", user_id="ana")
    stranger = Client(App(site, PortGate(hub.keys)))
    for route in site.routes:
        await stranger(route.method, route.path.replace("...}", "}"))
    await user("POST", "/api/v1/keys", {})
    assert ("not_permitted", "", name, "/api/v1/keys") in await _denials(hub)


async def test_a_role_that_may_not_is_audited_by_name(site: Site, hub: Alcove) -> None:
    user, name = await _holder(site, "user", user_id="ana")
    assert (await user("POST", "/api/v1/keys", {})).status == 403
    assert await _denials(hub) == [("not_permitted", "", name, "/api/v1/keys")]


async def test_a_look_at_what_is_somebody_elses_is_audited_and_a_typing_error_is_not(
    site: Site, hub: Alcove, agents: Agents
) -> None:
    session = await hub.sessions.create(user_id="bob")
    run = await hub.runs.start(session.id, "hi", agent="echo")
    await hub.runs.reply(run.id)
    ana, name = await _holder(site, "user", user_id="ana")
    assert (await ana("GET", f"/api/v1/sessions/{session.id}")).status == 404
    assert (await ana("GET", f"/api/v1/runs/{run.id}")).status == 404
    assert (await ana("GET", "/api/v1/sessions/nothing")).status == 404
    assert [one[:3] for one in await _denials(hub)] == [
        ("foreign", f"session:{session.id}", name),
        ("foreign", f"run:{run.id}", name),
    ]


async def test_a_rate_that_is_passed_is_audited(site: Site, hub: Alcove) -> None:
    issued = await hub.keys.create(rate_per_s=1)
    client = Client(App(site, PortGate(hub.keys)), {"authorization": f"Bearer {issued.secret}"})
    while (await client("GET", "/api/v1/sessions")).status == 200:
        pass
    assert [one[0] for one in await _denials(hub)] == ["rate_limited"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [({"host": "evil.test"}, "misdirected"), ({"origin": "http://evil.test"}, "forbidden")],
)
async def test_a_page_of_another_origin_is_audited(
    call: Client, hub: Alcove, headers: dict[str, str], code: str
) -> None:
    await call("GET", "/api/v1/sessions", headers=headers)
    assert [one[0] for one in await _denials(hub)] == [code]


async def test_a_wrong_token_on_the_socket_of_a_run_is_audited(site: Site, hub: Alcove, own: str) -> None:
    socket = Client(App(site, RunGate(own, "run-1", "s3cret")), {"authorization": "Bearer wrong"})
    assert (await socket("GET", f"/api/v1/sessions/{own}")).status == 401
    assert [one[0] for one in await _denials(hub)] == ["unauthorized"]


async def test_a_denied_check_is_audited_with_what_was_asked(call: Client, hub: Alcove) -> None:
    made = (await call("POST", "/api/v1/runs", {"agent": "runner", "grant": {"resources": {"tool": ["a"]}}})).json()
    run = made["run_id"]
    asked = {"type": "tool", "id": "rm", "operation": "call", "caller": "plug-in"}
    for _ in range(3):
        assert not (await call("POST", f"/api/v1/runs/{run}/authorize", asked)).json()["allowed"]
    await hub.audit.flush(everything=True)
    [row] = (await call("GET", f"/api/v1/audit?outcome=denied&subject=run:{run}")).json()["rows"]
    assert (row["act"], row["code"], row["times"]) == ("check.denied", "unknown_id", 3)
    assert row["words"] == asked


async def test_what_is_done_is_audited_with_the_key_that_did_it(site: Site, hub: Alcove) -> None:
    admin, name = await _holder(site, "admin")
    made = (await admin("POST", "/api/v1/keys", {"label": "Ana's phone"})).json()
    await admin("DELETE", f"/api/v1/keys/{made['key_id']}")
    session = (await admin("POST", "/api/v1/sessions", {})).json()["session_id"]
    await admin("PUT", f"/api/v1/sessions/{session}/ceiling", {"storage": []})
    await admin("DELETE", f"/api/v1/sessions/{session}/ceiling")
    run = (await admin("POST", "/api/v1/runs", {"agent": "runner", "session_id": session})).json()["run_id"]
    await admin("POST", f"/api/v1/runs/{run}/narrow", {"storage": [], "reason": "too much"})
    await admin("POST", f"/api/v1/runs/{run}/revoke", {"reason": "enough"})
    await admin("DELETE", f"/api/v1/sessions/{session}")
    await admin("POST", f"/api/v1/sessions/{session}/restore", {})
    await admin("POST", "/api/v1/cleanup", {"what": "old", "older_than_s": 3600, "dry_run": False})
    await admin("POST", "/api/v1/cleanup", {"what": "old", "older_than_s": 3600})
    await admin("DELETE", f"/api/v1/sessions/{session}?purge=true")
    rows = (await admin("GET", f"/api/v1/audit?who={name}&limit=200")).json()["rows"]
    assert [row["act"] for row in reversed(rows)] == [
        "key.created",
        "key.revoked",
        "ceiling.set",
        "ceiling.removed",
        "grant.created",
        "grant.narrowed",
        "grant.revoked",
        "session.trashed",
        "session.restored",
        "cleanup.run",
        "session.trashed",
        "session.purged",
    ]
    assert (await admin("GET", "/api/v1/audit/verification")).json()["intact"]
    # What was in the session has lost its words with the purge; the rest has kept them.
    erased = {row["act"] for row in rows if row["erased"]}
    assert erased == {row["act"] for row in rows} - {"key.created", "key.revoked", "cleanup.run", "session.purged"}


async def test_only_an_administrator_reads_the_audit(site: Site) -> None:
    for role, given in (("service", {}), ("user", {"user_id": "ana"})):
        client, _ = await _holder(site, role, **given)
        for method, path in (
            ("GET", "audit"),
            ("GET", "audit/export"),
            ("GET", "audit/verification"),
            ("POST", "audit/erase"),
        ):
            body = {"user_id": "ana"} if method == "POST" else None
            assert (await client(method, f"/api/v1/{path}", body)).status == 403, (role, path)


async def test_words_are_erased_over_http(site: Site, hub: Alcove) -> None:
    admin, _ = await _holder(site, "admin")
    key = (await admin("POST", "/api/v1/keys", {"label": "Ana's phone"})).json()
    assert (await admin("POST", "/api/v1/audit/erase", {})).status == 400
    assert (await admin("POST", "/api/v1/audit/erase", {"subject": f"key:{key['key_id']}"})).json() == {"rows": 1}
    rows = (await admin("GET", f"/api/v1/audit?subject=key:{key['key_id']}")).json()["rows"]
    assert [(row["act"], row["erased"], row["words"]) for row in rows] == [("key.created", True, {})]
    assert (await admin("GET", "/api/v1/audit/verification")).json()["intact"]
    assert hub.audit.node == rows[0]["node"]


async def test_figures_tell_of_denials_that_wait(call: Client, hub: Alcove) -> None:
    hub.audit.denied("check.denied", "unknown_id", subject="run:r")
    figures = (await call("GET", "/metrics")).body.decode()
    assert "alcove_audit_waiting 1.0" in figures
    assert "alcove_audit_failing 0.0" in figures


async def test_pages_of_the_audit_lead_to_the_next(call: Client, hub: Alcove) -> None:
    for _ in range(5):
        await hub.sessions.delete((await hub.sessions.create()).id)
    first = (await call("GET", "/api/v1/audit?limit=3")).json()
    rest = (await call("GET", f"/api/v1/audit?limit=3&cursor={first['next_cursor']}")).json()
    assert [row["n"] for row in first["rows"] + rest["rows"]] == [5, 4, 3, 2, 1]
    assert rest["next_cursor"] is None
