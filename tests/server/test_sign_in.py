"""Tokens of a provider over HTTP: who comes in, as whom, and who does not."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from alcove.audit.model import AuditFilters
from alcove.errors import ConfigurationError
from alcove.principals import oidc
from alcove.server import serving
from alcove.server.app import App
from alcove.server.auth import PortGate
from alcove.server.call import Site
from alcove.server.routes import ROUTES
from alcove.settings.loading import load
from server.asgi import Client

KEY = RSAKey.generate_key(2048, {"kid": "k", "use": "sig"})
TABLE = '[oidc]\nissuer = "https://id.example.org"\naudience = "alcove"\njwks = "keys.json"\nrole_claim = "role"\n'


def token(user: str, **claims: Any) -> str:
    said = {"iss": "https://id.example.org", "aud": "alcove", "sub": user, "exp": int(time.time()) + 600, **claims}
    return jwt.encode({"alg": "RS256", "kid": "k"}, said, KEY)


@pytest.fixture
def gate(site: Site, tmp_path: Path) -> PortGate:
    (tmp_path / "keys.json").write_text(json.dumps(KeySet([KEY]).as_dict(private=False)))
    (tmp_path / "alcove.toml").write_text(TABLE)
    provider = oidc.configured(load(tmp_path, {}), audit=site.hub.audit)
    return PortGate(site.hub.keys, tokens=site.hub.runs.of_token, provider=provider)


def bearing(site: Site, gate: PortGate, secret: str) -> Client:
    return Client(App(site, gate), {"authorization": f"Bearer {secret}"} if secret else {})


async def test_a_user_of_the_provider_has_its_own_sessions(site: Site, gate: PortGate) -> None:
    ana, ben = (bearing(site, gate, token(user)) for user in ("ana", "ben"))
    made = await ana("POST", "/api/v1/sessions")
    assert (made.status, made.json()["user_id"]) == (201, "ana")
    path = f"/api/v1/sessions/{made.json()['session_id']}"
    assert (await ana("GET", path)).status == 200
    foreign, unknown = await ben("GET", path), await ben("GET", "/api/v1/sessions/nobody")
    assert (
        (foreign.status, foreign.json()["code"])
        == (unknown.status, unknown.json()["code"])
        == (404, "session_not_found")
    )
    assert (await ben("POST", "/api/v1/sessions", {"user_id": "ana"})).status == 403
    assert (await ana("GET", "/api/v1/keys")).status == 403
    admin = bearing(site, gate, token("root", role="admin"))
    assert (await admin("GET", "/api/v1/keys")).status == 200


async def test_on_every_route_a_token_may_what_a_key_of_its_user_may(site: Site, gate: PortGate) -> None:
    """As somebody who sees nothing that is there, so that no route changes what the next one finds."""
    session = (await bearing(site, gate, token("ana"))("POST", "/api/v1/sessions")).json()["session_id"]
    run = (await site.hub.runs.register("host", session_id=session)).run.id
    issued = await site.hub.keys.create(role="user", user_id="ben")
    by_key, by_token = bearing(site, gate, issued.secret), bearing(site, gate, token("ben"))
    asked = 0
    for route in [route for route in ROUTES if not route.public and {"session_id", "run_id"} & set(route.parameters)]:
        known = {"session_id": session, "run_id": run, "path": "a.txt"}
        path = re.sub(r"\{(\w+)(\.\.\.)?\}", lambda found, known=known: known.get(found[1], "x"), route.path)
        told = [
            await one(route.method, path, {} if route.body else None, headers={"x-request-id": "r"}, leaves=True)
            for one in (by_key, by_token)
        ]
        assert told[0].status == told[1].status in {403, 404}, route
        assert told[0].body == told[1].body, route
        asked += 1
    assert asked > 60


async def test_where_there_is_a_provider_nobody_is_the_local_administrator(site: Site, gate: PortGate) -> None:
    assert (await bearing(site, gate, "")("GET", "/api/v1/sessions")).status == 401
    assert (await bearing(site, gate, "")("GET", "/health")).status == 200
    without = PortGate(site.hub.keys)
    assert (await bearing(site, without, "")("GET", "/api/v1/sessions")).status == 200, "the control"


async def test_a_token_that_is_not_taken_is_refused_as_a_key_is_and_audited(site: Site, gate: PortGate) -> None:
    wrong = [token("ana", aud="other"), token("ana", exp=1), token("ana", role="root"), token("ana")[:-8], "eyJ.e30.x"]
    answers = [await bearing(site, gate, one)("GET", "/api/v1/sessions") for one in wrong]
    assert {(one.status, one.json()["detail"]) for one in answers} == {(401, "this token is not taken")}
    issued = await site.hub.keys.create()
    assert (await bearing(site, gate, issued.secret)("GET", "/api/v1/sessions")).status == 200, "keys work beside it"
    await site.hub.audit.flush(everything=True)
    rows = (await site.hub.audit.list(AuditFilters(act="token.denied"))).rows
    assert sum(row.chained.times for row in rows) == len(wrong)


HOST_AGENT = '[agents.q]\ncommand = "true"\nnetwork = "host"\n'


def test_with_a_provider_the_server_starts_where_it_would_not_without(tmp_path: Path) -> None:
    """An agent that reaches the port would be the administrator there; it has no token."""
    (tmp_path / "keys.json").write_text(json.dumps(KeySet([KEY]).as_dict(private=False)))
    (tmp_path / "alcove.toml").write_text(HOST_AGENT + TABLE)
    with running(tmp_path) as server:
        assert answer(server, "") == 401
        assert answer(server, token("ana")) == 200
        assert answer(server, token("ana", aud="other")) == 401
    (tmp_path / "alcove.toml").write_text(HOST_AGENT)
    with pytest.raises(ConfigurationError, match="administrator"):
        asyncio.run(serving.serve(load(tmp_path, {"ALCOVE_PORT": "0"})))


@contextmanager
def running(folder: Path) -> Generator[int]:
    """Start `alcove serve` in a folder; yields its port."""
    env = {**os.environ, "ALCOVE_PORT": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-m", "alcove", "serve"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        found = re.search(r":(\d+)$", process.stdout.readline().strip())
        assert found
        yield int(found[1])
        process.terminate()


def answer(port: int, secret: str) -> int:
    """Return the status of a list of sessions."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/api/v1/sessions", headers={"Authorization": f"Bearer {secret}"} if secret else {})
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_provider_that_is_named_by_half_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "alcove.toml").write_text('[oidc]\nissuer = "https://id.example.org"\n')
    with pytest.raises(ConfigurationError, match=r"oidc\.audience"):
        oidc.configured(load(tmp_path, {}))
    (tmp_path / "alcove.toml").write_text('[oidc]\nisuer = "https://id.example.org"\n')
    with pytest.raises(ConfigurationError, match="isuer"):
        load(tmp_path, {})
    assert oidc.configured(load(tmp_path / "elsewhere", {})) is None
