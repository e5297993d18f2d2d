"""A real server process: its start, its limits on connections, its end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alcove import hub as installation, limits
from alcove.dialogs.loading import load as definition
from alcove.errors import ConfigurationError
from alcove.server import serving
from alcove.settings.loading import load
from alcove.testing.contract.dialogs import ORDER, late

PROGRAM = """
import asyncio, sys
from alcove import limits
from alcove.server import serving
from alcove.settings.loading import load

limits.BODY_TIMEOUT_S, limits.DRAIN_S, limits.SWEEP_S = 1, float(sys.argv[1]), 0.1

async def slow(context):
    context.emit("begun")
    await asyncio.sleep(float(context.message))
    return "done"

serving.run(load(), prepare=lambda hub: hub.agents.register("slow", slow))
"""


class Server:
    """A server process in a folder of its own."""

    def __init__(self, folder: Path, *, drain_s: float = 5) -> None:
        for above in (folder, *folder.parents):
            if above.stat().st_uid == os.geteuid() and (above == folder or above.name.startswith("pytest-")):
                above.chmod(0o711)
        env = {**os.environ, "ALCOVE_PORT": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(drain_s)],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.ready = self.process.stdout.readline()
        found = re.search(r":(\d+)$", self.ready.strip())
        assert found, self.process.communicate()[1]
        self.port = int(found[1])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def raw(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own and return all that comes back."""
        with self.connect() as connection:
            connection.sendall(data)
            return _all(connection)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(data)}\r\n"
        answer = self.raw(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to stop; return its exit code and its log."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=30)
        return self.process.returncode, log


def _all(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            piece = b""
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


@contextmanager
def _server(folder: Path, *, drain_s: float = 5) -> Generator[Server]:
    server = Server(folder, drain_s=drain_s)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


def test_it_takes_the_descriptors_that_it_may_have(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with _server(tmp_path) as server:
            taken = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert taken == (min(hard, limits.DESCRIPTORS), hard)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _server(tmp_path_factory.mktemp("served")) as server:
        yield server


def _problem(answer: bytes, status: int) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert b"application/problem+json" in head
    told = json.loads(body)
    assert told["status"] == status
    return told


def test_it_says_where_it_listens_when_it_does(server: Server) -> None:
    assert server.ready == f"Alcove listens on http://127.0.0.1:{server.port}\n"
    assert server.call("GET", "/health")["status"] == "healthy"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_problem_too(server: Server, data: bytes) -> None:
    answer = server.raw(data)
    # What was wrong in the body is answered after the head was; all that was answered are problems.
    assert answer
    for one in re.split(rb"(?=HTTP/1\.1 \d)", answer)[1:]:
        assert re.match(rb"HTTP/1\.1 4\d\d ", one)
        assert b"content-type: application/problem+json" in one


def test_a_head_without_end_is_refused(server: Server) -> None:
    answer = server.raw(b"GET / HTTP/1.1\r\nX: " + b"x" * (limits.HEAD_BYTES + 1))
    assert _problem(answer, 431)["limit"] == limits.HEAD_BYTES


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_come_is_not_waited_for(server: Server, data: bytes) -> None:
    _problem(server.raw(data), 408)


def test_a_body_that_does_not_come_is_not_waited_for(server: Server) -> None:
    head = b"POST /api/v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    _problem(server.raw(head + b"Content-Length: 9\r\n\r\n{"), 408)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_mb_is_refused_and_its_sender_hears_why(server: Server, chunked: bool) -> None:
    size = 100 * limits.MIB
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    head = b"POST /api/v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%s\r\n\r\n" % framing
    piece = b" " * limits.MIB
    with server.connect() as connection:
        connection.sendall(head)
        sent = 0
        try:
            while sent < size:
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                sent += len(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        _problem(_all(connection), 413)
    rss = Path(f"/proc/{server.process.pid}/status").read_text()
    assert int(re.findall(r"VmRSS:\s+(\d+)", rss)[0]) < 200_000, "kB"


def test_an_upload_that_waits_for_leave_is_refused_without_it(server: Server) -> None:
    head = "POST /api/v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
    answer = server.raw(f"{head}Content-Length: {100 * limits.MIB}\r\n\r\n".encode())
    assert b"100 Continue" not in answer
    _problem(answer, 413)


def test_requests_follow_each_other_on_one_connection(server: Server) -> None:
    one = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = server.raw(one * 20 + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 20
    assert answer.count(b"HTTP/1.1 404 ") == 1


def _begin_slow(server: Server, seconds: float) -> socket.socket:
    """Start a run and return its stream, once it has begun."""
    body = json.dumps({"message": str(seconds), "agent": "slow"})
    connection = server.connect()
    head = "POST /api/v1/chat/stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    heard = b""
    while b"begun" not in heard:
        heard += connection.recv(65536)
    return connection


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_server_lets_runs_end(tmp_path: Path, number: signal.Signals) -> None:
    with _server(tmp_path) as server:
        stream = _begin_slow(server, 0.5)
        with stream:
            code, log = server.end(number)
            heard = _all(stream)
    assert b'"status":"finished"' in heard
    assert heard.endswith(b"0\r\n\r\n"), "the stream has its proper end"
    assert code == 0, log
    assert "Traceback" not in log


def test_a_stopping_server_cancels_runs_that_do_not_end(tmp_path: Path) -> None:
    with _server(tmp_path, drain_s=0.2) as server:
        stream = _begin_slow(server, 100)
        with stream:
            code, log = server.end()
            heard = _all(stream)
    assert b'"status":"cancelled"' in heard
    assert code == 0, log
    with _server(tmp_path) as again:
        [run] = again.call("GET", "/api/v1/runs")["runs"]
        assert run["status"] == "cancelled"


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with _server(tmp_path, drain_s=100) as server:
        stream = _begin_slow(server, 100)
        server.process.send_signal(signal.SIGTERM)
        while server.process.poll() is None and _takes(server):
            pass
        code, log = server.end()
        stream.close()
    assert code == 0, log


def _takes(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionError:
        return False
    return True


def test_a_taken_port_is_said(tmp_path: Path, server: Server) -> None:
    settings = load(tmp_path, {"ALCOVE_PORT": str(server.port)})
    with pytest.raises(ConfigurationError, match="Address already in use") as caught:
        asyncio.run(serving.serve(settings))
    assert "ALCOVE_PORT" in caught.value.remedy
    assert list(tmp_path.iterdir()) == [], "nothing was opened"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_only_the_loopback_is_served(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match="loopback") as caught:
        asyncio.run(serving.serve(load(tmp_path, {"ALCOVE_HOST": host, "ALCOVE_PORT": "0"})))
    assert "alcove key create" in caught.value.remedy


@pytest.mark.parametrize(("host", "why"), [("192.0.2.1", "assign"), ("example.org", "IP address")])
def test_an_address_that_is_not_this_machines_is_refused(tmp_path: Path, host: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        asyncio.run(serving.serve(load(tmp_path, {"ALCOVE_HOST": host, "ALCOVE_PORT": "0"})))
    assert list(tmp_path.iterdir()) == [], "nothing was opened"


def test_an_agent_that_could_call_the_server_is_refused(tmp_path: Path) -> None:
    (tmp_path / "alcove.toml").write_text('port = 0\n[agents.q]\ncommand = "true"\nnetwork = "host"\n')
    with pytest.raises(ConfigurationError, match="administrator") as caught:
        asyncio.run(serving.serve(load(tmp_path, {})))
    assert "ALCOVE_TRUST_HOST_AGENTS" in caught.value.remedy


DOOR = r"""
python3 - <<'END'
import json, os, socket
def call(path, token):
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(os.environ["ALCOVE_SOCKET"])
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        door.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: door.recv(65536), b""))
    return int(answer.split()[1])
own, token = "/api/v1/sessions/" + os.environ["SESSION_ID"], os.environ["ALCOVE_RUN_TOKEN"]
print(call(own, token), call(own, "x"), call("/api/v1/sessions/OTHER", token), call("/api/v1/sessions", token))
END
stat -c %a "$ALCOVE_SOCKET"
"""


def test_a_run_reaches_its_own_session_by_its_socket(server: Server, control: Callable[[], Any]) -> None:
    other = server.call("POST", "/api/v1/sessions")["session_id"]
    answer = server.call("POST", "/api/v1/chat", {"message": DOOR.replace("OTHER", other)})
    assert answer["response"].splitlines() == ["200 401 404 404", "600"], answer
    assert control() == "healthy"


PASS = r"""
python3 - <<'END'
import array, os, socket
head = b"GET /api/v1/sessions/" + os.environ["SESSION_ID"].encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
head += b"Authorization: Bearer " + os.environ["ALCOVE_RUN_TOKEN"].encode() + b"\r\n\r\n"
files = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(100)])
codes = set()
for _ in range(20):
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(os.environ["ALCOVE_SOCKET"])
        for piece in (head[:50], head[50:]):
            door.sendmsg([piece], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        codes.add(b"".join(iter(lambda: door.recv(65536), b"")).split()[1])
print(*codes)
END
"""


def test_descriptors_that_a_run_sends_to_its_socket_are_not_kept(server: Server) -> None:
    opened = Path(f"/proc/{server.process.pid}/fd")
    server.call("POST", "/api/v1/chat", {"message": "true"})
    before = len(list(opened.iterdir()))
    answer = server.call("POST", "/api/v1/chat", {"message": PASS})
    assert answer["response"] == "b'200'", answer
    assert len(list(opened.iterdir())) <= before + 20  # connections that are not closed yet, of hundreds of files


def test_descriptors_that_are_sent_are_there_for_whoever_takes_them() -> None:
    """The control: what the server does not ask for, the kernel would hand out."""
    here, there = socket.socketpair()
    with here, there:
        socket.send_fds(here, [b"x"], [0] * 100)
        _, files, _, _ = socket.recv_fds(there, 1, 100)
    assert len(files) == 100
    for file in files:
        os.close(file)


@pytest.fixture
def control(server: Server) -> Callable[[], Any]:
    """The same server answers an administrator."""
    return lambda: server.call("GET", "/health")["status"]


def test_what_nobody_asks_for_times_out_too(tmp_path: Path) -> None:
    asyncio.run(_left_waiting(tmp_path))
    with _server(tmp_path) as server:
        deadline = time.monotonic() + 20
        # The list of what happened lets nothing happen itself.
        while len(steps := server.call("GET", "/api/v1/sessions/s/dialog/events")["steps"]) < 3:
            assert time.monotonic() < deadline, steps
        assert [(step["cause"], step["message"]) for step in steps[2:]] == [("timeout", "I stopped waiting.")]
        assert server.end()[0] == 0


async def _left_waiting(folder: Path) -> None:
    """Make a session whose dialog timed out while no server ran."""
    async with installation.open(settings=load(folder=folder)) as hub:
        await hub.sessions.create(session_id="s")
        await hub.dialogs.start("s", definition(ORDER))
        await hub.dialogs.step("s", "photo", {"image": "i"})
        await late(hub.database, "s")


def test_a_server_sweeps_by_itself(server: Server) -> None:
    made = server.call("POST", "/api/v1/sessions", {"ttl_s": 0.01})["session_id"]
    while not (trashed := server.call("GET", "/api/v1/trash")["trashings"]):
        assert server.process.poll() is None
    assert [(one["session_id"], one["why"], one["who"]) for one in trashed] == [(made, "expired", "janitor")]
