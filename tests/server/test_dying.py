"""The real server, killed at each step of starting, ending and removing: before or after, and nothing left."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from alcove.sandbox import processes
from runs.world import alive, new_place

DYING = Path(__file__).with_name("dying_server.py")
ROOT = os.geteuid() == 0
SCRIPT = """
exec -a {mark} sleep 99999 &
setsid bash -c "exec -a {mark} sleep 99999" &
(setsid bash -c "trap '' TERM; exec -a {mark} sleep 99999" &)
until [ -e go ]; do read -t 0.02 < <(exec -a {mark} sleep 0.02); done
"""
# What comes by itself now and then, and is no step of anything that is asked for.
BESIDE = {"renew", "journal", "look", "about_index", "all_stale"}
ACTS = ("start", "end", "cancel", "trash", "purge", "queue")
# The moments between which most can be left behind.
QUICK = [
    ("start", "after start"),
    ("end", "after finish"),
    ("purge", "before Workspaces._purge"),
    ("purge", "after forget"),
    ("queue", "after claim"),
    ("queue", "before begin"),
    ("queue", "after begin"),
]


class Server:
    """A server in a folder: the real one, or one that dies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        self.port = 0

    def start(self, end: str | None = None) -> None:
        (self.folder / "armed").unlink(missing_ok=True)
        (self.folder / "steps").unlink(missing_ok=True)
        command = ["-m", "alcove", "serve"] if end is None else [str(DYING), end]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env={**os.environ, "ALCOVE_PORT": "0", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout
        found = re.search(r":(\d+)", self.process.stdout.readline())
        assert found
        self.port = int(found[1])

    @property
    def dead(self) -> bool:
        """Whether it has ended."""
        return self.process is None or self.process.poll() is not None

    def stop(self) -> bool:
        """End it, and return whether it had been killed."""
        if self.process is None:
            return False
        assert self.process.stdout
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=0.5)
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(timeout=30)
        self.process.stdout.close()
        self.process = None
        return code == -signal.SIGKILL

    def call(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/api/v1/{path}", data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            return {"status_code": answer.status, **(json.loads(text) if text else {})}
        finally:
            connection.close()


def until(true: Callable[[], object], within_s: float = 20) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


@pytest.fixture
def server() -> Iterator[Server]:
    places = new_place()
    one = Server(next(places))
    yield one
    if one.process:
        one.process.kill()
        one.stop()
    next(places, None)


def act(server: Server, what: str, session: str, mark: str) -> None:
    """Start a run in a session, and do to it what is asked; the server may die of it."""
    start = {"message": SCRIPT.format(mark=mark)}
    if what == "start":
        (server.folder / "armed").touch()
    with suppress(ConnectionError, http.client.HTTPException):
        run = server.call("POST", f"sessions/{session}/runs", start)
        assert "run_id" in run, run
        until(lambda: len(alive(mark)) >= 3 or server.dead)
        (server.folder / "armed").touch()
        match what:
            case "end":
                (server.folder / "sessions" / session / "go").touch()
                until(lambda: server.call("GET", f"runs/{run['run_id']}")["status"] != "running")
            case "cancel":
                server.call("POST", f"runs/{run['run_id']}/cancel")
            case "queue":
                body = {"message": "echo later >> later", "busy": "queue"}
                queued = server.call("POST", f"sessions/{session}/runs", body)["run_id"]
                (server.folder / "queued").write_text(queued)
                (server.folder / "sessions" / session / "go").touch()
                until(lambda: server.call("GET", f"runs/{queued}")["ended_at"])
            case "trash":
                server.call("DELETE", f"sessions/{session}")
            case "purge":
                server.call("DELETE", f"sessions/{session}?purge=true")
            case _:
                pass


def check(server: Server, session: str, mark: str, before: dict[int, int], mounts: str) -> None:
    """Nothing is left, and the session is before or after what was done to it."""
    until(lambda: not alive(mark))
    for pid, started in before.items():
        until(lambda pid=pid, started=started: processes.start_time(pid) != started or _zombie(pid))
    assert Path("/proc/self/mountinfo").read_text() == mounts
    home = server.folder / ".alcove"
    until(lambda: list(home.glob("runs/*")) == [])  # a run's folder goes after its end is written
    assert list((server.folder / "sessions").glob(".probe-*")) == []
    with sqlite3.connect(f"file:{next(home.glob('database/alcove.db'))}?mode=ro", uri=True) as rows:
        assert rows.execute("SELECT id FROM runs WHERE ended_at = 0").fetchall() == []
        assert rows.execute("SELECT number FROM turns WHERE status = 'open'").fetchall() == []
        assert rows.execute("SELECT session_id FROM heads WHERE lease_run <> ''").fetchall() == []
        assert rows.execute("SELECT id FROM trashings WHERE step <> 'kept'").fetchall() == []
        leased = {one for (one,) in rows.execute("SELECT session_id FROM uids")}
    found = server.call("GET", f"sessions/{session}")
    places = [server.folder / "sessions" / session, home / "homes" / session]
    if found["status_code"] == 404 and session not in _trashed(server):
        assert session not in leased
        assert [place for place in places if place.exists()] == []
        return
    assert (session in leased) == ROOT
    if found["status_code"] == 404:
        return
    answer = server.call("POST", "chat", {"session_id": session, "message": "echo on"})
    assert answer["response"] == "on", answer


def check_queued(server: Server, session: str, steps: list[str]) -> None:
    """What was acknowledged as queued has been answered once, or was lost when it had begun."""
    queued = server.folder / "queued"
    if not queued.exists():
        assert "before finish" not in steps, "it died before it acknowledged"
        until(lambda: server.call("GET", f"sessions/{session}/queue")["queue"] == [])
        until(lambda: server.call("GET", f"runs?session_id={session}&active=true")["runs"] == [])
        return
    run_id = queued.read_text()
    until(lambda: server.call("GET", f"runs/{run_id}")["ended_at"])
    run = server.call("GET", f"runs/{run_id}")
    later = server.folder / "sessions" / session / "later"
    said = later.read_text() if later.exists() else ""
    if run["status"] == "finished":
        assert said == "later\n"
    else:
        assert (run["status"], "after begin" in steps or "before begin" in steps) == ("lost", True)
        assert said in {"", "later\n"}


def _trashed(server: Server) -> set[str]:
    return {path.name for path in (server.folder / "sessions" / ".alcove" / "trash").glob("*/*")}


def _zombie(pid: int) -> bool:
    found = processes.look(pid)
    return found is None or found.ended


def die(server: Server, what: str, at: str) -> tuple[bool, list[str]]:
    """Let a server die at a step of an act, start another one, look; return whether it died and the steps it took."""
    mounts = Path("/proc/self/mountinfo").read_text()
    (server.folder / "queued").unlink(missing_ok=True)
    server.start(at)
    assert server.process
    session = server.call("POST", "sessions", {})["session_id"]
    server.call("POST", "chat", {"session_id": session, "message": "true"})  # so that everything is there
    mark = f"marker-{session}"
    before = {pid: one.started for pid, one in processes.descendants(server.process.pid).items()}
    act(server, what, session, mark)
    killed = server.stop()
    steps = (server.folder / "steps").read_text().splitlines() if (server.folder / "steps").exists() else []
    server.start()
    if what == "queue":
        check_queued(server, session, steps)
    check(server, session, mark, before, mounts)
    server.stop()
    return killed, steps


@pytest.mark.parametrize(("what", "at"), QUICK)
def test_a_server_killed_where_most_is_left_leaves_nothing(server: Server, what: str, at: str) -> None:
    killed, _ = die(server, what, at)
    assert killed, "this step is taken no more: name another"


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ACTS)
def test_a_server_killed_at_any_step_leaves_nothing(server: Server, what: str) -> None:
    killed, steps = die(server, what, "")
    assert not killed
    named = [one for one in dict.fromkeys(steps) if one.partition(" ")[2] not in BESIDE]
    assert len(named) >= 6, named
    died = {at for at in named if die(server, what, at)[0]}
    assert len(died) >= len(named) - 2, set(named) - died
