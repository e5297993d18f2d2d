"""What was acknowledged is there after a kill, a power cut and a full disk, whoever else was writing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import apsw
import pytest

from alcove import limits
from alcove.clock import SystemClock
from alcove.database.migrating import migrate
from alcove.database.op import Database
from alcove.database.opening import open_database
from alcove.database.sqlite import SqliteDatabase
from alcove.messages.service import Messages
from alcove.sessions.service import Sessions
from alcove.testing.rows import execute
from database.disk import Disk, Event, after_power_loss, written

ENVIRONMENT = {**os.environ, "PYTHONPATH": ":".join(sys.path)}

# Says "<session> <seq>" for each turn once it was acknowledged.
WRITER = """
import asyncio, os, sys
from alcove.database.opening import open_database
from alcove.messages.service import Messages
from alcove.sessions.service import Sessions

async def main(url, tasks, turns, sessions):
    database = await open_database(url)
    messages = Messages(database)
    async def one(number):
        for turn in range(turns):
            session_id = sessions[number % len(sessions)]
            done = await messages.append_turn(session_id, f"{os.getpid()} {number} {turn}", "answer")
            os.write(1, f"{session_id} {done.last_seq}\\n".encode())
    await asyncio.gather(*(one(number) for number in range(tasks)))
    await database.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
"""


async def _sessions(url: str, count: int) -> list[str]:
    database = await open_database(url)
    made = [(await Sessions(database).create()).id for _ in range(count)]
    await database.close()
    return made


async def _check(url: str, acknowledged: dict[str, list[int]]) -> int:
    """Look at what is there; return how many messages."""
    database = await open_database(url)
    seen: dict[str, list[int]] = defaultdict(list)
    for session_id, seq in await execute(database, "SELECT session_id, seq FROM messages ORDER BY session_id, seq"):
        seen[session_id].append(seq)
    for session_id, last_seq, count in await execute(database, "SELECT session_id, last_seq, message_count FROM heads"):
        assert seen[session_id] == list(range(1, last_seq + 1)), "seq is dense"
        assert count == last_seq
        assert max(acknowledged.get(session_id, [0])) <= last_seq, "an acknowledged turn is lost"
    if database.kind == "sqlite":
        assert await execute(database, "PRAGMA integrity_check") == [("ok",)]
    await database.close()
    return sum(map(len, seen.values()))


def _acknowledged(lines: bytes) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for line in lines.decode().splitlines(keepends=True):
        session_id, _, seq = line.partition(" ")
        if seq.endswith("\n"):
            found[session_id].append(int(seq))
    return found


async def _kill_writers(tmp_path: Path, kills: int) -> None:
    url = f"sqlite:///{tmp_path / 'alcove.db'}"
    sessions = await _sessions(url, 8)
    chance = random.Random(kills)
    acknowledged: dict[str, list[int]] = defaultdict(list)
    for _ in range(kills):
        command = [sys.executable, "-c", WRITER, url, "64", "100000", *sessions]
        writer = subprocess.Popen(command, stdout=-1, env=ENVIRONMENT)
        assert writer.stdout is not None
        lines = b"".join(writer.stdout.readline() for _ in range(chance.randrange(1, 500)))
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.read()
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        for session_id, seqs in _acknowledged(lines).items():
            acknowledged[session_id] += seqs
        await _check(url, acknowledged)
    seqs = [seq for some in acknowledged.values() for seq in some]
    assert len(seqs) >= kills, "the writers were killed while they wrote"


async def test_a_kill_in_the_middle_of_64_writers_loses_no_acknowledged_turn(tmp_path: Path) -> None:
    await _kill_writers(tmp_path, 10)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_many_kills_lose_no_acknowledged_turn(tmp_path: Path) -> None:
    await _kill_writers(tmp_path, 200)


async def test_four_programs_on_one_database_lose_nothing_and_see_no_error(fresh_url: str) -> None:
    own = await _sessions(fresh_url, 4)
    shared = await _sessions(fresh_url, 2)
    command = [sys.executable, "-c", WRITER, fresh_url, "8", "25"]
    programs = [
        await asyncio.create_subprocess_exec(*command, one, *shared, stdout=-1, stderr=-1, env=ENVIRONMENT)
        for one in own
    ]
    said = await asyncio.gather(*(program.communicate() for program in programs))
    assert [error for _, error in said] == [b""] * 4
    acknowledged = _acknowledged(b"".join(lines for lines, _ in said))
    assert sum(map(len, acknowledged.values())) == 4 * 8 * 25
    assert await _check(fresh_url, acknowledged) == 2 * 4 * 8 * 25
    assert len({seq for session_id in shared for seq in acknowledged[session_id]}) >= 4 * 8 * 25 // 4


async def _careless(path: str) -> Database:
    """Open a database as many programs do, with `synchronous=NORMAL`."""

    def connect() -> apsw.Connection:
        connection = apsw.Connection(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    database = SqliteDatabase(connect, kind="sqlite", clock=SystemClock())
    await migrate(database)
    return database


async def _recorded(path: str, disk: Disk, *, careful: bool) -> dict[str, bytes]:
    """Append turns and record what the disk was asked to do; return what it held before."""
    [session_id] = await _sessions(f"sqlite:///{path}", 1)
    base = {path: Path(path).read_bytes()}
    database = await (open_database(f"sqlite:///{path}") if careful else _careless(path))
    messages = Messages(database)
    disk.events.clear()

    async def one(number: int) -> None:
        done = await messages.append_turn(session_id, f"turn {number}", "answer " * 50)
        disk.events.append(Event("acknowledged", offset=done.last_seq))

    for number in range(20):
        await asyncio.gather(*(one(number) for _ in range(1 + number % 5)))
        await one(number)
    disk.events = events = list(disk.events)
    await database.close()
    disk.events = events
    return base


def _lost(folder: Path, base: dict[str, bytes], events: list[Event], images: int, seed: int) -> int:
    """Cut the power so often; return in how many images an acknowledged turn is missing. None may be damaged."""
    chance = random.Random(seed)
    lost = 0
    for _ in range(images):
        past = events[: chance.randrange(len(events) + 1)]
        files = list(written(folder, after_power_loss(base, past, chance)))
        connection = apsw.Connection(str(files[0]))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        seqs = [row[0] for row in connection.execute("SELECT seq FROM messages ORDER BY seq")]
        assert seqs == list(range(1, len(seqs) + 1)), "a gap"
        assert connection.execute("SELECT last_seq FROM heads").fetchall() == [(len(seqs),)]
        connection.close()
        lost += max((event.offset for event in past if event.kind == "acknowledged"), default=0) > len(seqs)
        for file in folder.iterdir():
            file.unlink()
    return lost


async def _power_cuts(tmp_path: Path, images: int, *, careful: bool) -> int:
    path = str(tmp_path / "alcove.db")
    with Disk() as disk:
        base = await _recorded(path, disk, careful=careful)
    assert sum(event.kind == "sync" and event.path == path for event in disk.events) >= 3, "there were checkpoints"
    with tempfile.TemporaryDirectory() as folder:
        return _lost(Path(folder), base, disk.events, images, seed=images)


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHECKPOINT_PAGES", 20)


@pytest.mark.usefixtures("_often")
async def test_a_power_cut_loses_no_acknowledged_turn(tmp_path: Path) -> None:
    assert await _power_cuts(tmp_path, 300, careful=True) == 0


@pytest.mark.usefixtures("_often")
async def test_a_power_cut_would_be_noticed(tmp_path: Path) -> None:
    """The control: with `synchronous=NORMAL` the same cuts lose turns."""
    assert await _power_cuts(tmp_path, 100, careful=False) > 10


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_often")
async def test_many_power_cuts_lose_no_acknowledged_turn(tmp_path: Path) -> None:
    assert await _power_cuts(tmp_path, 20_000, careful=True) == 0


UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]

FULL_DISK = """
import asyncio, ctypes, os, sys
from alcove.database.opening import open_database
from alcove.errors import DatabaseFullError
from alcove.messages.service import Messages
from alcove.sessions.service import Sessions

top = sys.argv[1]
assert ctypes.CDLL(None).mount(b"tmpfs", top.encode(), b"tmpfs", 0, b"size=2m") == 0

async def main():
    url = f"sqlite:///{top}/alcove.db"
    database = await open_database(url)
    session_id = (await Sessions(database).create()).id
    messages = Messages(database)
    with open(f"{top}/ballast", "wb") as ballast:
        ballast.write(b"x" * 800_000)
    last, errors = 0, []
    while len(errors) < 20:
        asked = [messages.append_turn(session_id, "x" * 500, "y" * size) for size in (10, 3000, 30)]
        for done in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(done, Exception):
                errors.append(done)
            else:
                last = max(last, done.last_seq)
    assert {type(error) for error in errors} == {DatabaseFullError}, errors
    assert last > 50, last
    assert len(await messages.last(session_id, 20)) == 20
    os.unlink(f"{top}/ballast")
    again = await messages.append_turn(session_id, "there is", "room")
    assert again.first_seq == last + 1, "nothing acknowledged is lost, nothing else was kept"
    await database.close()

    database = await open_database(url)
    session = await Sessions(database).get(session_id)
    assert session.last_seq == session.message_count == again.last_seq
    await database.close()

    with open(f"{top}/ballast", "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 4096)
        except OSError:
            pass
    try:
        await open_database(url)
    except DatabaseFullError:
        pass
    else:
        raise AssertionError("it was opened")
    os.unlink(f"{top}/ballast")
    await (await open_database(url)).close()

asyncio.run(main())
"""


def test_a_full_disk_is_named_loses_nothing_and_works_again_with_space(tmp_path: Path) -> None:
    if subprocess.run([*UNSHARE, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip("this machine lets this user make no mount namespace")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
