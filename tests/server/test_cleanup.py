"""`/cleanup`: a preview unless it is told otherwise."""

from __future__ import annotations

import pytest

from alcove.hub import Alcove
from alcove.testing.rows import idle
from server.asgi import Client


async def test_a_clean_up_is_a_preview_unless_it_is_told_otherwise(call: Client, hub: Alcove) -> None:
    session = await hub.sessions.create(ttl_s=60)
    await idle(hub.database, session.id, 3600)
    for body in ({}, {"what": "expired"}, {"what": "old", "older_than_s": 60}):
        shown = (await call("POST", "/api/v1/cleanup", body)).json()
        assert shown["dry_run"] is True
        [group] = shown["cleaned"][0]["groups"]
        assert (group["session_id"], group["sessions"], group["trash_id"]) == (session.id, 1, None)
    assert (await call("GET", f"/api/v1/sessions/{session.id}")).json()["status"] == "expired"
    done = (await call("POST", "/api/v1/cleanup", {"dry_run": False})).json()
    assert [one["sessions"] for one in done["cleaned"]] == [1, 0]
    assert done["disks"][0]["holds"] == "base"
    assert (await call("GET", f"/api/v1/sessions/{session.id}")).status == 404
    assert (await call("POST", f"/api/v1/sessions/{session.id}/restore")).status == 200


async def test_a_clean_up_is_of_one_tenant_where_that_is_named(call: Client, hub: Alcove) -> None:
    for tenant in ("default", "rival"):
        await idle(hub.database, (await hub.sessions.create(session_id=tenant, tenant=tenant)).id, 7200)
    body = {"what": "empty", "tenant": "rival", "dry_run": False}
    [cleaned] = (await call("POST", "/api/v1/cleanup", body)).json()["cleaned"]
    assert [one["session_id"] for one in cleaned["groups"]] == ["rival"]
    [deed] = (await hub.sessions.deeds("rival", tenant="rival")).deeds
    assert (deed.why, deed.who) == ("empty", "local")


@pytest.mark.parametrize(
    "body",
    [
        {"what": "everything"},
        {"what": "old"},
        {"what": "old", "older_than_s": -1},
        {"what": "expired", "older_than_s": 1},
        {"limit": 0},
        {"dry_run": "no"},
        {"really": True},
    ],
)
async def test_what_makes_no_sense_is_refused(call: Client, body: dict[str, object]) -> None:
    assert (await call("POST", "/api/v1/cleanup", body)).status == 400
