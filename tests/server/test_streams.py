"""Streams: they resume from anywhere, and leaving one stops nothing."""

from __future__ import annotations

import asyncio

import pytest

from alcove import limits
from alcove.hub import Alcove
from alcove.server.call import Site
from server.asgi import Client, events, until
from server.conftest import Agents


async def _heard(call: Client, path: str, headers: dict[str, str] | None = None) -> bytes:
    return b"".join([piece async for piece in call.stream("GET", path, headers=headers)][1:])


@pytest.mark.usefixtures("agents")
async def test_a_stream_cut_after_any_event_goes_on_without_gap_or_repetition(call: Client, own: str) -> None:
    run = (await call("POST", "/api/v1/chat", {"message": "30", "agent": "counting", "session_id": own})).json()
    path = f"/api/v1/runs/{run['run_id']}/events"
    whole = events(await _heard(call, path))
    assert [n for n, _, _ in whole] == list(range(1, len(whole) + 1))
    for cut in range(1, len(whole)):
        by_header = events(await _heard(call, f"{path}?after=0", {"last-event-id": str(cut)}))
        by_query = events(await _heard(call, f"{path}?after={cut}"))
        assert by_header == by_query == whole[cut:]


async def test_a_listener_that_keeps_leaving_hears_everything_once(call: Client, agents: Agents, own: str) -> None:
    run = (await call("POST", f"/api/v1/sessions/{own}/runs", {"message": "200", "agent": "counting"})).json()
    heard: list[tuple[int, str, object]] = []
    while not heard or heard[-1][1] != "run.finished":
        after = heard[-1][0] if heard else 0
        stream = call.stream("GET", f"/api/v1/runs/{run['run_id']}/events?after={after}")
        async for piece in stream:
            if told := events(piece) if piece.startswith(b"id:") else []:
                heard += told
                break
        await stream.aclose()
    assert [n for n, _, _ in heard] == list(range(1, len(heard) + 1))
    said = "".join(str(data["text"]) for _, kind, data in heard if kind == "output" and isinstance(data, dict))
    assert said == "".join(f"{number}\n" for number in range(200))


async def test_leaving_a_stream_does_not_cancel_the_run(call: Client, agents: Agents, hub: Alcove, own: str) -> None:
    stream = call.stream("POST", "/api/v1/chat/stream", {"message": "hi", "agent": "slow", "session_id": own})
    async for piece in stream:
        if b"begun" in piece:
            break
    await stream.aclose()
    assert hub.runs.live_count == 1
    agents.go.set()
    await until(lambda: hub.runs.live_count == 0)
    [run] = (await call("GET", f"/api/v1/sessions/{own}/runs")).json()["runs"]
    assert run["status"] == "finished"


async def test_nothing_more_to_come_is_said_without_a_body(call: Client, agents: Agents, own: str) -> None:
    run = (await call("POST", "/api/v1/chat", {"message": "hi", "agent": "echo", "session_id": own})).json()
    path = f"/api/v1/runs/{run['run_id']}/events"
    last = events(await _heard(call, path))[-1][0]
    assert (await call("GET", path, headers={"last-event-id": str(last)})).status == 204
    assert (await call("GET", f"{path}?after=99999")).status == 204


@pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 30, ""])
async def test_an_id_that_no_event_has_is_refused(call: Client, agents: Agents, own: str, given: str) -> None:
    run = (await call("POST", "/api/v1/chat", {"message": "hi", "agent": "echo", "session_id": own})).json()
    answer = await call("GET", f"/api/v1/runs/{run['run_id']}/events", headers={"last-event-id": given})
    assert answer.status == 400


async def test_a_quiet_stream_keeps_its_heart_beating(
    call: Client, agents: Agents, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SSE_HEARTBEAT_S", 0.01)
    stream = call.stream("POST", "/api/v1/chat/stream", {"message": "hi", "agent": "slow", "session_id": own})
    beats = 0
    async for piece in stream:
        beats += piece.startswith(b":")
        if beats == 3:
            agents.go.set()
        if b"run.finished" in piece:
            break
    assert beats >= 3
    await stream.aclose()


async def test_a_stopping_server_ends_its_streams(call: Client, agents: Agents, site: Site, own: str) -> None:
    stream = call.stream("POST", "/api/v1/chat/stream", {"message": "hi", "agent": "slow", "session_id": own})
    async for piece in stream:
        if b"begun" in piece:
            site.stopping.set()
    async with asyncio.timeout(5):
        await stream.aclose()
    agents.go.set()


async def test_streams_are_counted(call: Client, agents: Agents, own: str) -> None:
    await call("POST", "/api/v1/chat/stream", {"message": "hi", "agent": "echo", "session_id": own})
    text = (await call("GET", "/metrics")).body.decode()
    assert "alcove_streams_open 0.0" in text
    assert 'alcove_http_requests_total{method="POST",route="/api/v1/chat/stream",status="200"} 1.0' in text
    assert "alcove_sessions 1.0" in text
