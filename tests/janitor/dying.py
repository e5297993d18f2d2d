"""Does one thing with a session, and kills itself at the step that it is told: FOLDER ACT SESSION STEP."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import alcove.hub
from alcove.hub import Alcove
from alcove.janitor.model import What
from alcove.workspaces import base

_steps = iter(range(1, int(sys.argv[4])))


def step() -> None:
    """Count down to the end. A step is before and after each transaction, and each change of a folder."""
    if next(_steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)


def watched(change: Callable[..., Any]) -> Callable[..., Any]:
    def changing(*args: Any, **kwargs: Any) -> Any:
        step()
        result = change(*args, **kwargs)
        step()
        return result

    return changing


async def act(hub: Alcove, what: str, session_id: str) -> None:
    """Do what is asked."""
    match what:
        case "trash":
            await hub.sessions.delete(session_id)
        case "restore":
            await hub.sessions.restore(session_id)
        case "purge" | "purge from outside":
            await hub.sessions.delete(session_id, purge=True)
        case "sweep":
            await hub.janitor.clean(What.EXPIRED)
        case _:
            await hub.janitor.clean(What.TRASH, older_s=0)


async def main() -> None:
    """Open the installation, and from then on count."""
    async with alcove.hub.open(workspaces=sys.argv[1]) as hub:
        write = hub.database.write

        async def writing(*args: Any, **kwargs: Any) -> Any:
            step()
            result = await write(*args, **kwargs)
            step()
            return result

        hub.database.write = writing
        for name in ("mkdir", "rmdir", "rename", "unlink"):
            setattr(os, name, watched(getattr(os, name)))
        base.rename_new = watched(base.rename_new)
        await act(hub, sys.argv[2], sys.argv[3])
        os._exit(0)  # what comes now was not asked for


if __name__ == "__main__":
    asyncio.run(main())
