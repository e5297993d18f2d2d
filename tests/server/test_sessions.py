"""Sessions over HTTP, beyond the contract."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.asgi import Client


async def _ids(call: Client, query: str = "") -> list[str]:
    return [one["session_id"] for one in (await call("GET", f"/api/v1/sessions{query}")).json()["sessions"]]


async def test_sessions_are_filtered(call: Client) -> None:
    await call("POST", "/api/v1/sessions", {"session_id": "a", "user_id": "ana", "metadata": {"n": 5, "t": "5"}})
    await call("POST", "/api/v1/sessions", {"session_id": "b", "user_id": "bo", "app": "x", "metadata": {"n": 6}})
    await call("POST", "/api/v1/sessions/a/children", {"title": "child", "key": "k"})
    assert await _ids(call, "?user_id=bo") == ["b"]
    assert await _ids(call, "?app=x&user_id=bo") == ["b"]
    assert await _ids(call, "?metadata.n=5") == ["a"]
    assert await _ids(call, "?metadata.t=%225%22&metadata.n=5") == ["a"]
    assert await _ids(call, "?metadata.t=5") == []
    assert await _ids(call, "?metadata.')%20OR%201=1%20--=1") == []
    assert len(await _ids(call, "?root_id=a")) == 2
    assert await _ids(call, "?parent_id=&user_id=ana") == ["a"]
    assert await _ids(call, "?active_before=1") == []
    assert len(await _ids(call, "?active_since=1&status=active")) == 3
    assert [one["title"] for one in (await call("GET", "/api/v1/sessions/a/children")).json()["sessions"]] == ["child"]
    assert len((await call("GET", "/api/v1/sessions/a/tree")).json()["sessions"]) == 2


async def test_pages_follow_each_other(call: Client) -> None:
    made = [(await call("POST", "/api/v1/sessions")).json()["session_id"] for _ in range(5)]
    seen, cursor = [], ""
    while True:
        page = (await call("GET", f"/api/v1/sessions?limit=2{cursor}")).json()
        seen += [one["session_id"] for one in page["sessions"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == made[::-1]


async def test_a_patch_merges(call: Client, own: str) -> None:
    path = f"/api/v1/sessions/{own}"
    await call("PATCH", path, {"title": "one", "metadata": {"a": 1, "b": 2}})
    media = {"content-type": "application/merge-patch+json"}
    shown = (await call("PATCH", path, {"metadata": {"a": None}, "pinned": True, "ttl_s": None}, headers=media)).json()
    assert (shown["title"], shown["metadata"], shown["pinned"], shown["ttl_s"]) == ("one", {"b": 2}, True, None)
    assert shown["version"] == 3


@pytest.mark.parametrize("tag", ['"7"', "1", 'W/"1"', '"x"', '"1', ""])
async def test_a_patch_of_another_version_is_refused(call: Client, own: str, tag: str) -> None:
    answer = await call("PATCH", f"/api/v1/sessions/{own}", {"title": "x"}, headers={"if-match": tag})
    assert (answer.status, answer.json()["code"]) == (412, "version_mismatch")


async def test_of_two_patches_of_one_version_one_wins(call: Client, own: str) -> None:
    path, tag = f"/api/v1/sessions/{own}", (await call("GET", f"/api/v1/sessions/{own}")).headers["etag"]
    both = [call("PATCH", path, {"title": name}, headers={"if-match": tag}) for name in ("one", "two")]
    answers = await asyncio.gather(*both)
    assert sorted(answer.status for answer in answers) == [200, 412]
    [done] = [answer for answer in answers if answer.status == 200]
    assert done.headers["etag"] == '"2"'
    assert (await call("PATCH", path, {"title": "three"}, headers={"if-match": "*"})).status == 200


@pytest.mark.parametrize("query", ["", "?purge=true"])
async def test_a_session_that_has_changed_is_not_deleted(call: Client, own: str, query: str) -> None:
    path, tag = f"/api/v1/sessions/{own}", (await call("GET", f"/api/v1/sessions/{own}")).headers["etag"]
    assert (await call("PATCH", path, {"title": "changed"})).status == 200
    answer = await call("DELETE", path + query, headers={"if-match": tag})
    assert (answer.status, answer.json()["code"]) == (412, "version_mismatch")
    assert (await call("GET", path)).json()["title"] == "changed"
    assert (await call("DELETE", path + query, headers={"if-match": '"2"'})).status == 204
    assert (await call("GET", path)).status == 404


async def test_of_a_change_and_a_deletion_of_one_version_one_wins(call: Client, own: str) -> None:
    path, tag = f"/api/v1/sessions/{own}", (await call("GET", f"/api/v1/sessions/{own}")).headers["etag"]
    change = call("PATCH", path, {"title": "kept"}, headers={"if-match": tag})
    changed, deleted = await asyncio.gather(change, call("DELETE", path, headers={"if-match": tag}))
    assert (changed.status, deleted.status) in {(200, 412), (404, 204)}
    assert (await call("GET", path)).status == changed.status


async def test_what_is_in_the_trash_is_purged_at_its_version_only(call: Client, own: str) -> None:
    path = f"/api/v1/sessions/{own}"
    assert (await call("DELETE", path)).status == 204
    assert (await call("DELETE", f"{path}?purge=true", headers={"if-match": '"7"'})).status == 412
    assert (await call("DELETE", f"{path}?purge=true", headers={"if-match": '"1"'})).status == 204
    assert (await call("DELETE", f"{path}?purge=true", headers={"if-match": '"1"'})).status == 404


async def test_a_user_has_one_live_session(call: Client) -> None:
    answers = await asyncio.gather(*(call("PUT", "/api/v1/users/ana%40example.org/session") for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.json()["session_id"] for answer in answers}) == 1
    assert answers[0].json()["user_id"] == "ana@example.org"
    assert (await call("PUT", "/api/v1/users/ana%00/session")).status == 400
    await call("PUT", "/api/v1/users/bo/session", {"app": "bot"})
    counts = [(await call("GET", f"/api/v1/users{query}")).json() for query in ("", "?app=bot", "?app=")]
    assert counts == [{"active_count": 2}, {"active_count": 1}, {"active_count": 1}]


async def _ten(call: Client, path: str, body: Any) -> list[Any]:
    return await asyncio.gather(*(call("POST", path, body, headers={"idempotency-key": "k"}) for _ in range(10)))


def _is_one_answer(answers: list[Any], status: int) -> None:
    """Ten equal answers, nine of which say that they are repetitions."""
    assert [answer.status for answer in answers] == [status] * 10
    assert len({answer.body for answer in answers}) == 1
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count("true") == 9


async def test_a_session_is_created_once_per_key(call: Client) -> None:
    _is_one_answer(await _ten(call, "/api/v1/sessions", {"title": "x"}), 201)
    assert len(await _ids(call)) == 1
    other = await call("POST", "/api/v1/sessions", {"title": "y"}, headers={"idempotency-key": "k"})
    assert (other.status, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_a_child_is_created_once_per_key(call: Client, own: str) -> None:
    _is_one_answer(await _ten(call, f"/api/v1/sessions/{own}/children", {"title": "x"}), 201)
    assert len((await call("GET", f"/api/v1/sessions/{own}/children")).json()["sessions"]) == 1


async def test_messages_are_appended_once_per_key(call: Client, own: str) -> None:
    path = f"/api/v1/sessions/{own}/messages"
    _is_one_answer(await _ten(call, path, {"messages": [{"role": "user", "content": "hi"}], "expected_seq": 0}), 201)
    assert len((await call("GET", path)).json()["messages"]) == 1
    other = await call(
        "POST", path, {"messages": [{"role": "user", "content": "ho"}]}, headers={"idempotency-key": "k"}
    )
    assert other.status == 422


@pytest.mark.usefixtures("agents")
async def test_a_run_starts_once_per_key_and_a_late_repetition_is_answered_the_same(call: Client, own: str) -> None:
    path, body = f"/api/v1/sessions/{own}/runs", {"message": "hi", "agent": "echo"}
    answers = await _ten(call, path, body)
    _is_one_answer(answers, 202)
    run_id = answers[0].json()["run_id"]
    assert (await call("GET", f"/api/v1/runs/{run_id}/events")).status in {200, 204}
    late = await call("POST", path, body, headers={"idempotency-key": "k"})
    assert (late.body, late.headers["idempotent-replayed"]) == (answers[0].body, "true")
    assert (await call("GET", f"/api/v1/runs/{run_id}")).json()["status"] == "finished"


@pytest.mark.usefixtures("agents")
async def test_a_streamed_chat_runs_once_per_key(call: Client) -> None:
    _is_one_answer(await _ten(call, "/api/v1/chat/stream", {"message": "hi", "agent": "echo"}), 200)
    assert len((await call("GET", "/api/v1/runs")).json()["runs"]) == 1


@pytest.mark.usefixtures("agents")
async def test_a_chat_runs_once_per_key(call: Client) -> None:
    _is_one_answer(await _ten(call, "/api/v1/chat", {"message": "hi", "agent": "echo"}), 200)
    assert len((await call("GET", "/api/v1/runs")).json()["runs"]) == 1
    assert len(await _ids(call)) == 1
    other = {"message": "ho", "agent": "echo"}
    assert (await call("POST", "/api/v1/chat", other, headers={"idempotency-key": "k"})).status == 422
    # A key of the other route is another one.
    assert (await call("POST", "/api/v1/sessions", headers={"idempotency-key": "k"})).status == 201
    assert len(await _ids(call)) == 2


@pytest.mark.parametrize("key", ["", "k" * 300, "a\x01b"])
async def test_a_bad_key_is_refused(call: Client, key: str) -> None:
    assert (await call("POST", "/api/v1/sessions", headers={"idempotency-key": key})).status == 400


async def test_a_stale_append_is_refused(call: Client, own: str) -> None:
    path, said = f"/api/v1/sessions/{own}/messages", [{"role": "user", "content": "hi"}]
    assert (await call("POST", path, {"messages": said, "expected_seq": 0})).status == 201
    answer = await call("POST", path, {"messages": said, "expected_seq": 0})
    assert (answer.status, answer.json()["code"]) == (409, "stale_sequence")


async def test_messages_are_read_popped_and_cleared(call: Client, own: str) -> None:
    path = f"/api/v1/sessions/{own}"
    drafts: list[Any] = []
    for number in range(3):
        parts = [{"type": "text", "text": f"a{number}"}, {"type": "x", "y": 1}]
        drafts += [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": parts, "name": "bot"}]
    place = (await call("POST", f"{path}/messages", {"messages": drafts})).json()
    assert place == {"session_id": own, "first_seq": 1, "last_seq": 6, "turn": 3}
    page = (await call("GET", f"{path}/messages?limit=4")).json()
    assert ([one["seq"] for one in page["messages"]], page["next_after"]) == ([1, 2, 3, 4], 4)
    assert page["messages"][1]["content"][1] == {"type": "x", "y": 1}
    assert page["messages"][1]["name"] == "bot"
    back = (await call("GET", f"{path}/messages?before=3&limit=1")).json()
    assert [one["seq"] for one in back["messages"]] == [2]
    window = (await call("GET", f"{path}/window?rounds=1")).json()["messages"]
    assert [one["seq"] for one in window] == [5, 6]
    assert [one["number"] for one in (await call("GET", f"{path}/turns")).json()["turns"]] == [3, 2, 1]
    assert [one["seq"] for one in (await call("POST", f"{path}/messages/pop")).json()["messages"]] == [6]
    assert (await call("DELETE", f"{path}/messages")).json() == {"hidden": 5}
    assert (await call("GET", f"{path}/messages")).json()["messages"] == []
    assert len((await call("GET", f"{path}/messages?hidden=true")).json()["messages"]) == 6


async def test_a_summary_says_what_the_session_says(call: Client, own: str) -> None:
    session = (await call("GET", f"/api/v1/sessions/{own}")).json()
    summary = (await call("GET", f"/api/v1/sessions/{own}/summary")).json()
    assert summary == {name: session[name] for name in summary}
    assert summary["parent_id"] is None
    assert isinstance(summary["created_at"], float)


async def test_reading_what_is_not_there_is_not_found(call: Client) -> None:
    for tail in ("", "/messages", "/window", "/turns", "/files", "/files/a", "/runs", "/summary", "/children", "/tree"):
        assert (await call("GET", f"/api/v1/sessions/never{tail}")).status == 404
    for path in ("/api/v1/runs/never", "/api/v1/runs/never/events", "/api/v1/runs/..%2f"):
        assert (await call("GET", path)).status == 404


async def test_an_expired_session_is_readable_and_comes_back(call: Client) -> None:
    await call("POST", "/api/v1/sessions", {"session_id": "short", "ttl_s": 0.001})
    shown = (await call("GET", "/api/v1/sessions/short")).json()
    assert shown["status"] == "expired"
    body = {"messages": [{"role": "user", "content": "hi"}]}
    answer = await call("POST", "/api/v1/sessions/short/messages", body)
    assert (answer.status, answer.json()["code"]) == (409, "session_expired")
    await call("PATCH", "/api/v1/sessions/short", {"ttl_s": 3600})
    assert (await call("POST", "/api/v1/sessions/short/touch")).json()["status"] == "active"


async def test_what_is_there_to_run_is_told(call: Client, agents: object) -> None:
    told = {one["name"]: one for one in (await call("GET", "/api/v1/agents")).json()["agents"]}
    assert told["shell"]["default"] is True
    assert told["echo"]["kind"] == "function"
    isolation = (await call("GET", "/api/v1/isolation")).json()
    assert isolation["rung"] in {one["rung"] for one in isolation["rungs"]}
    assert isolation["missing"] == []
    assert isolation["limits"]["disk"] == "watch"
    assert isolation["limits"]["memory"]


async def test_what_was_deleted_comes_back(call: Client, own: str) -> None:
    path = f"/api/v1/sessions/{own}"
    await call("POST", f"{path}/children", {"title": "child"})
    receipt = (await call("DELETE", f"{path}?receipt=true")).json()
    [waiting] = (await call("GET", "/api/v1/trash")).json()["trashings"]
    assert (waiting["trash_id"], waiting["session_id"], waiting["sessions"]) == (receipt["trash_id"], own, 2)
    assert (waiting["why"], waiting["who"], waiting["step"]) == ("asked", "local", "kept")
    back = await call("POST", f"{path}/restore")
    assert (back.status, back.json()["sessions"], back.json()["keyless"]) == (200, receipt["sessions"], [])
    assert (await call("GET", path)).status == 200
    assert (await call("GET", "/api/v1/trash")).json() == {"trashings": [], "next_cursor": None}
    again = await call("POST", f"{path}/restore")
    assert (again.status, again.json()["code"]) == (409, "conflict")
    assert (await call("POST", "/api/v1/sessions/nobody/restore")).status == 404


async def test_a_key_that_was_taken_is_a_conflict_with_a_remedy(call: Client) -> None:
    await call("POST", "/api/v1/sessions", {"session_id": "a", "key": "k"})
    await call("DELETE", "/api/v1/sessions/a")
    await call("POST", "/api/v1/sessions", {"session_id": "b", "key": "k"})
    refused = await call("POST", "/api/v1/sessions/a/restore")
    assert (refused.status, refused.json()["field"]) == (409, "key")
    assert "without_keys" in refused.json()["remedy"]
    assert (await call("POST", "/api/v1/sessions/a/restore", {"without_keys": True})).json()["keyless"] == ["a"]


async def test_the_log_stays_when_the_session_is_gone(call: Client, own: str) -> None:
    await call("POST", f"/api/v1/sessions/{own}/messages", {"messages": [{"role": "user", "content": "a"}]})
    await call("DELETE", f"/api/v1/sessions/{own}?purge=true")
    deeds = (await call("GET", f"/api/v1/deeds?session_id={own}")).json()["deeds"]
    assert {(one["what"], one["why"], one["who"]) for one in deeds} == {
        ("trashed", "asked", "local"),
        ("purged", "asked", "local"),
    }
    [removed] = [one["removed"] for one in deeds if one["removed"]]
    assert removed["messages"] == 1
    assert (await call("GET", "/api/v1/deeds?session_id=nobody")).json() == {"deeds": [], "next_cursor": None}


async def test_a_lifetime_is_given_shown_and_taken_back(call: Client) -> None:
    made = (await call("POST", "/api/v1/sessions", {"lifetime_s": 60, "ttl_s": None})).json()
    assert made["ends_at"] == made["expires_at"] == pytest.approx(made["created_at"] + 60)
    path = f"/api/v1/sessions/{made['session_id']}"
    shown = (await call("PATCH", path, {"lifetime_s": None})).json()
    assert (shown["ends_at"], shown["expires_at"]) == (None, None)
    assert (await call("PATCH", path, {"lifetime_s": 0})).status == 400
