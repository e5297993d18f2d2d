"""Objects survive a SIGKILL at any moment of their writer or of a sweep: what was acknowledged is read back."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alcove import limits
from alcove.database.opening import open_database
from alcove.messages.service import Messages
from alcove.objects.service import Objects
from alcove.sessions.service import Sessions

ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join(sys.path)}

# Appends images out of few, so that writers, releases and sweeps meet on the same objects; says what was acknowledged.
WRITER = """
import asyncio, base64, hashlib, os, random, sys
from alcove.database.opening import open_database
from alcove.messages.model import Draft
from alcove.messages.service import Messages
from alcove.objects.service import Objects

def picture(number):
    return hashlib.sha512(str(number).encode()).digest() * 1200

async def main(url, folder, seed, sessions):
    chance = random.Random(seed)
    database = await open_database(url)
    objects = Objects(database, folder)
    messages = Messages(database, objects)
    async def write(session_id):
        while True:
            number = chance.randrange(6)
            part = {"type": "image", "data": base64.b64encode(picture(number)).decode()}
            done = await messages.append(session_id, [Draft("user", [part])])
            os.write(1, f"{session_id} {done.last_seq} {number}\\n".encode())
    async def sweep():
        while True:
            await objects.sweep(grace_s=-1)
            await asyncio.sleep(chance.random() / 100)
    await asyncio.gather(*map(write, sessions), sweep())

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
"""


def _picture(number: int) -> bytes:
    return hashlib.sha512(str(number).encode()).digest() * 1200


def _killed(url: str, folder: Path, sessions: list[str], seed: int, after_s: float) -> list[tuple[str, int, int]]:
    """Run two writers, kill both, and return what they had acknowledged."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(folder), str(seed + at), *sessions],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
        )
        for at in range(2)
    ]
    first = [writer.stdout.readline() for writer in writers if writer.stdout]
    threading.Event().wait(after_s)
    said = b"".join(first)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    for writer in writers:
        said += writer.communicate()[0]
    lines = [line.split() for line in said.decode().splitlines()]
    return [(one[0], int(one[1]), int(one[2])) for one in lines if len(one) == 3 and one[2]]


async def _crash(folder: Path, rounds: int) -> None:
    url = f"sqlite:///{folder / 'alcove.db'}"
    chance = random.Random(3)
    database = await open_database(url)
    sessions = [(await Sessions(database).create()).id for _ in range(3)]
    await database.close()
    acknowledged: list[tuple[str, int, int]] = []
    for number in range(rounds):
        acknowledged += _killed(url, folder / "objects", sessions, 10 * number, chance.random())
        database = await open_database(url)
        objects = Objects(database, folder / "objects")
        messages = Messages(database, objects)
        assert [wrong async for _, wrong in objects.examine() if wrong] == []
        chosen = chance.sample(acknowledged, min(40, len(acknowledged)))
        for session_id, seq, picture in chosen:
            [found] = (await messages.page(session_id, after=seq - 1, limit=1)).messages
            [part] = found.content
            assert isinstance(part, dict)
            text = str(part["data"])
            assert hashlib.sha256(text.encode()).digest() == _digest(picture)
        await objects.sweep(grace_s=-1)
        files = [path for path in (folder / "objects").rglob("*") if path.is_file() and path.parent.name != ".temp"]
        assert len(files) == (await objects.usage()).objects <= 6
        await database.close()
    assert len(acknowledged) > rounds


def _digest(picture: int) -> bytes:
    import base64

    return hashlib.sha256(base64.b64encode(_picture(picture))).digest()


async def test_what_was_acknowledged_survives_a_kill_of_writers_that_sweep(tmp_path: Path) -> None:
    assert len(_picture(1)) > limits.PART_BYTES
    await _crash(tmp_path, 2)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_what_was_acknowledged_survives_many_kills(tmp_path: Path) -> None:
    await _crash(tmp_path, 25)
