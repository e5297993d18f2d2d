"""The shapes that existing clients rely on: fields may be added, none may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alcove.hub import Alcove
from server.asgi import Client, events
from server.conftest import Agents

SESSION = {"session_id": str, "created_at": float, "last_activity": float, "message_count": int, "turn_count": int}
FOLDER = {"work_directory": str, "absolute_work_directory": str}
FILE = {"name": str, "path": str, "size": int, "modified_time": float}
CHAT = {"session_id": str, "response": str, "run_id": str, "status": str, "exit_code": type(None)}


def _has(shown: dict[str, Any], shape: dict[str, type]) -> None:
    assert {name: type(shown[name]) for name in shape} == shape


async def test_a_session_is_created_with_its_folder(call: Client, tmp_path: Path) -> None:
    answer = await call("POST", "/api/v1/sessions")
    assert answer.status == 201
    _has(answer.json(), SESSION)
    assert (tmp_path / "sessions" / answer.json()["session_id"]).is_dir()
    assert answer.headers["location"] == f"/api/v1/sessions/{answer.json()['session_id']}"


async def test_a_session_is_shown(call: Client, own: str, tmp_path: Path) -> None:
    answer = await call("GET", f"/api/v1/sessions/{own}")
    assert answer.status == 200
    _has(answer.json(), SESSION | FOLDER)
    assert answer.json()["work_directory"] == own
    assert answer.json()["absolute_work_directory"] == str(tmp_path / "sessions" / own)


async def test_files_are_listed_recursively(call: Client, own: str) -> None:
    await call("PUT", f"/api/v1/sessions/{own}/files/notes/today.txt", body=b"hello")
    shown = (await call("GET", f"/api/v1/sessions/{own}/files")).json()
    _has(shown, {"session_id": str, **FOLDER, "files": list, "file_count": int})
    [file] = shown["files"]
    _has(file, FILE)
    assert (file["name"], file["path"], file["size"], shown["file_count"]) == ("today.txt", "notes/today.txt", 5, 1)


async def test_a_deleted_session_is_gone(call: Client, own: str, tmp_path: Path) -> None:
    answer = await call("DELETE", f"/api/v1/sessions/{own}")
    assert (answer.status, answer.body) == (204, b"")
    assert (await call("GET", f"/api/v1/sessions/{own}")).status == 404
    assert not (tmp_path / "sessions" / own).exists()
    assert (await call("DELETE", f"/api/v1/sessions/{own}?purge=true")).status == 204
    assert (await call("DELETE", f"/api/v1/sessions/{own}?purge=true")).status == 404


@pytest.mark.usefixtures("agents")
async def test_a_chat_without_a_session_makes_one(call: Client) -> None:
    answer = await call("POST", "/api/v1/chat", {"message": "hi", "agent": "echo"})
    assert answer.status == 200
    _has(answer.json(), CHAT)
    assert (answer.json()["response"], answer.json()["status"]) == ("you said: hi", "finished")
    session = (await call("GET", f"/api/v1/sessions/{answer.json()['session_id']}")).json()
    assert (session["message_count"], session["turn_count"], session["run_id"]) == (2, 1, None)


@pytest.mark.usefixtures("agents")
async def test_a_chat_streams_the_same(call: Client, own: str) -> None:
    heard = [piece async for piece in call.stream("POST", "/api/v1/chat/stream", {"message": "hi", "agent": "echo"})]
    assert heard[:2] == [b"200", b"retry: 2000\n\n"]
    told = events(b"".join(heard[1:]))
    assert [n for n, _, _ in told] == list(range(1, len(told) + 1))
    assert [kind for _, kind, _ in told][:: len(told) - 1] == ["run.queued", "run.finished"]
    assert told[-1][2]["status"] == "finished"


@pytest.mark.usefixtures("agents")
async def test_the_status_tells_how_the_run_ended(call: Client, own: str) -> None:
    failed = await call("POST", "/api/v1/chat", {"message": "hi", "agent": "broken", "session_id": own})
    assert (failed.status, failed.json()["status"]) == (502, "failed")
    assert "cannot think" in failed.json()["error"]
    late = await call("POST", "/api/v1/chat", {"message": "x", "agent": "slow", "session_id": own, "timeout_s": 0.05})
    assert (late.status, late.json()["status"]) == (504, "timed_out")
    _has(late.json(), CHAT)


async def test_programs_answer_with_their_exit_code(call: Client, own: str) -> None:
    answer = await call("POST", "/api/v1/chat", {"message": "echo hello > a.txt; cat a.txt; exit 3", "session_id": own})
    assert answer.status == 200
    assert (answer.json()["response"], answer.json()["exit_code"]) == ("hello", 3)
    assert (await call("GET", f"/api/v1/sessions/{own}/files/a.txt")).body == b"hello\n"


@pytest.mark.parametrize("message", ["-n", "/quit", "--help"])
async def test_a_message_is_never_taken_for_a_flag(call: Client, agents: Agents, own: str, message: str) -> None:
    answer = await call("POST", "/api/v1/chat", {"message": message, "agent": "echo", "session_id": own})
    assert answer.json()["response"] == f"you said: {message}"
    assert (await call("POST", "/api/v1/chat", {"message": message, "session_id": own})).status == 200


@pytest.mark.parametrize("body", [{}, {"message": ""}, {"message": " \n"}, {"message": 1}, {"message": "a", "x": 1}])
async def test_a_chat_needs_a_message(call: Client, body: dict[str, Any]) -> None:
    answer = await call("POST", "/api/v1/chat", body)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert (await call("GET", "/api/v1/sessions")).json()["sessions"] == [], "nothing half-made"


async def test_a_chat_with_nobody_makes_nothing(call: Client) -> None:
    assert (await call("POST", "/api/v1/chat", {"message": "hi", "agent": "nobody"})).status == 404
    assert (await call("POST", "/api/v1/chat", {"message": "hi", "session_id": "none"})).status == 404
    assert (await call("GET", "/api/v1/sessions")).json()["sessions"] == []


async def test_a_busy_session_says_who_holds_it(call: Client, agents: Agents, own: str) -> None:
    run = (await call("POST", f"/api/v1/sessions/{own}/runs", {"message": "hi", "agent": "slow"})).json()
    answer = await call("POST", "/api/v1/chat", {"message": "hi", "agent": "echo", "session_id": own})
    assert answer.status == 409
    assert answer.json()["details"]["run_id"] == run["run_id"]
    assert answer.headers["retry-after"] == "1"
    cancelled = await call("POST", f"/api/v1/runs/{run['run_id']}/cancel")
    assert (cancelled.status, cancelled.json()["status"]) == (200, "cancelled")
    assert (await call("POST", "/api/v1/chat", {"message": "hi", "agent": "echo", "session_id": own})).status == 200


async def test_the_server_says_that_it_is_well(call: Client, hub: Alcove) -> None:
    assert (await call("GET", "/health")).json()["status"] == "healthy"
    assert (await call("GET", "/livez")).status == 200
    assert (await call("GET", "/readyz")).json()["status"] == "ready"
    await hub.database.close()
    answer = await call("GET", "/readyz")
    assert (answer.status, answer.json()["code"]) == (503, "not_ready")
    assert (await call("GET", "/health")).status == 200
