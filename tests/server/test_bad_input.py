"""What clients get wrong: each has its status, a problem that says what to do, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from alcove import errors, limits
from alcove.errors import AlcoveError
from alcove.hub import Alcove
from alcove.server.problems import STATUSES, status_of
from server.asgi import Answer, Client

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AlcoveError)]


def _problem(answer: Answer, status: int, code: str = "") -> dict[str, Any]:
    told = answer.json()
    assert answer.status == told["status"] == status, told
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == told["request_id"]
    assert told["type"] == f"urn:alcove:problem:{told['code']}"
    assert code in {"", told["code"]}
    assert told["title"]
    assert told["detail"]
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_a_status(kind: type[AlcoveError]) -> None:
    assert 400 <= status_of(kind) < 600
    if issubclass(kind, errors.DatabaseError | errors.SandboxError):
        assert status_of(kind) >= 500


def test_what_is_the_callers_fault_says_so() -> None:
    assert STATUSES[errors.InvalidError] == 400
    assert STATUSES[errors.IdempotencyError] == 422


IMPOSSIBLE = [
    "..%2fx", "%2e%2e", "%2e%2e%2fx", "%252e%252e", "a%2fb", "%2e", "x" * 300, "a%00b", "%e2%80%a5", "%ef%bc%8e", "%ff",
    "-a", "_", "C:", "a%5cb", "%0a", "a%20", "a;b", "%23",
]  # fmt: skip


@pytest.mark.parametrize("segment", IMPOSSIBLE)
@pytest.mark.parametrize(
    ("method", "tail"),
    [("GET", ""), ("GET", "/files"), ("DELETE", ""), ("DELETE", "?purge=true"), ("GET", "/tree"), ("POST", "/touch")],
)
async def test_an_impossible_id_is_not_found(call: Client, segment: str, method: str, tail: str) -> None:
    _problem(await call(method, f"/api/v1/sessions/{segment}{tail}"), 404, "session_not_found")


@pytest.mark.parametrize("path", ["/api/v1/sessions/../x", "/api/v1/sessions/a/b", "/api/v1/sessions/", "/x", "//", ""])
async def test_a_path_that_is_none_is_not_found(call: Client, path: str) -> None:
    _problem(await call("GET", path), 404)


@pytest.mark.parametrize("session_id", ["../x", "a/b", ".", "..", "x" * 300, "a\0b", "\u2024\u2024", "", "-x", " a"])
async def test_an_impossible_id_is_not_made(call: Client, session_id: str) -> None:
    told = _problem(await call("POST", "/api/v1/sessions", {"session_id": session_id}), 400, "invalid")
    assert told["field"] == "session_id"
    assert told["remedy"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/v1/sessions", {"colour": "red"}, "colour"),
        ("/api/v1/sessions", {"metadata": []}, "metadata"),
        ("/api/v1/sessions", {"title": 5}, "title"),
        ("/api/v1/sessions", {"ttl_s": -1}, "ttl_s"),
        ("/api/v1/sessions", [], "body"),
        ("/api/v1/sessions/{}/messages", {}, "messages"),
        ("/api/v1/sessions/{}/messages", {"messages": []}, "messages"),
        ("/api/v1/sessions/{}/messages", {"messages": [{"role": "king"}]}, "messages[0].role"),
        ("/api/v1/sessions/{}/messages", {"messages": [{"role": "user", "x": 1}]}, "messages[0].x"),
        ("/api/v1/sessions/{}/messages", {"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ("/api/v1/sessions/{}/messages/pop", {"count": 0}, "count"),
        ("/api/v1/chat", {"message": "a", "timeout_s": 0}, "timeout_s"),
    ],
)
async def test_a_wrong_body_names_the_field(call: Client, own: str, path: str, body: Any, field: str) -> None:
    assert _problem(await call("POST", path.format(own), body), 400, "invalid")["field"] == field


@pytest.mark.parametrize(
    ("query", "field"),
    [("colour=red", "colour"), ("limit=x", "limit"), ("limit=0", "limit"), ("limit=201", "limit"), ("limit=1&limit=2",
     "limit"), ("status=odd", "status"), ("cursor=%00", "cursor"), ("user_id=%ff", "query"), ("active_since=nan",
     "active_since"), ("active_since=1e300", "active_since"),
     ("metadata=5", "metadata"), ("metadata[n]=5", "metadata[n]"), ("limit.n=5", "limit.n")],
)  # fmt: skip
async def test_a_wrong_query_names_the_parameter(call: Client, query: str, field: str) -> None:
    assert _problem(await call("GET", f"/api/v1/sessions?{query}"), 400)["field"] == field


async def test_an_unknown_parameter_is_told_how_those_are_written_that_there_are(call: Client) -> None:
    remedy = _problem(await call("GET", "/api/v1/sessions?metadata=5"), 400)["remedy"]
    assert "metadata.NAME" in remedy.removeprefix("known: ").split(", ")
    assert "metadata" not in remedy.removeprefix("known: ").split(", ")


async def test_a_query_where_none_is_taken_is_refused(call: Client) -> None:
    assert _problem(await call("GET", "/health?x=1"), 400)["field"] == "x"


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"metadata":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"metadata":{"a":' + b"[" * 70 + b"]" * 70 + b"}}",
        b'{"title":"\\ud800"}',
        b'{"title":"\xff"}',
        b'{"title":',
        b"\x00",
        b'{"metadata":{"a":NaN}}',
    ],
)
async def test_json_that_is_none_or_too_deep_is_refused(call: Client, body: bytes) -> None:
    _problem(await call("POST", "/api/v1/sessions", body=body, headers=JSON), 400, "invalid")


async def test_many_brackets_are_not_deep(call: Client) -> None:
    metadata = {"flat": [[]] * 200, "text": "[[{" * 200 + '"\\'}
    assert (await call("POST", "/api/v1/sessions", {"metadata": metadata})).json()["metadata"] == metadata


async def test_a_form_is_not_json(call: Client) -> None:
    """A page may post forms and plain text anywhere without asking; JSON it may not."""
    for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = await call("POST", "/api/v1/sessions", body=b"{}", headers={"content-type": media})
        _problem(answer, 415, "unsupported_media_type")


async def test_a_long_body_is_refused_by_its_length(call: Client) -> None:
    headers = {**JSON, "content-length": str(100 * limits.MIB)}
    answer = await call("POST", "/api/v1/chat", body=[], headers=headers)
    _problem(answer, 413, "too_large")
    assert answer.headers["connection"] == "close"


async def test_a_long_body_is_refused_where_it_passes_the_limit(call: Client) -> None:
    pieces = [b" " * limits.MIB] * (limits.BODY_BYTES // limits.MIB + 1)
    answer = await call("POST", "/api/v1/chat", body=pieces, headers={**JSON, "transfer-encoding": "chunked"})
    assert _problem(answer, 413, "too_large")["limit"] == limits.BODY_BYTES


async def test_a_long_message_is_refused(call: Client, own: str) -> None:
    text = "x" * (limits.CHAT_BYTES + 1)
    _problem(await call("POST", "/api/v1/chat", {"message": text, "session_id": own}), 413)
    # A long text is an object of its own; what is beside it is not.
    messages = [{"role": "user", "content": "short", "metadata": {"long": text}}]
    _problem(await call("POST", f"/api/v1/sessions/{own}/messages", {"messages": messages}), 413)


async def test_a_slow_body_times_out(call: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(limits, "LINGER_S", 0.05)
    heard = [piece async for piece in call.stream("POST", "/api/v1/sessions", sends=False)]
    assert heard[0] == b"408"
    assert b'"request_timeout"' in heard[1]


async def test_another_method_is_told_which_there_are(call: Client, own: str) -> None:
    answer = await call("PUT", f"/api/v1/sessions/{own}")
    _problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PATCH"


async def test_head_is_get_without_a_body(call: Client, own: str) -> None:
    for path in (f"/api/v1/sessions/{own}", "/health", "/docs"):
        answer = await call("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")
    assert (await call("HEAD", "/api/v1/sessions/none")).body == b""


async def test_an_unforeseen_error_tells_nothing(
    call: Client, hub: Alcove, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise KeyError("/srv/secret/path")

    monkeypatch.setattr(hub.sessions, "create", fails)
    answer = await call("POST", "/api/v1/sessions", headers={"x-request-id": "r-1"})
    told = _problem(answer, 500, "internal")
    assert told["request_id"] == "r-1"
    assert b"secret" not in answer.body
    assert "/srv/secret/path" in caplog.text


@pytest.mark.parametrize("given", ["a b", "x" * 200, "a\x01", ""])
async def test_a_request_id_that_could_spoil_a_log_is_replaced(call: Client, given: str) -> None:
    answer = await call("GET", "/health", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] != given
