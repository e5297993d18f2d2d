"""`alcove serve` that, once there is a file `armed`, notes each step that it takes, and kills itself at the one named.

The step is named by the first argument, `''` for none. It is before or after a transaction, an order to the spawner, or
a change of folders.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alcove.database.sqlite import SqliteDatabase
from alcove.runs.place import RunFolder
from alcove.sandbox.spawner import Spawner
from alcove.server.serving import serve
from alcove.settings.loading import load
from alcove.workspaces.base import Base
from alcove.workspaces.service import Workspaces

END = sys.argv[1]


def step(name: str) -> None:
    """Note a step, and end at the one that was named."""
    if not Path("armed").exists():
        return
    with Path("steps").open("a") as file:
        file.write(f"{name}\n")
    if name == END:
        os.kill(os.getpid(), signal.SIGKILL)


def watched(change: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
    """Make two steps of a function: before and after it."""
    if inspect.iscoroutinefunction(change):

        async def changing_later(*args: Any, **kwargs: Any) -> Any:
            step(f"before {name(*args)}")
            result = await change(*args, **kwargs)
            step(f"after {name(*args)}")
            return result

        return changing_later

    def changing(*args: Any, **kwargs: Any) -> Any:
        step(f"before {name(*args)}")
        result = change(*args, **kwargs)
        step(f"after {name(*args)}")
        return result

    return changing


def _order(_: Spawner, message: dict[str, Any], *__: object) -> str:
    return "start" if "rung" in message else next(iter(message))


def _operation(_: SqliteDatabase, operation: Callable[..., Any], *__: object) -> str:
    return operation.__name__


def _named(label: str) -> Callable[..., str]:
    def name(*_: object) -> str:
        return label

    return name


def watch() -> None:
    """Watch what changes anything."""
    for owner, name in (
        (RunFolder, "make"),
        (RunFolder, "remove"),
        (Base, "trash"),
        (Base, "discard"),
        (Base, "purge_session"),
        (Workspaces, "_make"),
        (Workspaces, "_purge"),
    ):
        setattr(owner, name, watched(getattr(owner, name), _named(f"{owner.__name__}.{name}")))
    Spawner.tell = watched(Spawner.tell, _order)
    SqliteDatabase.write = watched(SqliteDatabase.write, _operation)


if __name__ == "__main__":
    watch()
    asyncio.run(serve(load()))
