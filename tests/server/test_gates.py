"""Who may call: no page of another origin, no other name, and a run only with its token, for its own session."""

from __future__ import annotations

import re

import pytest

from alcove.server.app import App
from alcove.server.auth import RunGate
from alcove.server.call import Site
from alcove.server.route import Route
from alcove.server.routes import ROUTES
from server.asgi import Client
from server.conftest import Agents


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080", "alcove.example.org"])
async def test_our_own_names_are_served(call: Client, host: str) -> None:
    assert (await call("GET", "/api/v1/sessions", headers={"host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:8080", "localhost.evil.test", "127.0.0.1.evil.test", "", "::1", "localhost:x"]
)
async def test_another_name_is_refused(call: Client, host: str) -> None:
    """DNS rebinding: a page makes its own name point to this machine, and its browser sends that name."""
    for path in ("/api/v1/sessions", "/health", "/nothing"):
        assert (await call("GET", path, headers={"host": host})).status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.test"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://localhost.evil.test"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_foreign_page_is_refused(call: Client, headers: dict[str, str], method: str) -> None:
    answer = await call(method, "/api/v1/sessions", headers=headers)
    assert (answer.status, answer.json()["code"]) == (403, "forbidden")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert (await call("GET", "/api/v1/sessions")).json()["sessions"] == []


@pytest.mark.parametrize("headers", [{"origin": "http://localhost"}, {"sec-fetch-site": "same-origin"}, {}])
async def test_our_own_page_is_served(call: Client, headers: dict[str, str]) -> None:
    assert (await call("POST", "/api/v1/sessions", headers=headers)).status == 201


async def test_a_link_to_the_documentation_may_be_followed(call: Client) -> None:
    assert (await call("GET", "/docs", headers={"sec-fetch-site": "cross-site"})).status == 200


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer x", "Basic s3cret", "s3cret", "Bearer s3cret2"])
async def test_a_run_without_its_token_is_refused(site: Site, own: str, given: str | None) -> None:
    stranger = Client(App(site, RunGate(own, "run-1", "s3cret")), {} if given is None else {"authorization": given})
    for path in (f"/api/v1/sessions/{own}", "/health", "/nothing"):
        answer = await stranger("GET", path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_run_reads_its_own_session(as_run: Client, own: str) -> None:
    shown = await as_run("GET", f"/api/v1/sessions/{own}")
    assert shown.status == 200
    assert "absolute_work_directory" not in shown.json()
    for path in ("messages", "window", "turns", "files", "summary", "runs"):
        assert (await as_run("GET", f"/api/v1/sessions/{own}/{path}")).status == 200


async def test_another_session_is_for_a_run_like_none(as_run: Client, call: Client) -> None:
    other = (await call("POST", "/api/v1/sessions", {"session_id": "other"})).json()["session_id"]
    for path in ("", "/messages", "/files", "/files/a.txt", "/runs"):
        there = await as_run("GET", f"/api/v1/sessions/{other}{path}", headers={"x-request-id": "r"})
        never = await as_run("GET", f"/api/v1/sessions/never{path}", headers={"x-request-id": "r"})
        assert there.status == never.status == 404
        assert there.body == never.body.replace(b"never", b"other")
        assert there.headers == never.headers
        assert (await call("GET", f"/api/v1/sessions/{other}{path}")).status in {200, 404}


async def test_another_sessions_run_is_for_a_run_like_none(as_run: Client, call: Client, agents: Agents) -> None:
    other = (await call("POST", "/api/v1/chat", {"message": "hi", "agent": "echo"})).json()["run_id"]
    for path in ("", "/events"):
        there = await as_run("GET", f"/api/v1/runs/{other}{path}", headers={"x-request-id": "r"})
        never = await as_run("GET", f"/api/v1/runs/{'0' * len(other)}{path}", headers={"x-request-id": "r"})
        assert (there.status, never.status) == (404, 404)
        assert there.body.replace(other.encode(), b"") == never.body.replace(b"0" * len(other), b"")
        assert (await call("GET", f"/api/v1/runs/{other}{path}")).status == 200, "the control"


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.run], ids=repr)
async def test_a_run_may_call_nothing_else(as_run: Client, own: str, route: Route) -> None:
    path = re.sub(r"\{.*?\}", "a", route.path.replace("{session_id}", own))
    answer = await as_run(route.method, path, headers={"x-request-id": "r"})
    nowhere = await as_run("GET", "/nowhere", headers={"x-request-id": "r"})
    assert (answer.status, answer.body) == (nowhere.status, nowhere.body)
