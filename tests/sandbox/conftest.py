"""A base with sessions in it, and sandboxes of every rung over it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from alcove.sandbox.limits import Limits
from alcove.sandbox.plan import Rung
from alcove.sandbox.policy import Policy
from alcove.sandbox.running import Exit, Process
from alcove.sandbox.service import Sandbox
from alcove.sandbox.spawner import BOOT, Spawner
from alcove.workspaces.base import settle

ROOT = os.geteuid() == 0
# Tests that run side by side share none, be it each in a pid namespace of its own. This module is imported twice.
_FIRST_UID = 1_878_000_000 + 2 * (hash((os.stat("/proc/self/ns/pid").st_ino, os.getpid())) % 500_000)
UIDS = (_FIRST_UID, _FIRST_UID + 1)  # not those of the probe, nor any that is leased
ATTACKS = (Path(__file__).parent / "attacks.py").read_text()
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def _interpreter() -> tuple[str, tuple[str, ...]]:
    """A Python that every rung can show to a leased uid, and what has to be granted for it."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.path.exists(path):
            return path, ()
    return os.path.realpath(sys.executable), (sys.base_prefix,)


PYTHON, PYTHON_FOLDERS = _interpreter()


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The proxy has to work on the loop of the library's users and on the server's."""
    own = {"asyncio": asyncio.new_event_loop}
    return {**own, "uvloop": uvloop.new_event_loop} if item.path.name == "test_proxy.py" else own


@dataclass(frozen=True)
class Outcome:
    """What a program said and how it ended."""

    stdout: bytes
    stderr: bytes
    exit: Exit


@dataclass
class World:
    """Sessions in a base, and the sandbox that runs their programs."""

    base: Path
    sandbox: Sandbox
    secrets: tuple[str, ...] = ()

    @property
    def view(self) -> bool:
        """Whether programs have a file system and processes of their own."""
        return self.sandbox.rung in {"userns", "bwrap"}

    seen: list[Process] = field(default_factory=list)

    def session(self, name: str = "own", uid: int | None = None) -> str:
        """Make the folder of a session."""
        folder = self.base / name
        if not folder.exists():
            folder.mkdir(mode=0o700)
            if ROOT:
                self.settle(folder, uid or UIDS[0])
        return str(folder)

    def settle(self, path: Path, uid: int) -> None:
        """Give a folder to a session, as a server on this rung does."""
        folder = os.open(path, os.O_RDONLY)
        settle(folder, uid, guarded=self.sandbox.guarded)
        os.close(folder)

    def policy(self, *argv: str, **changes: Any) -> Policy:
        """A policy for the session `own`."""
        folder = self.session()
        bounds = {name: changes.pop(name) for name in list(changes) if name in Limits.__struct_fields__}
        settings: dict[str, Any] = {
            "argv": argv,
            "env": {**ENV, "HOME": folder},
            "cwd": folder,
            "write": (folder,),
            "read": PYTHON_FOLDERS,
            "uid": UIDS[0] if ROOT else None,
            "hide": self.secrets,
            "bounds": Limits(**bounds),
        }
        return Policy(**{**settings, **changes})

    async def start(self, *argv: str, stdin: bytes = b"", **changes: Any) -> Process:
        """Start a program of the session `own`."""
        process = await self.sandbox.spawn(self.policy(*argv, **changes), stdin=stdin)
        self.seen.append(process)
        return process

    async def run(self, *argv: str, stdin: bytes = b"", **changes: Any) -> Outcome:
        """Run a program of the session `own` to its end."""
        return await finish(await self.start(*argv, stdin=stdin, **changes))

    async def shell(self, script: str, **changes: Any) -> Outcome:
        """Run a script of the session `own` to its end."""
        return await self.run("/bin/sh", "-c", script, **changes)

    async def python(self, program: str, *arguments: str, stdin: bytes = b"", **changes: Any) -> Outcome:
        """Run a Python program of the session `own` to its end."""
        return await self.run(PYTHON, "-I", "-S", "-c", program, *arguments, stdin=stdin, **changes)


async def finish(process: Process) -> Outcome:
    """Read a program to its end."""
    said = {"stdout": b"", "stderr": b""}
    async for stream, chunk in process.output():
        said[stream] += chunk
    return Outcome(said["stdout"], said["stderr"], await process.wait())


async def line(process: Process) -> bytes:
    """Read the first line of a program that goes on."""
    text = b""
    async for _, chunk in process.output():
        text += chunk
        if b"\n" in text:
            break
    return text


async def until(condition: Callable[[], object], *, within_s: float = 20) -> None:
    """Wait for a condition, and fail when it does not come true."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)


def processes_with(token: str) -> list[int]:
    """The living processes of this machine that have a token among their arguments."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    text = file.read()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if token.encode() in text:
                found.append(int(name))
    return found


def ended(pid: int) -> bool:
    """Whether a process has ended; init may take its time to reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def sleepers(token: str) -> list[int]:
    """The living `sleep`s of that length."""
    return [pid for pid in processes_with(token) if _name(pid) == "sleep"]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def new_token() -> str:
    """A number that no other process has among its arguments, and that sleep takes for a very long time."""
    return str(10**9 + secrets.randbelow(10**9))


def groups_of(pid: int) -> list[Path]:
    """Where a process makes control groups."""
    return [path for path in Path("/sys/fs/cgroup").rglob(f"alcove-*-{pid}-*") if path.is_dir()]


def runs_groups() -> set[str]:
    """The names of the groups that this process has made for runs."""
    return {below.name for path in groups_of(os.getpid()) for below in path.iterdir() if below.is_dir()}


@pytest.fixture
def base() -> Iterator[Path]:
    """A base that leased uids may pass through; pytest's own folders are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="base-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the probe's result is kept between the tests."""
    return tmp_path_factory.mktemp("probe") / "rungs.json"


@pytest.fixture
async def opened(base: Path, cache: Path) -> AsyncIterator[Callable[..., Any]]:
    """Opens worlds over the base, whatever the minimum, and closes them."""
    worlds: list[World] = []

    async def open_world(rung: Rung, **options: Any) -> World:
        options = {"minimum": frozenset(), "cache": cache, **options}
        world = World(base, await Sandbox.open(rung=rung, **options))
        worlds.append(world)
        return world

    yield open_world
    for world in worlds:
        await world.sandbox.close()
        for process in world.seen:
            process.close()


@pytest.fixture
async def broken() -> AsyncIterator[Callable[[str], Spawner]]:
    """Starts warm spawners that a piece of Python spoiled first, and closes them."""
    spawners: list[Spawner] = []

    def spoil(code: str) -> Spawner:
        first, last = BOOT.rsplit("; ", 1)
        spawners.append(Spawner(f"{first}\n{code}\n{last}"))
        return spawners[-1]

    yield spoil
    for spawner in spawners:
        await spawner.close()


@pytest.fixture(params=["userns", "bwrap", "landlock"])
def confined(request: pytest.FixtureRequest) -> Rung:
    """Each rung that confines; the machine of a test run has to have them all."""
    return request.param


@pytest.fixture(params=["userns", "bwrap", "landlock", "none"])
def rung(request: pytest.FixtureRequest) -> Rung:
    """Each rung."""
    return request.param


@pytest.fixture
async def world(opened: Callable[..., Any], rung: Rung) -> World:
    """A world on each rung."""
    return await opened(rung)


@pytest.fixture
async def confined_world(opened: Callable[..., Any], confined: Rung) -> World:
    """A world on each rung that confines."""
    return await opened(confined)


@pytest.fixture
def server() -> Iterator[int]:
    """The pid of a process that runs as the server does, with a secret in its environment."""
    program = "import sys; print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [PYTHON, "-I", "-S", "-c", program],
        env={"SERVER_SECRET": "of the server"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process.pid
        assert process.poll() is None, "an attack ended the server"
        process.terminate()


@pytest.fixture
async def target(opened: Callable[..., Any], server: int) -> AsyncIterator[dict[str, Any]]:
    """A live neighbour whom nothing protects but what confines the attacker."""
    world: World = await opened("none")
    folder = world.session("neighbour", UIDS[1])
    uid = UIDS[1] if ROOT else None
    process = await world.start(
        PYTHON, "-I", "-S", "-c", ATTACKS, folder, uid=uid, cwd=folder, write=(folder,), network="host"
    )
    said = json.loads(await line(process))
    private = world.base / "alcove.db"
    private.write_text("of the server")
    private.chmod(0o600)
    yield {**said, "server": server, "private": str(private)}
    assert processes_with(folder), "an attack ended the neighbour"
    os.unlink(said["posix"])
