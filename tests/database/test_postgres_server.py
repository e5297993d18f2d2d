"""The tests' own PostgreSQL goes when they go, however they go."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from alcove.testing.waiting import wait_until

PROGRAM = """
import sys
from database.postgres_server import PostgresServer
server = PostgresServer()
print(server.folder, server.url(), flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, None])
async def test_no_server_outlives_the_program_that_started_it(end: signal.Signals | None) -> None:
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    program = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=-1, stdout=-1, text=True, env=environment)
    assert program.stdin is not None
    assert program.stdout is not None
    folder, url = program.stdout.readline().split()
    assert _answers(url)
    if end:
        program.send_signal(end)
    program.communicate("")

    async def gone() -> bool:
        return not _answers(url) and not Path(folder, "data", "postmaster.pid").exists()

    await wait_until(gone)
    assert Path(folder).exists() == bool(end)
    shutil.rmtree(folder, ignore_errors=True)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
