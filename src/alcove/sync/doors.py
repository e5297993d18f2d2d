"""Blocking doors: for each async class one class with the same methods, each of which waits in the caller's thread.

They are made from the async classes when they are first needed; what type checkers see of them is `__init__.pyi`,
generated from the same classes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from alcove.sync.portal import Portal, Steps

T = TypeVar("T")

_made: dict[type, type[Door]] = {}


class Door:
    """The blocking side of one object. Attributes are the object's own; methods wait for its coroutines."""

    __slots__ = ("_portal", "_target")

    def __init__(self, portal: Portal, target: object) -> None:
        self._portal = portal
        self._target = target

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        called = functools.partial(getattr(self._target, name), *args, **kwargs)
        return passed(self._portal, self._portal.call(called))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return passed(self._portal, getattr(self._target, name))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in dir(self._target) if not name.startswith("_"))})

    def __repr__(self) -> str:
        return f"<blocking {self._target!r}>"


class Hub(Door):
    """An open installation, for threads without an event loop; see `alcove.hub.Alcove`.

    Use it in a `with` statement, or call `close`; at the end of the interpreter it is closed.
    """

    __slots__ = ()

    def close(self) -> None:
        """Cancel what runs and close the installation. Twice is fine; afterwards everything raises ClosedError."""
        self._portal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def door_class(kind: type, base: type[Door] = Door) -> type[Door]:
    """Return the class of the doors of objects of a class."""
    if kind not in _made:
        methods = {name: _blocking(name, method) for name, method in public_methods(kind)}
        made = type(kind.__name__, (base,), {"__slots__": (), "__doc__": kind.__doc__, **methods})
        made.__module__ = "alcove.sync"
        _made.setdefault(kind, made)
    return _made[kind]


def public_methods(kind: type) -> list[tuple[str, Callable[..., Any]]]:
    """Return the methods of a class that callers may use, inherited ones included."""
    return [(name, method) for name, method in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"]


@functools.cache
def is_async(kind: type) -> bool:
    """Return whether a class is one of ours that has something to wait for, so that it needs a door."""
    return kind.__module__.startswith("alcove.") and any(
        inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method) for _, method in public_methods(kind)
    )


def passed(portal: Portal, value: object) -> Any:
    """Return a value as it passes to the caller: what has something to wait for as its door, the rest as it is."""
    if type(value) is tuple:
        return tuple(passed(portal, one) for one in cast("tuple[object, ...]", value))
    if isinstance(value, AsyncIterator):
        return BlockingIterator(portal, cast("AsyncIterator[object]", value))
    kind: type = type(value)
    if is_async(kind):
        return door_class(kind)(portal, value)
    if isinstance(value, AbstractAsyncContextManager):
        return BlockingContext(portal, cast("AbstractAsyncContextManager[object]", value))
    return value


def _blocking(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Door, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, *args, **kwargs)  # pyright: ignore[reportPrivateUsage] - it becomes a method of it

    return call


class BlockingIterator(Iterator[T]):
    """An async iterator for a `for` loop. Leaving the loop early ends it, not what it listens to."""

    def __init__(self, portal: Portal, source: AsyncIterator[T]) -> None:
        self._portal = portal
        self._steps = Steps(source)
        self._ended = False

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        more, value = self._portal.call(self._steps.step)
        if more:
            return passed(self._portal, value)
        self._ended = True
        if value is not None:
            raise value
        raise StopIteration

    def close(self) -> None:
        """End it where it is. Twice is fine."""
        if not self._ended:
            self._ended = True
            self._portal.call(self._steps.close)

    def __del__(self) -> None:
        if not self._ended:
            self._portal.spawn(self._steps.close)


class BlockingContext:
    """An async context manager for a `with` statement."""

    def __init__(self, portal: Portal, context: AbstractAsyncContextManager[Any]) -> None:
        self._portal = portal
        self._context = context

    def __enter__(self) -> Any:
        return passed(self._portal, self._portal.call(self._context.__aenter__))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._portal.call(lambda: self._context.__aexit__(kind, error, trace))
