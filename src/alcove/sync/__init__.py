"""The blocking door: the hub for threads without an event loop (Flask, scripts, notebooks).

One thread runs the event loop in which the async hub lives; everything here is a way into it, and nothing is
implemented twice. Signatures are in `__init__.pyi`, which `make stubs` generates from the async ones.
"""

from __future__ import annotations

import atexit
import functools
import threading
import weakref
from concurrent.futures import thread as _pools
from importlib import import_module
from typing import Any

from alcove import hub as _hub
from alcove.sync import doors as _doors
from alcove.sync.names import NAMES
from alcove.sync.portal import Portal

__all__ = ["open"]

_portals: weakref.WeakSet[Portal] = weakref.WeakSet()


@functools.wraps(_hub.open)
def open(*args: Any, **kwargs: Any) -> Any:  # noqa: A001 - the name of the async one
    """Open an installation, like `alcove.open`, and return it: for a `with` statement, or to be closed by `close`."""
    portal = Portal()
    hub = portal.open(functools.partial(_hub.open, *args, **kwargs))
    _portals.add(portal)
    return _doors.door_class(type(hub), _doors.Hub)(portal, hub)


def __getattr__(name: str) -> type[_doors.Door]:
    """Return the class of a door, for annotations and `isinstance`."""
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, kind = NAMES[name].partition(":")
    return _doors.door_class(getattr(import_module(module), kind), _doors.Hub if name == "Alcove" else _doors.Door)


def _close_all() -> None:
    for portal in list(_portals):
        portal.close()


# The end of the interpreter takes the thread pools away before it calls what `atexit` knows, and closing needs them:
# so this has to be called before theirs, which is why it is registered after it.
assert _pools
getattr(threading, "_register_atexit", atexit.register)(_close_all)
