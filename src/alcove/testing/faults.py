"""Faults on purpose: an operation whose Nth statement fails, and a SQLite file system that can be told to fail."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from alcove.clock import Micros
from alcove.database.op import Rows, Statement, Steps

T = TypeVar("T")


class FaultError(Exception):
    """Raised in place of a statement."""


def failing(operation: Callable[..., Steps[T]], at: int) -> Callable[..., Steps[T]]:
    """Return the operation, raising `FaultError` instead of running its statement number `at`, from 1."""

    def wrapped(now: Micros, *args: Any, **kwargs: Any) -> Generator[Statement, Rows, T]:
        steps = operation(now, *args, **kwargs)
        rows: Rows = []
        number = 0
        try:
            statement = next(steps)
            while True:
                number += 1
                if number == at:
                    raise FaultError
                rows = yield statement
                statement = steps.send(rows)
        except StopIteration as end:
            return end.value

    return wrapped
