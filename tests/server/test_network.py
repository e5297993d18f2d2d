"""A run of a real server with a list of hosts: the server is its way out, and no way to the server itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.test_process import Server

FETCH = """
python3 - http://127.0.0.1:{site}/ http://127.0.0.1:{port}/health http://169.254.169.254/ <<'END'
import sys, urllib.request
for url in sys.argv[1:]:
    try: print(urllib.request.urlopen(url, timeout=10).read().decode())
    except OSError as error: print(error)
END
"""


@pytest.fixture
def site() -> Iterator[int]:
    """The port of a server that is on this machine beside ours."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            with one:
                one.recv(65536)
                one.sendall(b"HTTP/1.0 200 OK\r\n\r\nwelcome")

    thread = threading.Thread(target=answer)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def server(tmp_path: Path, site: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose agent may reach that one."""
    # Its port is any free one, so that the address alone could be its own.
    monkeypatch.setenv("ALCOVE_TRUST_HOST_AGENTS", "true")
    (tmp_path / "alcove.toml").write_text(f'[agents.shell]\nnetwork = ["127.0.0.1:{site}"]\n')
    server = Server(tmp_path)
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.communicate()


def test_a_run_reaches_what_is_listed_and_neither_the_server_nor_anything_else(server: Server, site: int) -> None:
    said = server.call("POST", "/api/v1/chat", {"message": FETCH.format(site=site, port=server.port)})
    refused = "HTTP Error 403: Refused by Alcove (unlisted)"
    assert said["response"].splitlines() == ["welcome", refused, refused]
    agents = {one["name"]: one["network"] for one in server.call("GET", "/api/v1/agents")["agents"]}
    assert agents["shell"] == [f"127.0.0.1:{site}"]
    grant = server.call("GET", f"/api/v1/runs/{said['run_id']}/grant")
    assert grant["granted"]["network"] == [f"127.0.0.1:{site}"]
    assert server.call("GET", f"/api/v1/runs/{said['run_id']}")["guarantees"]["hosts"] is True
    code, log = server.end()
    assert code == 0
    assert log.count("destination refused") == 2
    assert "169.254.169.254:80" in log


def test_a_server_that_trusts_an_agent_audits_that(server: Server) -> None:
    [row] = server.call("GET", "/api/v1/audit?act=server.trusted")["rows"]
    assert (row["who"], row["words"]) == ("configuration", {"agents": "shell"})
