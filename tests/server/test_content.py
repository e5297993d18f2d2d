"""Windows, large parts, repair and search over HTTP."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any
from urllib.parse import quote

import pytest

from alcove.hub import Alcove
from server.asgi import Client

AT = "/api/v1/sessions"


async def _append(call: Client, own: str, *messages: dict[str, Any]) -> dict[str, Any]:
    answer = await call("POST", f"{AT}/{own}/messages", {"messages": list(messages)})
    assert answer.status == 201, answer.body[:500]
    return answer.json()


async def test_an_image_of_ten_megabytes_goes_in_and_comes_back(call: Client, own: str) -> None:
    data = os.urandom(10 * 2**20)
    part = {"type": "image", "media_type": "image/png", "data": base64.b64encode(data).decode()}
    await _append(call, own, {"role": "user", "content": [part]})
    [found] = (await call("GET", f"{AT}/{own}/messages")).json()["messages"]
    assert found["content"] == [part]
    digest = hashlib.sha256(data).hexdigest()
    [listed] = (await call("GET", f"{AT}/{own}/messages?objects=reference")).json()["messages"]
    assert listed["content"] == [
        {"type": "image", "media_type": "image/png", "object": digest, "size_bytes": len(data)}
    ]
    answer = await call("GET", f"{AT}/{own}/objects/{digest}")
    assert (answer.status, answer.body == data) == (200, True)
    other = (await call("POST", AT, {})).json()["session_id"]
    assert (await call("GET", f"{AT}/{other}/objects/{digest}")).status == 404
    purged = await call("DELETE", f"{AT}/{own}?purge=true")
    assert purged.status == 204
    assert (await call("GET", f"{AT}/{other}/objects/{digest}")).status == 404


async def test_invalid_base64_is_refused_with_the_place(call: Client, own: str) -> None:
    content = [{"type": "text", "text": "see"}, {"type": "image", "data": "@@"}]
    answer = await call("POST", f"{AT}/{own}/messages", {"messages": [{"role": "user", "content": content}]})
    assert (answer.status, answer.json()["code"]) == (400, "invalid")
    assert answer.json()["field"] == "content[1].data"
    assert answer.json()["remedy"]


async def test_a_window_takes_bounds_and_a_form(call: Client, own: str) -> None:
    await _append(call, own, {"role": "system", "content": "be kind"})
    for i in range(20):
        await _append(call, own, {"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"})
    window = (await call("GET", f"{AT}/{own}/window?tokens=40")).json()
    assert window["tokens"] <= 40
    assert (window["estimated"], window["left_out"]) == (True, True)
    assert [one["role"] for one in window["messages"]][:2] == ["system", "user"]
    chat = (await call("GET", f"{AT}/{own}/window?rounds=1&format=chat")).json()
    assert chat["messages"] == []
    assert chat["prompt"]["messages"] == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "q19"},
        {"role": "assistant", "content": "a19"},
    ]
    claude = (await call("GET", f"{AT}/{own}/window?rounds=1&format=anthropic")).json()["prompt"]
    assert claude["system"] == "be kind"
    answer = await call("GET", f"{AT}/{own}/window?rounds=1&format=responses")
    assert len(answer.json()["prompt"]["input"]) == 3
    assert (await call("GET", f"{AT}/{own}/window?tokens=0")).status == 400
    assert (await call("GET", f"{AT}/{own}/window?tokens=1")).json()["code"] == "invalid"


async def test_messages_are_pinned(call: Client, own: str) -> None:
    await _append(call, own, {"role": "user", "content": "the plan"}, {"role": "user", "content": "now"})
    pinned = await call("PATCH", f"{AT}/{own}/messages/1", {"pinned": True})
    assert (pinned.status, pinned.json()["pinned"]) == (200, True)
    window = (await call("GET", f"{AT}/{own}/window?rounds=1")).json()["messages"]
    assert [one["seq"] for one in window] == [1, 2]
    await call("PATCH", f"{AT}/{own}/messages/1", {"pinned": False})
    assert len((await call("GET", f"{AT}/{own}/window?rounds=1")).json()["messages"]) == 1
    for seq in ("9", "x", "9" * 30):
        assert (await call("PATCH", f"{AT}/{own}/messages/{seq}", {"pinned": True})).status == 404


async def test_a_damaged_history_is_checked_and_repaired(call: Client, own: str) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    await _append(call, own, {"role": "user", "content": "look"}, {"role": "assistant", "tool_calls": calls})
    faults = (await call("GET", f"{AT}/{own}/check")).json()["faults"]
    assert [(one["kind"], one["seq"]) for one in faults] == [("orphan_call", 2)]
    assert (await call("POST", f"{AT}/{own}/repair")).json()["faults"] == faults
    assert (await call("GET", f"{AT}/{own}/check")).json()["faults"] == []
    assert (await call("GET", f"{AT}/{own}/window")).json()["messages"][-1]["repaired"]
    assert (await call("GET", f"{AT}/none/check")).status == 404


@pytest.mark.parametrize("query", ["天气", "weather", "weath*"])
async def test_messages_are_found(hub: Alcove, call: Client, own: str, query: str) -> None:
    await _append(call, own, {"role": "user", "content": "今天天气很好 nice weather"})
    await hub.search.catch_up()  # a search waits for it too, but not long, and a machine may be busy
    query = quote(query)
    answer = await call("GET", f"/api/v1/search?q={query}&session_id={own}")
    [hit] = answer.json()["hits"]
    assert (hit["session_id"], hit["seq"], hit["role"]) == (own, 1, "user")
    assert hit["marks"]
    assert answer.json()["behind"] == 0
    assert (await call("GET", f"/api/v1/search?q={query}&user_id=nobody")).json()["hits"] == []
    assert (await call("GET", "/api/v1/search?q=!")).status == 400
    assert (await call("GET", "/api/v1/search")).status == 400
