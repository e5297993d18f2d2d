"""What a neighbour gives away by its arguments or by its own modes: nothing, on every rung that confines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandbox.conftest import PYTHON, ROOT, UIDS, World, line

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
