"""Dialogs over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from alcove.dialogs.loading import load
from alcove.hub import Alcove
from alcove.testing.contract.dialogs import ORDER, late
from server.asgi import Client, events, until

AT = "/api/v1/sessions/{}/dialog"


@pytest.fixture
async def at(call: Client, own: str) -> str:
    """Where the dialog of a session is that has begun one."""
    answer = await call("PUT", AT.format(own), {"definition": ORDER})
    assert (answer.status, answer.json()["state"], answer.json()["takes"]) == (201, "idle", ["photo"])
    return AT.format(own)


async def test_an_event_moves_the_dialog_and_stores_its_messages(call: Client, own: str, at: str) -> None:
    said = [{"role": "user", "content": "here"}, {"role": "assistant", "content": "where?"}]
    body = {"event": "photo", "slots": {"image": "i"}, "messages": said, "expected_version": 1}
    step = (await call("POST", f"{at}/events", body)).json()
    assert (step["before"], step["state"], step["slots"]) == ("idle", "waiting", {"image": "i"})
    assert (step["version"], step["first_seq"], step["last_seq"]) == (2, 1, 2)
    shown = (await call("GET", at)).json()
    assert (shown["name"], shown["state"], shown["takes"], shown["final"]) == (
        "order", "waiting", ["place", "gave_up"], False,
    )  # fmt: skip
    assert shown["due_at"] == pytest.approx(shown["changed_at"] + 600)
    assert (await call("GET", f"/api/v1/sessions/{own}")).json()["dialog_state"] == "waiting"
    steps = (await call("GET", f"{at}/events?after=1")).json()["steps"]
    assert steps == [step]


async def test_an_event_that_is_not_taken_names_those_that_are(call: Client, at: str) -> None:
    answer = await call("POST", f"{at}/events", {"event": "place", "slots": {"place": "here"}})
    problem = answer.json()
    assert (answer.status, problem["code"], problem["remedy"]) == (409, "event_refused", "it takes: photo")
    answer = await call("POST", f"{at}/events", {"event": "photo", "slots": {"image": 3}})
    assert (answer.status, answer.json()["field"]) == (400, "slots.image")
    answer = await call("POST", f"{at}/events", {"event": "photo", "slots": {"image": "i"}, "expected_version": 7})
    assert (answer.status, answer.json()["code"]) == (412, "version_mismatch")


async def test_a_repetition_gets_the_first_answer(call: Client, at: str) -> None:
    body = {"event": "photo", "slots": {"image": "i"}}
    first = await call("POST", f"{at}/events", body, headers={"idempotency-key": "k"})
    again = await call("POST", f"{at}/events", body, headers={"idempotency-key": "k"})
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    other = {"event": "photo", "slots": {"image": "other"}}
    assert (await call("POST", f"{at}/events", other, headers={"idempotency-key": "k"})).status == 422


async def test_a_timeout_is_seen_as_a_step(call: Client, hub: Alcove, own: str, at: str) -> None:
    await call("POST", f"{at}/events", {"event": "photo", "slots": {"image": "i", "who": "w"}})
    await late(hub.database, own)
    shown = (await call("GET", at)).json()
    assert (shown["state"], shown["slots"], shown["due_at"]) == ("idle", {"who": "w"}, None)
    last = (await call("GET", f"{at}/events")).json()["steps"][-1]
    assert (last["cause"], last["message"]) == ("timeout", "I stopped waiting.")


async def test_a_stream_tells_of_everything_and_resumes(call: Client, hub: Alcove, own: str, at: str) -> None:
    async def heard(count: int, path: str, headers: dict[str, str] | None = None) -> list[tuple[int, str, Any]]:
        found: list[tuple[int, str, Any]] = []
        stream = call.stream("GET", path, headers=headers)
        async for piece in stream:
            found += events(piece) if piece.startswith(b"id:") else []
            if len(found) == count:
                break
        await stream.aclose()
        return found

    async with asyncio.timeout(20):
        listener = asyncio.create_task(heard(3, f"{at}/stream"))
        await call("POST", f"{at}/events", {"event": "photo", "slots": {"image": "i"}})
        await late(hub.database, own)
        await hub.dialogs.fire_due()
        told = await listener
        assert [(n, type_, data["cause"]) for n, type_, data in told] == [
            (1, "state", "start"),
            (2, "state", "event"),
            (3, "state", "timeout"),
        ]
        assert told[2][2] == (await call("GET", f"{at}/events?after=2")).json()["steps"][0]
        assert await heard(1, f"{at}/stream?after=1") == told[1:2]
        assert await heard(1, f"{at}/stream?after=0", {"last-event-id": "2"}) == told[2:]
    assert (await call("GET", f"{at}/stream", headers={"last-event-id": "x"})).status == 400


async def test_timeouts_of_all_users_are_told_each_to_one(call: Client, hub: Alcove) -> None:
    heard: list[tuple[str, str, str]] = []

    async def listen() -> None:
        async for piece in call.stream("GET", "/api/v1/dialogs/timeouts?app=bot"):
            told = [data for _, _, data in events(piece)] if piece.startswith(b"id:") else []
            heard.extend((data["user_id"], data["key"], data["message"]) for data in told)

    async def wait_in_vain(user: str, app: str) -> None:
        session, _ = await hub.sessions.live(user, app=app)
        await hub.dialogs.start(session.id, load(ORDER))
        await session.step("photo", {"image": "i"})
        await late(hub.database, session.id)
        await hub.dialogs.fire(session.id)

    listeners = [asyncio.create_task(listen()) for _ in range(2)]
    for count, (user, app) in enumerate((("ana", "bot"), ("cy", ""), ("bo", "bot"), ("ana", "bot"))):
        await wait_in_vain(user, app)
        await until(lambda: len(heard) >= max(count, 1))  # noqa: B023 - it is waited for here
    assert heard == [(user, "", "I stopped waiting.") for user in ("ana", "bo", "ana")]
    for listener in listeners:
        listener.cancel()
    await asyncio.gather(*listeners, return_exceptions=True)


async def test_a_reset_keeps_the_history_unless_it_is_cleared(call: Client, own: str, at: str) -> None:
    said = [{"role": "user", "content": "here"}]
    await call("POST", f"{at}/events", {"event": "photo", "slots": {"image": "i"}, "messages": said})
    shown = (await call("POST", f"{at}/reset", {})).json()
    assert (shown["state"], shown["slots"]) == ("idle", {})
    assert len((await call("GET", f"/api/v1/sessions/{own}/messages")).json()["messages"]) == 1
    await call("POST", f"{at}/reset", {"clear": True})
    assert (await call("GET", f"/api/v1/sessions/{own}/messages")).json()["messages"] == []


async def test_free_form_is_asked_for_by_name(call: Client, own: str) -> None:
    at = AT.format(own)
    body: dict[str, Any] = {"name": "free-form", "state": "等图片", "slots": {"x": [None]}}
    answer = await call("PUT", at, body)
    assert (answer.status, answer.json()["state"], answer.json()["slots"]) == (201, "等图片", {"x": [None]})
    answer = await call("PUT", at, {**body, "state": "two", "expected_version": answer.json()["version"]})
    assert (answer.status, answer.json()["state"]) == (200, "two")
    assert (await call("POST", f"{at}/events", {"event": "photo"})).status == 409


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid"),
        ({"name": "a", "definition": ORDER}, 400, "invalid"),
        ({"name": "nothing"}, 404, "dialog_not_found"),
        ({"name": "free-form", "slots": {}}, 400, "invalid"),
        ({"definition": ORDER, "state": "done"}, 400, "invalid"),
        ({"definition": {**ORDER, "start": "idel"}}, 400, "definition_invalid"),
        ({"definition": {}}, 400, "definition_invalid"),
    ],
)
async def test_a_beginning_that_makes_no_sense_is_refused(
    call: Client, own: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await call("PUT", AT.format(own), body)
    assert (answer.status, answer.json()["code"]) == (status, code)
    for path in ("", "/stream", "/definition"):
        assert (await call("GET", AT.format(own) + path)).json()["code"] == "dialog_not_found"
    assert (await call("GET", AT.format("nobody"))).json()["code"] == "session_not_found"
