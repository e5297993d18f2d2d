"""A program fills the disk that everything lies on, in the middle of a chat; the disk is a tmpfs of the test."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from runs.world import new_place

PROGRAM = """
import asyncio, ctypes, os, sys
from contextlib import suppress
from pathlib import Path

from alcove import limits

limits.LEASE_S, limits.LEASE_RENEW_S = 2, 0.2
limits.LOG_ROOM_PAGES = 0  # what the log has room for succeeds on a full disk

import alcove.hub
from alcove.server.app import App
from alcove.server.auth import PortGate
from alcove.server.call import Site
from alcove.server.routes import ROUTES
from alcove.settings.loading import load
from alcove.telemetry.metrics import Metrics
from server.asgi import Client

top = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(b"tmpfs", top.encode(), b"tmpfs", 0, b"size=12m,mode=0755") == 0
os.chdir(top)
FILL = "head -c 50M /dev/zero > fill; echo filled"


async def refused(call, method, path, body=None):
    answer = await call(method, path, body)
    assert (answer.status, answer.json()["code"]) == (507, "database_full"), (path, answer)
    assert "free some space" in answer.json()["remedy"]


async def whole(call, session_id):
    "Every message is there once and in order, and every turn has ended."
    messages = (await call("GET", f"/api/v1/sessions/{session_id}/messages")).json()["messages"]
    assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
    turns = (await call("GET", f"/api/v1/sessions/{session_id}/turns")).json()["turns"]
    assert "open" not in [turn["status"] for turn in turns]
    return messages, turns


async def main():
    async with alcove.hub.open(settings=load(Path(top), {})) as hub:
        site = Site(hub=hub, routes=ROUTES, metrics=Metrics(), stopping=asyncio.Event())
        call = Client(App(site, PortGate(hub.keys, [])))
        one, other = [(await call("POST", "/api/v1/sessions")).json()["session_id"] for _ in range(2)]
        fill = Path(top, "sessions", one, "fill")

        # Before the first run nothing has been proven of the sandbox yet, and there is no room for the proof.
        with suppress(OSError), fill.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        answer = await call("POST", "/api/v1/chat", {"session_id": one, "message": "echo no"})
        assert (answer.status, answer.json()["code"]) == (500, "launch_failed"), answer
        assert "full disk" in answer.json()["remedy"]
        fill.unlink()

        async def chat(session_id, message):
            return await call("POST", "/api/v1/chat", {"session_id": session_id, "message": message})

        async def append():
            said = {"messages": [{"role": "user", "content": "x" * 20_000}]}
            return await call("POST", f"/api/v1/sessions/{other}/messages", said)

        assert (await chat(one, "echo before")).json()["response"] == "before"
        chatting = asyncio.create_task(chat(one, FILL))
        appended = 0
        while (answer := await append()).status == 201:
            appended += 1
            await asyncio.sleep(0.01)
        assert (answer.status, answer.json()["code"]) == (507, "database_full"), answer
        await refused(call, "POST", "/api/v1/chat", {"session_id": other, "message": "echo hi"})
        await refused(call, "POST", "/api/v1/sessions")
        assert (await call("GET", f"/api/v1/sessions/{other}")).json()["message_count"] == appended
        assert "free" in (await call("GET", "/readyz")).json()["detail"]

        if sys.argv[2] == "soon":
            fill.unlink()
            answer = await chatting
            # The disk was full while it spoke, or only when it had ended.
            assert (answer.status, answer.json()["status"]) in {(200, "finished"), (502, "failed")}, answer
            assert answer.json()["status"] == "finished" or "free some space" in answer.json()["error"]
            ended = "done" if answer.status == 200 else "failed"
        else:
            answer = await chatting
            assert (answer.status, answer.json()["code"]) == (507, "database_full"), answer
            fill.unlink()
            ended = "lost"

        assert (await append()).status == 201
        assert (await chat(one, "echo after")).json()["response"] == "after"
        assert (await chat(other, "echo hi")).json()["response"] == "hi"
        messages, turns = await whole(call, one)
        assert [turn["status"] for turn in turns] == ["done", ended, "done"]
        assert [message["content"] for message in messages if message["role"] == "user"] == [
            "echo before", FILL, "echo after"]
        assert len((await whole(call, other))[0]) == appended + 3
        assert os.listdir(".alcove/runs") == os.listdir("sessions/.alcove/temp") == []


asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk and lease uids on it")
@pytest.mark.parametrize("freed", ["soon", pytest.param("late", marks=pytest.mark.long)])
def test_a_full_disk_in_a_chat_is_told_and_leaves_nothing_half_written(freed: str) -> None:
    for place in new_place():
        done = subprocess.run(
            ["unshare", "--mount", sys.executable, "-c", PROGRAM, str(place), freed],
            env={**os.environ, "HOME": str(place), "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-5000:]
