"""What a neighbour gives away by its arguments or by its own modes: nothing in a view; on `landlock` what
docs/isolation.md says there. These tests hold both, so that the page changes when the code does.
"""

from __future__ import annotations

import pytest

from alcove.sandbox.plan import Rung
from sandbox.conftest import PYTHON, ROOT, UIDS, World, line


async def test_the_arguments_of_a_neighbour_are_not_in_a_view(confined_world: World, confined: Rung) -> None:
    """They hold prompts, names of sessions and, too often, keys."""
    folder = confined_world.session("neighbour", UIDS[1])
    program = "print('up', flush=True); import time; time.sleep(60)"
    uid = UIDS[1] if ROOT else None
    neighbour = await confined_world.start(
        PYTHON, "-I", "-S", "-c", program, "NEIGHBOUR-KEY", uid=uid, cwd=folder, write=(folder,)
    )
    await line(neighbour)
    look = "import glob\nfor p in glob.glob('/proc/[0-9]*/cmdline'):\n print(open(p).read().replace(chr(0), ' '))"
    said = (await confined_world.python(look)).stdout
    await neighbour.kill()
    assert (b"NEIGHBOUR-KEY" in said) == (confined == "landlock")


@pytest.mark.skipif(not ROOT, reason="needs leased uids")
async def test_a_neighbour_that_opens_its_own_workspace_is_still_closed_in_a_view(
    confined_world: World, confined: Rung
) -> None:
    """`chmod -R 777 .` is what people type; it must not undo what separates sessions."""
    folder = confined_world.session("neighbour", UIDS[1])
    program = (
        "import os, socket, time\ns = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()\n"
        "os.chmod('s', 0o777); os.chmod('.', 0o777) if os.stat('.').st_uid == os.getuid() else 0\n"
        "print('up', flush=True); time.sleep(60)"
    )
    neighbour = await confined_world.start(PYTHON, "-I", "-S", "-c", program, uid=UIDS[1], cwd=folder, write=(folder,))
    await line(neighbour)
    reach = f"import socket\ns = socket.socket(socket.AF_UNIX); s.connect({folder + '/s'!r}); print('reached')"
    said = (await confined_world.python(reach)).stdout
    await neighbour.kill()
    assert (said == b"reached\n") == (confined == "landlock")
