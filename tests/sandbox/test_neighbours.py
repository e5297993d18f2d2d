"""What a neighbour gives away by its arguments or by its own modes: nothing, on every rung that confines."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alcove.sandbox.plan import Rung
from sandbox.conftest import PYTHON, ROOT, UIDS, World, line, new_token

LOOK = (
    "import glob\n"
    "for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
    "    try: print(open(path).read().replace(chr(0), ' '))\n"
    "    except OSError: pass  # it ended meanwhile"
)
LOOK_BY_NUMBER = (
    "for pid in range(1, 1 << 16):\n"
    "    try: print(open(f'/proc/{pid}/cmdline').read().replace(chr(0), ' '))\n"
    "    except OSError: pass"
)
OPEN = (
    "import os, socket, time\n"
    "s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen(); os.chmod('s', 0o777)\n"
    "open('file', 'w').close(); os.chmod('file', 0o666)\n"
    "try: os.chmod('.', 0o777); print('open', flush=True)\n"
    "except PermissionError: print('shut', flush=True)\n"
    "time.sleep(600)"
)
REACH = (
    "import os, socket, sys\n"
    "for name, one in dict(\n"
    "    connect=lambda: socket.socket(socket.AF_UNIX).connect(sys.argv[1] + '/s'),\n"
    "    stat=lambda: os.stat(sys.argv[1] + '/file'),\n"
    "    enter=lambda: os.chdir(sys.argv[1]),\n"
    "    mark=lambda: os.setxattr(sys.argv[1] + '/file', 'user.mark', b'x'),\n"
    "    touch=lambda: os.utime(sys.argv[1] + '/file'),\n"
    ").items():\n"
    "    try: one(); print(name)\n"
    "    except OSError: pass"
)


async def neighbour(world: World, program: str, *arguments: str) -> tuple[str, Any, bytes]:
    """Start a program of another session and return its folder, the process and its first line."""
    folder = world.session("neighbour", UIDS[1])
    uid = UIDS[1] if ROOT else None
    process = await world.start(PYTHON, "-I", "-S", "-c", program, *arguments, uid=uid, cwd=folder, write=(folder,))
    return folder, process, await line(process)


@pytest.mark.parametrize("look", [LOOK, LOOK_BY_NUMBER])
async def test_the_arguments_of_a_neighbour_are_not_seen(confined_world: World, look: str) -> None:
    """They hold prompts, names of sessions and, too often, keys."""
    _, process, _ = await neighbour(
        confined_world, "print('up', flush=True); import time; time.sleep(600)", "NEIGHBOUR-KEY"
    )
    said = await confined_world.python(look)
    assert b"NEIGHBOUR-KEY" not in said.stdout
    await process.kill()


async def test_the_arguments_of_a_neighbour_are_seen_where_nothing_confines(opened: Callable[..., Any]) -> None:
    world = await opened("none")
    _, process, _ = await neighbour(world, "print('up', flush=True); import time; time.sleep(600)", "NEIGHBOUR-KEY")
    assert b"NEIGHBOUR-KEY" in (await world.python(LOOK)).stdout
    await process.kill()


@pytest.mark.skipif(not ROOT, reason="an ordinary user has no leased uids, and the vector says what is open then")
async def test_a_neighbour_that_opens_its_own_workspace_is_still_closed(confined_world: World) -> None:
    """`chmod -R 777 .` is what people type; it must not undo what separates sessions."""
    folder, process, said = await neighbour(confined_world, OPEN)
    assert said == (b"shut\n" if confined_world.sandbox.guarded else b"open\n")
    assert (await confined_world.python(REACH, folder)).stdout == b""
    await process.kill()


@pytest.mark.skipif(not ROOT, reason="needs leased uids")
async def test_what_was_opened_is_reached_where_nothing_confines(opened: Callable[..., Any], base: Path) -> None:
    """The control: without the guard, modes alone let everybody in."""
    world = await opened("none")
    world.session("neighbour", UIDS[1])
    (base / "neighbour").chmod(0o700)
    os.chown(base / "neighbour", UIDS[1], UIDS[1])
    folder, process, said = await neighbour(world, OPEN)
    assert said == b"open\n"
    reached = (await world.python(REACH, folder)).stdout.split()
    assert reached == [b"connect", b"stat", b"enter", b"mark", b"touch"]
    await process.kill()


HEAR = (
    "import os, signal, sys\n"
    "signal.signal(signal.SIGURG, lambda *_: os.write(1, b'hit\\n'))\n"
    "print('up', flush=True)\n"
    "while True: signal.pause()"
)
# As owner of a file, somebody else is signalled by the kernel when it can be read: SIGURG, which harms nobody.
OWN = (
    "import fcntl, os, socket, struct, sys\n"
    "a, b = socket.socketpair()\n"
    "for command, value in ((fcntl.F_SETOWN, int(sys.argv[1])), (15, struct.pack('ii', 1, int(sys.argv[1])))):\n"
    "    try: fcntl.fcntl(a, command, value); print('owner')\n"
    "    except OSError: print('refused')\n"
    "    fcntl.fcntl(a, 10, 23)\n"
    "    fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)\n"
    "    b.send(b'x')"
)


async def heard(listener: asyncio.subprocess.Process) -> bytes:
    """Return what a process has said once it has been sent a signal that it certainly gets."""
    assert listener.stdout
    listener.send_signal(signal.SIGTERM)
    said = await listener.stdout.read()
    await listener.wait()
    return said


async def listening(uid: int | None) -> asyncio.subprocess.Process:
    """Start somebody who tells of each SIGURG, outside of every sandbox."""
    listener = await asyncio.create_subprocess_exec(
        *(PYTHON, "-I", "-S", "-c", HEAR),
        stdout=subprocess.PIPE,
        user=uid,
        group=uid,
        extra_groups=[] if ROOT else None,
    )
    assert listener.stdout
    assert await listener.stdout.readline() == b"up\n"
    return listener


async def test_nobody_is_signalled_as_the_owner_of_a_file(confined_world: World) -> None:
    """The server's own user and the run's own uid: neither hears of it."""
    for uid in (None, UIDS[0]) if ROOT else (None,):
        listener = await listening(uid)
        said = await confined_world.python(OWN, str(listener.pid))
        assert said.stdout.split(), said
        assert await heard(listener) == b""


async def test_the_owner_of_a_file_is_signalled_where_nothing_confines(opened: Callable[..., Any]) -> None:
    world = await opened("none")
    listener = await listening(UIDS[0] if ROOT else None)
    assert (await world.python(OWN, str(listener.pid))).stdout.split() == [b"owner", b"owner"]
    assert b"hit\n" in await heard(listener)


PLANT = (
    "import os, sys\n"
    "own, *places = sys.argv[1:]\n"
    "for place in places:\n"
    "    try: os.symlink(own, place + '/planted-' + os.path.basename(own)); print(place)\n"
    "    except OSError: pass"
)


def places(world: World) -> list[str]:
    """Where programs of different users meet, and the folders that the server works in."""
    return [
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        str(world.base),
        str(world.base / ".alcove"),
        str(world.base / ".alcove/temp"),
    ]


def planted(world: World, token: str) -> list[str]:
    """Return where a link of that name lies, and remove it."""
    found = [place for place in places(world) if os.path.lexists(f"{place}/planted-{token}")]
    for place in found:
        os.unlink(f"{place}/planted-{token}")
    return found


async def test_no_name_can_be_planted_where_others_would_meet_it(confined_world: World) -> None:
    (confined_world.base / ".alcove/temp").mkdir(parents=True)
    own = f"{confined_world.session()}/{new_token()}"
    await confined_world.python(PLANT, own, *places(confined_world))
    assert planted(confined_world, os.path.basename(own)) == []


async def test_names_are_planted_where_nothing_confines(opened: Callable[..., Any]) -> None:
    world = await opened("none")
    own = f"{world.session()}/{new_token()}"
    await world.python(PLANT, own, *places(world))
    assert {"/tmp", "/var/tmp", "/dev/shm"} <= set(planted(world, os.path.basename(own)))


ABOVE = (
    "import os, resource\n"
    "pid = os.getppid()\n"
    "for name, one in dict(\n"
    "    memory=lambda: open(f'/proc/{pid}/mem', 'rb').close(),\n"
    "    environment=lambda: print(open(f'/proc/{pid}/environ').read().replace(chr(0), ' ')),\n"
    "    descriptors=lambda: print(*(os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd'))),\n"
    "    root=lambda: os.listdir(f'/proc/{pid}/root/'),\n"
    "    limit=lambda: resource.prlimit(pid, resource.RLIMIT_CORE),\n"
    "    signal=lambda: os.kill(pid, 0),\n"
    ").items():\n"
    "    try: one(); print('DONE', name)\n"
    "    except OSError: pass"
)


async def test_what_supervises_a_program_gives_it_nothing(
    confined_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SIDE", "sk-of-the-server")
    said = (await confined_world.python(ABOVE)).stdout.decode()
    if confined_world.sandbox.rung != "bwrap":
        # Of one user and in one namespace: its limits, and signals that it does not obey. Both concern this run alone.
        assert said == ("DONE limit\nDONE signal\n" if confined_world.sandbox.rung == "userns" else "")
        return
    # Bubblewrap's own first process is the program's to look into. It has the run's own environment and standard input.
    assert "DONE environment" in said
    assert "sk-of-the-server" not in said
    descriptors = said.split("DONE environment\n")[1].split("\n")[0].removeprefix("/memfd:stdin (deleted)").split()
    assert descriptors
    assert all(one.startswith(("/dev/null", "pipe:", "socket:", "anon_inode:")) for one in descriptors), descriptors


SIGNALS = """
import os, signal
for number in (*range(1, signal.SIGRTMIN), signal.SIGRTMIN, signal.SIGRTMAX):
    try: os.kill(os.getppid(), number)
    except OSError: pass
print("on", flush=True)
raise SystemExit(3)
"""


# On bwrap it is bubblewrap that is above a program, and the end of that is the end of the run.
@pytest.mark.parametrize("fenced", ["userns", "landlock"])
async def test_what_supervises_a_program_obeys_none_of_its_signals(opened: Callable[..., Any], fenced: Rung) -> None:
    outcome = await (await opened(fenced)).python(SIGNALS)
    assert (outcome.stdout, outcome.exit.code) == (b"on\n", 3)


async def test_signals_to_what_supervises_a_program_end_the_run_where_nothing_confines(
    opened: Callable[..., Any],
) -> None:
    outcome = await (await opened("none")).python(SIGNALS, uid=None)
    assert outcome.exit.code is None


async def test_what_supervises_a_program_is_open_where_nothing_confines(
    opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_SIDE", "sk-of-the-server")
    said = (await (await opened("none")).python(ABOVE, uid=None)).stdout.decode()
    done = {line.removeprefix("DONE ") for line in said.splitlines() if line.startswith("DONE ")}
    open_to_all = {"limit", "signal"}  # the rest is closed to an ordinary user by the supervisor itself
    assert done == ({*open_to_all, "memory", "environment", "descriptors", "root"} if ROOT else open_to_all)
