"""What every way to confine programs must hold: tried by the probe, against a live neighbour on this machine."""

# ruff: noqa: D102, ASYNC240 - the name of a test is its sentence; what it looks at is local and small

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Protocol

import msgspec
import pytest

from alcove.errors import AlcoveError
from alcove.sandbox import probe
from alcove.sandbox.attempts import ATTEMPTS
from alcove.sandbox.berths import Berths
from alcove.sandbox.limits import Limits
from alcove.sandbox.plan import Errand, Target
from alcove.sandbox.policy import Policy
from alcove.sandbox.service import Sandbox
from alcove.sandbox.spawner import Spawner
from alcove.sandbox.vector import DEFAULT_MINIMUM


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What a rung is given to run. There is no network.

    Attributes:
        argv: The program, an absolute path, and its arguments.
        workspace: The folder that it starts in, and the only one that it may write.
        env: Its environment.
        stdin: What it reads, until end of file.
        bounds: What it may take, on a rung that claims `limits` or `quota`.
    """

    argv: tuple[str, ...]
    workspace: str
    env: Mapping[str, str] = msgspec.field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin"})
    stdin: bytes = b""
    bounds: Limits = Limits()


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it: its exit code (128 and the number for a signal) and all of its output."""

    code: int
    stdout: bytes
    stderr: bytes


class Rung(Protocol):
    """A way to confine programs."""

    async def run(self, program: Program) -> Finished:
        """Run a program to its end.

        Raises:
            AlcoveError: It could not be started; nothing ran.
        """
        ...


_ECHO = (
    "import json, os, sys\n"
    "print(json.dumps([sys.argv[1:], sys.stdin.read(), os.environ['GIVEN'], os.getcwd()]))\n"
    "print('aside', file=sys.stderr); sys.exit(7)"
)
_LITTLE = Limits(memory_bytes=64 << 20, disk_bytes=8 << 20)
_THEN = (
    "print('took it', flush=True); import sys, time; time.sleep(int(sys.argv[1])); int(sys.argv[1]) and print('stayed')"
)
_TAKE = {
    "limits": f"taken = bytearray(200 << 20)\nfor at in range(0, len(taken), 4096): taken[at] = 1\n{_THEN}",
    "quota": f"file = open('filling', 'wb'); file.write(bytes(32 << 20)); file.flush()\n{_THEN}",
}
_STAY = (
    "import os, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    for _ in range(10_000): print('on', file=open('beat', 'a')); time.sleep(0.005)\n"
    "while not os.path.exists('beat') or os.path.getsize('beat') < 9: time.sleep(0.005)"
)


class RungContract:
    """Needs a `rung` fixture; where a run has a uid of its own, a `workspace` that this owns too.

    Attributes:
        claims: The guarantees that the rung claims.
        python: An interpreter in its sandbox.
    """

    claims: ClassVar[frozenset[str]] = DEFAULT_MINIMUM | {"network", "ipc"}
    python: ClassVar[str] = "/usr/bin/python3"

    @pytest.fixture
    def place(self) -> Generator[Path]:
        """A base that every uid may pass through."""
        with tempfile.TemporaryDirectory(prefix="base-") as folder:
            os.chmod(folder, 0o711)
            yield Path(folder)

    @pytest.fixture
    def workspace(self, place: Path) -> str:
        """The folder of the session whose programs are run."""
        folder = place / "own"
        folder.mkdir(mode=0o700)
        return str(folder)

    @pytest.fixture
    def uids(self) -> range | None:
        """Leased uids for the neighbour, whose folder is guarded then; None for this process's own."""
        return None

    @pytest.fixture
    async def target(self, place: Path, uids: range | None) -> AsyncGenerator[Target]:
        """A live neighbour in the same base."""
        async with _neighbour(place, uids) as target:
            yield target

    async def test_what_it_claims_is_refused_attempt_by_attempt(
        self, rung: Rung, workspace: str, target: Target
    ) -> None:
        errand = msgspec.json.encode(Errand(folder=workspace, token="", target=target))
        argv = (self.python, "-I", "-S", "-c", probe.program())
        done = await rung.run(Program(argv=argv, workspace=workspace, stdin=errand))
        assert done.code == 0, done.stderr
        holes: dict[str, list[str]] = json.loads(done.stdout)
        # Of limits the next test is: whoever looks after them may end the whole program, at a time of its own.
        claims = self.claims - {"limits", "quota"}
        assert {name: holes[name] for name in sorted(claims)} == {name: [] for name in claims}

    @pytest.mark.parametrize("guarantee", ["limits", "quota"])
    async def test_what_takes_more_than_it_was_given_is_ended_or_nothing_is_claimed(
        self, rung: Rung, workspace: str, guarantee: str
    ) -> None:
        argv = (self.python, "-I", "-S", "-c", _TAKE[guarantee])
        free = await rung.run(Program(argv=(*argv, "0"), workspace=workspace))
        assert (free.code, free.stdout) == (0, b"took it\n"), "the control"
        if guarantee in self.claims:
            done = await rung.run(Program(argv=(*argv, "60"), workspace=workspace, bounds=_LITTLE))
            assert done.code != 0
            assert done.stdout != b"took it\nstayed\n"

    async def test_the_same_attempts_succeed_where_nothing_confines(self, place: Path) -> None:
        free = place / "free"
        free.mkdir()
        argv = (probe.interpreter(None)[0], "-I", "-S", "-c", probe.program())
        policy = Policy(argv=argv, env={}, cwd=str(free), write=(str(free),), network="host")
        sandbox = await Sandbox.open(rung="none", canary=place, uids=False)
        async with _neighbour(place, None) as target:
            errand = msgspec.json.encode(Errand(folder=str(free), token="", target=target))
            process = await sandbox.spawn(policy, stdin=errand)
            said = b"".join([chunk async for _, chunk in process.output()])
        await sandbox.close()
        assert {name: set(tried) for name, tried in json.loads(said).items()} == {
            name: set(tries) for name, tries in ATTEMPTS.items()
        }

    async def test_a_program_gets_what_it_is_given_and_its_answer_arrives(self, rung: Rung, workspace: str) -> None:
        given = ("--flag", "two words", "", "ü\N{SNOWMAN}", "$HOME;`id`")
        argv = (self.python, "-I", "-S", "-c", _ECHO, *given)
        env = {"GIVEN": "a=b\nc", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        done = await rung.run(Program(argv=argv, workspace=workspace, env=env, stdin=b"asked"))
        assert json.loads(done.stdout) == [list(given), "asked", "a=b\nc", workspace]
        assert (done.code, done.stderr) == (7, b"aside\n")

    async def test_its_workspace_is_all_that_it_writes(self, rung: Rung, workspace: str) -> None:
        beside = os.path.join(os.path.dirname(workspace), "planted")
        script = f"open('mine', 'w').write('kept')\nopen({beside!r}, 'w').write('lost')"
        await rung.run(Program(argv=(self.python, "-I", "-S", "-c", script), workspace=workspace))
        assert Path(workspace, "mine").read_text() == "kept"
        assert not os.path.exists(beside)

    async def test_a_program_that_is_not_there_is_an_error_and_no_answer(self, rung: Rung, workspace: str) -> None:
        with pytest.raises(AlcoveError):
            await rung.run(Program(argv=("/usr/bin/no-such-program",), workspace=workspace))

    async def test_nothing_of_it_outlives_it(self, rung: Rung, workspace: str) -> None:
        await rung.run(Program(argv=(self.python, "-I", "-S", "-c", _STAY), workspace=workspace))
        beat = Path(workspace, "beat")
        before = beat.stat().st_size
        assert before >= 9, "the control: it was alive"
        await asyncio.sleep(0.2)
        assert beat.stat().st_size == before


@asynccontextmanager
async def _neighbour(place: Path, uids: range | None) -> AsyncGenerator[Target]:
    spawner = Spawner()
    try:
        async with probe.neighbour(spawner, Berths(place, uids), guarded=uids is not None) as target:
            yield target
    finally:
        await spawner.close()
