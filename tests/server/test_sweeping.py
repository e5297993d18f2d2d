"""A server sweeps by itself, unless it is told not to."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = """
from alcove import limits
from alcove.server import serving
from alcove.settings.loading import load

limits.SWEEP_S = 0.05
serving.run(load())
"""


class Server:
    """A server process that would sweep twenty times a second."""

    def __init__(self, folder: Path, sweeps: str) -> None:
        folder.mkdir()
        self._folder = folder
        environ = {**os.environ, "ALCOVE_PORT": "0", "AUTO_CLEANUP_SESSIONS": sweeps}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            cwd=folder,
            env={**environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout
        ready = self.process.stdout.readline()
        self._port = int(ready.strip().rpartition(":")[2])

    def call(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def expired(self, name: str) -> None:
        """Make a session that has expired."""
        self.call("POST", "/api/v1/sessions", {"session_id": name, "ttl_s": 60})
        with sqlite3.connect(self._folder / ".alcove" / "database" / "alcove.db", timeout=20) as rows:
            rows.execute("UPDATE heads SET last_activity = 1, due_at = 1 WHERE session_id = ?", (name,))

    def left(self) -> set[str]:
        """Return the sessions that are not in the trash."""
        return {one["session_id"] for one in self.call("GET", "/api/v1/sessions")["sessions"]}


@contextmanager
def _server(folder: Path, sweeps: str) -> Generator[Server]:
    server = Server(folder, sweeps)
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.communicate(timeout=30)


def test_a_server_sweeps_by_itself_unless_it_is_told_not_to(tmp_path: Path) -> None:
    with _server(tmp_path / "on", "true") as sweeping, _server(tmp_path / "off", "false") as still:
        still.expired("old")
        # Twice, one after the other: so the other server had time for a whole sweep of its own.
        for name in ("first", "second"):
            sweeping.expired(name)
            end = time.monotonic() + 20
            while name in sweeping.left():
                assert time.monotonic() < end, "it was not swept"
        assert still.left() == {"old"}
        swept = still.call("POST", "/api/v1/cleanup", {"dry_run": False})
        assert [group["session_id"] for group in swept["cleaned"][0]["groups"]] == ["old"], "it does when it is asked"
        assert still.left() == set()
