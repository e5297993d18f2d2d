"""Whatever fails on the way, the program never runs unconfined, and the failure is named."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from alcove.errors import AgentUnavailableError, ConfigurationError, LaunchError
from alcove.sandbox import launcher, namespaces, processes
from alcove.sandbox.handover import HIDDEN
from alcove.sandbox.plan import Rung
from alcove.sandbox.running import Exit
from alcove.sandbox.spawner import Spawner
from sandbox.conftest import World, finish, new_token, processes_with, until

STEPS = [name for name, _ in (*launcher.AHEAD, *launcher.STEPS)]
FAIL = """
from alcove.sandbox import launcher, processes
def fail(*_):
    {deed}
launcher.AHEAD = [(name, fail if name == {step!r} else step) for name, step in launcher.AHEAD]
launcher.STEPS = [(name, fail if name == {step!r} else step) for name, step in launcher.STEPS]
"""
RAISE = "raise OSError(5, 'on purpose')"
DIE = "import os; os._exit(9)"  # not by a signal: the kernel lets none of its own reach the first of a namespace
# What dies in the last step is the program itself.
BREAKAGES = [(step, deed) for step in STEPS for deed in (RAISE, DIE) if (step, deed) != ("program", DIE)]


async def refused(world: World, spawner: Spawner) -> LaunchError | AgentUnavailableError:
    """Try to start a program, see that it did not run, and return why."""
    policy = world.policy("/usr/bin/touch", f"{world.session()}/ran")
    with pytest.raises((LaunchError, AgentUnavailableError)) as failure:
        await spawner.start(policy.plan(world.sandbox.rung), b"")
    assert not Path(world.session(), "ran").exists()
    return failure.value


@pytest.mark.parametrize(("step", "deed"), BREAKAGES)
async def test_a_step_that_breaks_is_named_and_nothing_runs(
    world: World, broken: Callable[[str], Spawner], step: str, deed: str
) -> None:
    error = await refused(world, broken(FAIL.format(step=step, deed=deed)))
    if step == "program":
        assert isinstance(error, AgentUnavailableError)
    else:
        assert error.details["step"] == step


@pytest.mark.parametrize(
    ("step", "function"), [("view", "furnish"), ("view", "grant"), ("host", "name_host"), ("ids", "map_ids")]
)
async def test_a_broken_view_is_named_and_nothing_runs(
    opened: Callable[..., Any], broken: Callable[[str], Spawner], step: str, function: str
) -> None:
    world = await opened("userns")
    code = f"""
from alcove.sandbox import namespaces
def fail(*_): {RAISE}
namespaces.{function} = fail
"""
    error = await refused(world, broken(code))
    assert error.details == {"step": step, "errno": 5}
    assert "on purpose" in error.message


DEATHS = [
    *("supervisor._prepare", "supervisor._become", "supervisor._fork", "supervisor.keep_only", "supervisor.receive"),
    *("supervisor.read_plan", "supervisor._attend_wrapped", "supervisor._drop", "supervisor._attend"),
    *("namespaces.furnish", "namespaces.name_host", "namespaces.grant"),
]
SHOW = "cat /proc/self/status > shown; exec sleep {}"


@pytest.mark.parametrize("function", DEATHS)
async def test_a_supervisor_that_dies_anywhere_leaves_nothing_and_nothing_ran_unconfined(
    confined_world: World, broken: Callable[[str], Spawner], function: str
) -> None:
    code = f"import os\nfrom alcove.sandbox import namespaces, supervisor\n{function} = lambda *_, **__: os._exit(9)"
    token = new_token()
    policy = confined_world.policy("/bin/sh", "-c", SHOW.format(token))
    spawner = broken(code)
    with suppress(LaunchError):
        process = await spawner.start(policy.plan(confined_world.sandbox.rung), b"")
        await process.kill()  # where nothing died: not every rung goes everywhere
        await finish(process)
    await until(lambda: not processes_with(token))
    assert "Seccomp:\t0" not in shown(confined_world)


def shown(world: World) -> str:
    """What a program has shown of itself, as far as it came."""
    path = Path(world.session(), "shown")
    return path.read_text() if path.exists() else ""


async def test_what_shows_that_a_program_is_confined_is_not_there_by_itself(opened: Callable[..., Any]) -> None:
    world = await opened("none")
    await world.shell(SHOW.format(0))
    assert "Seccomp:\t0" in shown(world)


async def test_no_namespaces_is_a_failed_clone(opened: Callable[..., Any], broken: Callable[[str], Spawner]) -> None:
    world = await opened("userns")
    code = """
from alcove.sandbox import kernel
def fail(flags): raise OSError(28, 'No space left on device')
kernel.clone = fail
"""
    assert (await refused(world, broken(code))).details == {"step": "clone", "errno": 28}


async def test_a_spawner_that_dies_while_it_starts_is_reported(broken: Callable[[str], Spawner], world: World) -> None:
    assert (await refused(world, broken("raise SystemExit"))).details["step"] == "spawner"


async def test_a_spawner_that_dies_at_an_order_is_reported(broken: Callable[[str], Spawner], world: World) -> None:
    code = "import os; from alcove.sandbox import spawning; spawning._Spawner._start = lambda *_: os._exit(1)"
    assert (await refused(world, broken(code))).details["step"] == "spawner"


async def test_a_missing_grant_is_named(confined_world: World, base: Path) -> None:
    missing = f"{base}/not-there"
    with pytest.raises(LaunchError, match="not-there"):
        await confined_world.run("/bin/true", read=(missing,))


async def test_a_grant_that_would_show_what_is_hidden_starts_nothing(world: World, base: Path) -> None:
    with pytest.raises(ConfigurationError, match="would show"):
        await world.shell("touch ran", read=(str(base),), hide=(str(base),))
    assert not Path(world.session(), "ran").exists()


async def test_a_missing_folder_is_named(world: World) -> None:
    with pytest.raises(LaunchError) as failure:
        await world.run("/bin/true", cwd=f"{world.session()}/not-there")
    assert failure.value.details["step"] == "folder"
    assert "not-there" in failure.value.message


async def test_a_file_of_the_machine_that_was_a_folder_is_shown_as_it_is(
    opened: Callable[..., Any], broken: Callable[[str], Spawner]
) -> None:
    world: World = await opened("userns")
    what = namespaces._FURNITURE[False]
    file = next(path for path in what.trees if path in what.files)
    folder = next(path for path in what.trees if path not in what.files and path.startswith("/etc/"))
    code = f"""
from alcove.sandbox import namespaces
for what in namespaces._FURNITURE.values():
    what.files[what.files.index({file!r})] = {folder!r}
    what.folders[what.folders.index({folder!r})] = {file!r}
"""
    policy = world.policy("/bin/sh", "-c", f"[ -f {file} ] && [ -d {folder} ] && cat {file}")
    outcome = await finish(await broken(code).start(policy.plan("userns"), b""))
    assert outcome.stdout == Path(file).read_bytes()


@pytest.mark.parametrize("program", ["no-such-program", "/usr/bin/no-such-program", "./no-such-program"])
async def test_a_program_that_does_not_exist_is_an_unavailable_agent(world: World, program: str) -> None:
    with pytest.raises(AgentUnavailableError, match="no-such-program") as failure:
        await world.run(program)
    assert "read" in failure.value.remedy


async def test_a_program_that_cannot_be_executed_is_an_unavailable_agent(world: World) -> None:
    Path(world.session(), "plain").write_text("text")
    with pytest.raises(AgentUnavailableError):
        await world.run(f"{world.session()}/plain")


async def test_a_program_is_found_in_the_path_of_its_own_environment(world: World) -> None:
    program = Path(world.session(), "mine")
    program.write_text("#!/bin/sh\necho mine\n")
    program.chmod(0o755)
    outcome = await world.run("mine", env={"PATH": f"/nowhere:{world.session()}"})
    assert outcome.stdout == b"mine\n"


async def test_a_start_that_is_cancelled_leaves_nothing(world: World) -> None:
    token = new_token()
    for _ in range(5):
        start = asyncio.ensure_future(world.start("/bin/sleep", token))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
    assert (await world.shell("echo on")).stdout == b"on\n"
    await until(lambda: not processes_with(token))


async def test_a_failed_start_leaves_no_descriptor(world: World) -> None:
    async def fail() -> None:
        with pytest.raises(AgentUnavailableError):
            await world.run("no-such-program")

    await fail()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        await fail()
    assert len(os.listdir("/proc/self/fd")) == before


async def spare_made(world: World) -> None:
    """Wait until the spawner has a supervisor waiting for the next run, and nothing else to do."""
    spawner = world.sandbox.spawner_pid or 0
    await until(lambda: len([p for p in processes.descendants(spawner).values() if p.parent == spawner]) == 1)
    await until(lambda: len(processes.descendants(spawner)) == (1 if world.sandbox.rung in HIDDEN else 2))


async def test_a_finished_run_leaves_no_descriptor_and_the_spawner_none(world: World) -> None:
    await world.shell("true")
    await spare_made(world)
    mine = len(os.listdir("/proc/self/fd"))
    its = len(os.listdir(f"/proc/{world.sandbox.spawner_pid}/fd"))
    for _ in range(10):
        await world.shell("true")
    assert len(os.listdir("/proc/self/fd")) == mine
    await spare_made(world)
    assert len(os.listdir(f"/proc/{world.sandbox.spawner_pid}/fd")) == its


async def test_the_spawner_knows_nothing_of_the_server_and_of_no_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SECRET", "of the server")
    token = new_token()
    outcome = await world.shell("true", env={"RUN_SECRET": token})
    assert outcome.exit == Exit(code=0, signal=None)
    spawner = f"/proc/{world.sandbox.spawner_pid}"
    assert Path(spawner, "environ").read_bytes() == b""
    # Its control socket, and the way to and from the supervisor that waits for the next run.
    await until(lambda: settled(held(spawner)))
    assert token.encode() not in _memory(f"{spawner}/mem", f"{spawner}/maps")


def held(process: str) -> list[str]:
    """What a process has open."""
    targets: list[str] = []
    for name in os.listdir(f"{process}/fd"):
        with suppress(FileNotFoundError):
            targets.append(os.readlink(f"{process}/fd/{name}"))
    return targets


def settled(targets: list[str]) -> bool:
    """Whether that is all that a spawner has open when nothing goes on."""
    kinds = [target.split(":")[0] for target in targets]
    few = kinds.count("socket") <= 2 and kinds.count("pipe") <= 1
    return few and {*kinds} <= {"/dev/null", "socket", "pipe", "anon_inode"}


def _memory(mem: str, maps: str) -> bytes:
    found = b""
    with open(maps) as ranges, open(mem, "rb") as file:
        for line in ranges:
            extent, modes, *_ = line.split()
            if modes.startswith("rw"):
                first, last = (int(one, 16) for one in extent.split("-"))
                file.seek(first)
                found += file.read(last - first)
    return found


async def test_sixty_four_mebibytes_of_output_arrive(world: World) -> None:
    process = await world.start("/bin/sh", "-c", "head -c 67108864 /dev/zero; head -c 100000 /dev/zero >&2")
    lengths = {"stdout": 0, "stderr": 0}
    async for stream, chunk in process.output():
        assert 0 < len(chunk) <= 65536
        lengths[stream] += len(chunk)
    assert lengths == {"stdout": 64 << 20, "stderr": 100000}
    assert await process.wait() == Exit(code=0, signal=None)


async def test_a_reader_that_waits_slows_the_program_down(world: World) -> None:
    program = "i=0; while [ $i -lt 200 ]; do head -c 10000 /dev/zero; i=$((i+1)); echo $i > at; done"
    process = await world.start("/bin/sh", "-c", program)
    at = Path(world.session(), "at")
    await until(at.exists)
    await asyncio.sleep(0.3)
    assert int(at.read_text() or 0) < 200
    outcome = await finish(process)
    assert len(outcome.stdout) == 2_000_000


async def test_a_spare_that_died_is_not_used(world: World) -> None:
    for _ in range(3):
        await world.shell("true")
        await spare_made(world)
        for pid, process in processes.descendants(world.sandbox.spawner_pid or 0).items():
            processes.send(pid, process.started, signal.SIGKILL)
        await until(lambda: not processes.descendants(world.sandbox.spawner_pid or 0))
    assert (await world.shell("echo on")).stdout == b"on\n"


async def test_a_change_of_kind_gets_a_supervisor_of_that_kind(confined_world: World) -> None:
    for network in ("none", "host", "none", "host"):
        outcome = await confined_world.shell("ls /proc/net/dev; wc -l < /proc/net/dev", network=network)
        assert outcome.exit.code == 0
        outcome = await confined_world.python("import socket; socket.socket(socket.AF_INET)", network=network)
        assert (outcome.exit.code == 0) == (network == "host" or confined_world.view)


async def test_a_session_made_after_the_waiting_supervisor_is_seen(opened: Callable[..., Any], base: Path) -> None:
    world: World = await opened("userns")
    await world.shell("true")
    await spare_made(world)
    later = Path(world.session("later"), "file")
    later.write_text("here")
    folder = str(later.parent)
    outcome = await world.shell("cat file", cwd=folder, write=(folder,))
    assert outcome.stdout == b"here"


async def test_fifty_programs_run_at_once(opened: Callable[..., Any], confined: Rung) -> None:
    world = await opened(confined)
    outcomes = await asyncio.gather(*(world.shell(f"echo {n}; exit {n}") for n in range(50)))
    assert [outcome.exit.code for outcome in outcomes] == list(range(50))
    assert [outcome.stdout for outcome in outcomes] == [f"{n}\n".encode() for n in range(50)]


async def test_a_spawner_without_descriptors_says_so_and_goes_on(
    opened: Callable[..., Any], broken: Callable[[str], Spawner], rung: Rung
) -> None:
    world: World = await opened(rung)
    code = """
import os
real, tried = os.pidfd_open, []
def fail(pid, flags=0):
    tried.append(pid)
    if len(tried) in (2, 3): raise OSError(24, 'Too many open files')
    return real(pid, flags)
os.pidfd_open = fail
"""
    spawner = broken(code)
    for _ in range(2):
        assert (await refused(world, spawner)).details == {"step": "clone", "errno": 24}
    await until(lambda: not processes.descendants(spawner.pid or 0))  # not even a zombie
    process = await spawner.start(world.policy("/bin/true").plan(rung), b"")
    assert (await finish(process)).exit == Exit(code=0, signal=None)
