"""Keys from the command line: here, and on a server."""

from __future__ import annotations

import json

import pytest

from cli.conftest import Run


def test_a_key_is_made_listed_and_revoked_here(run: Run) -> None:
    run("key", "ls", exit_code=5)
    secret = run("key", "create").stdout.strip()
    assert secret.startswith("alcove_")
    options = ("--role", "user", "--user", "ana", "--label", "Ana", "--expires", "90d")
    made = run("key", "create", *options, "--json")
    key = json.loads(made.stdout)
    assert (key["role"], key["user_id"], key["expires_at"] - key["created_at"]) == ("user", "ana", 90 * 86400)
    listed = run("key", "ls").stdout
    assert [line.split("\t")[1:5] for line in listed.splitlines()] == [
        ["user", "default", "ana", "active"],
        ["service", "default", "-", "active"],
    ]
    assert secret not in listed
    assert run("key", "revoke", key["key_id"]).stdout.strip() == key["key_id"]
    assert run("key", "ls").stdout.splitlines()[0].split("\t")[4] == "revoked"
    run("key", "revoke", "nothing", exit_code=5)


def test_a_server_wants_a_key_once_there_is_one(run: Run, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run("list", "--url", server)
    secret = run("key", "create", "--role", "admin").stdout.strip()
    user = run("key", "create", "--role", "user", "--user", "ana").stdout.strip()
    monkeypatch.setattr("alcove.limits.DECISION_S", 0.0)
    assert "alcove key create" in run("list", "--url", server, exit_code=4).stderr
    run("list", "--url", server, "--api-key", secret)
    assert "role" in run("key", "ls", "--url", server, "--api-key", user, exit_code=4).stderr
    monkeypatch.setenv("ALCOVE_URL", server)
    monkeypatch.setenv("ALCOVE_KEY", secret)
    there = json.loads(run("key", "create", "--role", "user", "--user", "bob", "--json").stdout)
    assert there["secret"].startswith("alcove_")
    keys = json.loads(run("key", "ls", "--json").stdout)["keys"]
    assert [key["user_id"] for key in keys] == ["bob", "ana", ""]
    run("key", "revoke", there["key_id"])
    run("list", "--api-key", there["secret"], exit_code=4)


@pytest.mark.parametrize("wrong", [["--role", "root"], ["--role", "user"], ["--user", "ana"], ["--expires", "1y"]])
def test_a_key_that_cannot_be_is_refused(run: Run, wrong: list[str]) -> None:
    result = run("key", "create", *wrong, exit_code=2)
    assert "error" in result.stderr.lower()
