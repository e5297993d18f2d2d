"""No process outlives its run, whoever ends first."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alcove.errors import ClosedError
from alcove.sandbox import processes
from alcove.sandbox.plan import Rung
from alcove.sandbox.running import Exit, Process
from alcove.sandbox.spawner import Spawner
from sandbox.conftest import PYTHON, ROOT, UIDS, World, ended, finish, line, new_token, processes_with, sleepers, until

# Every way we know in which a process gets away from its parent.
WAYS = {
    "background": "sleep {token} &",
    "nohup": "nohup sleep {token} >/dev/null 2>&1 &",
    "setsid": "setsid sleep {token} &",
    "double fork": "(setsid sh -c 'sleep {token} &' &)",
    "stopped": "sleep {token} &",  # and stopped from outside
    "deaf": "sh -c 'trap \"\" TERM INT HUP; sleep {token}; :' &",
}
EVERYTHING = "".join(f"{way}\n" for way in WAYS.values())
SLEEPERS = len(WAYS) + 1
DEAF = "import time; from alcove.sandbox import supervisor; supervisor._attend = lambda *_, **__: time.sleep(600)"


async def lively(world: World, token: str) -> Process:
    """Start a program with descendants of every kind, all alive."""
    process = await world.start("/bin/sh", "-c", EVERYTHING.format(token=token) + f"sleep {token}")
    await until(lambda: len(sleepers(token)) >= SLEEPERS)
    os.kill(sleepers(token)[0], signal.SIGSTOP)
    return process


@pytest.mark.parametrize("way", WAYS)
async def test_nothing_is_left_when_the_program_ends(world: World, way: str) -> None:
    token = new_token()
    process = await world.start(
        "/bin/sh", "-c", WAYS[way].format(token=token) + "\nuntil [ -e go ]; do :; done; exit 3"
    )
    await until(lambda: sleepers(token))
    if way == "stopped":
        os.kill(sleepers(token)[0], signal.SIGSTOP)
    Path(world.session(), "go").touch()
    outcome = await finish(process)
    assert outcome.exit == Exit(code=3, signal=None)
    assert processes_with(token) == []


async def test_a_killed_tree_is_gone_when_kill_returns(world: World) -> None:
    token = new_token()
    process = await lively(world, token)
    await process.kill()
    assert processes_with(token) == []
    assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)
    await process.kill()


async def test_what_is_due_at_an_end_is_done_before_anybody_hears_of_it() -> None:
    due: list[str] = []
    process = Process(1, Spawner().tell, *os.pipe())
    process.on_end(lambda: due.append("first"))
    process.end(Exit(code=0, signal=None))
    await process.wait()  # does not wait, as it has ended: nothing else runs meanwhile
    assert due == ["first"]
    process.on_end(lambda: due.append("late"))
    assert due == ["first", "late"]


async def test_a_program_may_end_by_itself_when_asked(world: World) -> None:
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"
    process = await world.start("/bin/sh", "-c", script)
    output = process.output()
    assert await anext(output) == ("stdout", b"up\n")
    await process.kill(grace_s=20)
    assert await process.wait() == Exit(code=7, signal=None)
    await output.aclose()


async def test_a_program_that_does_not_listen_is_killed_after_the_grace(world: World) -> None:
    process = await world.start("/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.01; done")
    await line(process)
    await process.kill(grace_s=0.2)
    assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)


async def test_a_program_that_is_signalled_says_so(world: World) -> None:
    outcome = await world.shell("kill -USR1 $$")
    assert outcome.exit == Exit(code=None, signal=signal.SIGUSR1)


async def test_output_ends_with_the_tree_even_when_a_pipe_is_held_elsewhere(world: World) -> None:
    token = new_token()
    process = await world.start("/bin/sh", "-c", f"echo up; exec sleep {token}")
    output = process.output()
    assert await anext(output) == ("stdout", b"up\n")
    await until(lambda: sleepers(token))
    # Somebody outside of the tree holds its output, as one would to whom it passed the descriptor.
    with open(f"/proc/{sleepers(token)[0]}/fd/1", "wb", buffering=0) as held:
        held.write(b"more")
        await process.kill()
        assert [chunk async for chunk in output] == [("stdout", b"more")]


async def test_end_tree_ends_what_another_server_left(world: World) -> None:
    token = new_token()
    process = await lively(world, token)
    named = (process.pid, process.start_time, process.boot_id)
    assert await asyncio.to_thread(processes.end_tree, *named)
    assert processes_with(token) == []
    assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)
    assert await asyncio.to_thread(processes.end_tree, *named), "there is nothing left to end"


async def test_end_tree_ends_a_tree_whose_supervisor_does_not_answer(
    world: World, broken: Callable[[str], Spawner]
) -> None:
    token = new_token()
    policy = world.policy("/bin/sh", "-c", EVERYTHING.format(token=token) + f"sleep {token}")
    process = await broken(DEAF).start(policy.plan(world.sandbox.rung), b"")
    await until(lambda: len(sleepers(token)) == SLEEPERS)
    named = (process.pid, process.start_time, process.boot_id)
    assert await asyncio.to_thread(processes.end_tree, *named, timeout_s=1)
    await until(lambda: not processes_with(token))


async def test_kill_ends_a_tree_whose_supervisor_does_not_answer(
    world: World, broken: Callable[[str], Spawner], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = new_token()
    monkeypatch.setattr("alcove.sandbox.running._PATIENCE_S", 0.1)
    policy = world.policy("/bin/sh", "-c", EVERYTHING.format(token=token) + f"sleep {token}")
    process = await broken(DEAF).start(policy.plan(world.sandbox.rung), b"")
    await until(lambda: len(sleepers(token)) == SLEEPERS)
    await process.kill()
    assert processes_with(token) == []


async def test_end_tree_spares_who_has_the_pid_now(world: World) -> None:
    process = await world.start("/bin/sh", "-c", "echo up; sleep 600")
    await line(process)
    assert processes.end_tree(process.pid, process.start_time + 1, process.boot_id)
    assert processes.end_tree(process.pid, process.start_time, "another boot")
    assert processes.start_time(process.pid) == process.start_time
    await process.kill()


async def test_a_dead_spawner_takes_its_trees_along_and_is_replaced(world: World) -> None:
    token = new_token()
    running = [await lively(world, token) for _ in range(3)]
    spawner = world.sandbox.spawner_pid
    assert spawner is not None
    os.kill(spawner, signal.SIGKILL)
    for process in running:
        assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)
    assert processes_with(token) == []
    assert (await world.shell("echo again")).stdout == b"again\n"
    assert world.sandbox.spawner_pid != spawner


async def test_a_dead_supervisor_takes_its_tree_along(world: World) -> None:
    token = new_token()
    process = await lively(world, token)
    os.kill(process.pid, signal.SIGKILL)
    assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)
    assert processes_with(token) == []


async def test_a_program_ends_when_spawner_and_supervisor_end_at_once(world: World) -> None:
    token = new_token()
    process = await world.start("/bin/sleep", token)
    await until(lambda: sleepers(token))
    spawner = world.sandbox.spawner_pid
    assert spawner is not None
    os.kill(spawner, signal.SIGSTOP)  # so that it cannot see to what the supervisor leaves
    os.kill(process.pid, signal.SIGKILL)
    os.kill(spawner, signal.SIGKILL)
    assert await process.wait() == Exit(code=None, signal=signal.SIGKILL)
    await until(lambda: not processes_with(token))


async def test_closing_ends_every_tree(world: World) -> None:
    token = new_token()
    running = [await lively(world, token) for _ in range(3)]
    spawner = world.sandbox.spawner_pid
    await world.sandbox.close()
    assert processes_with(token) == []
    assert processes.start_time(spawner or 0) is None
    assert all([(await process.wait()).signal == signal.SIGKILL for process in running])
    with pytest.raises(ClosedError):
        await world.shell("echo too late")


OWNER = """
import asyncio, sys
from pathlib import Path
from alcove.sandbox.policy import Policy
from alcove.sandbox.service import Sandbox

async def main(rung, cache, folder, uid, script):
    sandbox = await Sandbox.open(rung=rung, minimum=frozenset(), cache=Path(cache))
    policy = Policy(
        argv=("/bin/sh", "-c", script), env={"PATH": "/usr/bin:/bin"}, cwd=folder, write=(folder,), uid=int(uid) or None
    )
    process = await sandbox.spawn(policy)
    async for _, chunk in process.output():
        print(sandbox.spawner_pid, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_dead_server_takes_everything_along(
    base: Path, cache: Path, rung: Rung, number: signal.Signals
) -> None:
    token = new_token()
    folder = base / "own"
    folder.mkdir(mode=0o700)
    uid = UIDS[0] if ROOT else 0
    os.chown(folder, uid or os.getuid(), uid or os.getgid())
    script = EVERYTHING.format(token=token) + f"echo up; sleep {token}"
    source = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, rung, str(cache), str(folder), str(uid), script],
        env={"PYTHONPATH": source},
        stdout=subprocess.PIPE,
    ) as owner:
        assert owner.stdout is not None
        spawner = int(owner.stdout.readline())
        owner.send_signal(number)
        owner.wait()
    await until(lambda: not processes_with(token))
    await until(lambda: ended(spawner))


async def test_closing_leaves_no_supervisor_that_waits_for_a_run(
    world: World, broken: Callable[[str], Spawner]
) -> None:
    token = new_token()
    for patience in range(10):
        spawner = broken(f"# {token}")  # forked processes have the arguments of the spawner
        process = await spawner.start(world.policy("true").plan(world.sandbox.rung), b"")
        await finish(process)
        for _ in range(patience * 20):
            await asyncio.sleep(0)
        await spawner.close()
    await until(lambda: not processes_with(token), within_s=5)


@pytest.mark.parametrize("confined", ["userns", *(["bwrap", "landlock"] if ROOT else [])])
async def test_a_fork_bomb_is_ended(opened: Callable[..., Any], confined: Rung) -> None:
    # Not on the others without a leased uid: there the limit is one for all that this user runs.
    token = new_token()
    world: World = await opened(confined)
    # Not a shell's: that ends where it cannot fork, and the bomb with it.
    bomb = f"import os\n# {token}\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    process = await world.start(PYTHON, "-I", "-S", "-c", bomb, processes=60)
    await until(lambda: len(processes_with(token)) > 20)
    await process.kill()
    process.close()
    assert processes_with(token) == []
