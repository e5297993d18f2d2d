"""A transaction is a generator of statements.

An *operation* is a function `(now, *arguments)` that yields `Statement`s, gets each one's rows back, and returns a
record. It holds no connection and is neither sync nor async, so it is written once and every driver runs it: calling
it anew for each attempt, inside one transaction, with `now` from the driver's clock. So it has no side effect, takes
ids as arguments, touches a bounded number of rows, and lets a failed statement end it (ON CONFLICT, not try/except).
An operation whose decision depends on rows begins with the UPDATE that locks them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeAlias, TypeVar

from alcove.clock import Micros

T = TypeVar("T")
P = ParamSpec("P")

Value: TypeAlias = str | int | float | bytes | None
Row: TypeAlias = tuple[Any, ...]
Rows: TypeAlias = list[Row]


class Statement(NamedTuple):
    """One SQL statement, with `?` for each value; with `many`, `values` is a list of rows and nothing comes back."""

    sql: str
    values: Sequence[Any] = ()
    many: bool = False


Steps: TypeAlias = Generator[Statement, Rows, T]
Operation: TypeAlias = Callable[Concatenate[Micros, P], Steps[T]]


class Database(ABC):
    """Runs operations. Every method may be called from any number of tasks at once."""

    kind: str
    """`sqlite`, `memory` or `postgres`."""

    @abstractmethod
    async def write(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation in a transaction of its own and return its record once that is durable.

        A caller that is cancelled before the operation was picked up has not run it; afterwards the operation runs
        to its end, whoever listens.

        Raises:
            AlcoveError: Whatever the operation raised; then none of its statements took effect.
            DatabaseBusyError: Another program held the database, or too many operations were waiting.
            DatabaseFullError: No space; nothing was written.
            DatabaseFailedError: A flush to disk failed, now or earlier; nothing is acknowledged until a restart.
            ClosedError: The database was closed, or opened before a fork.
        """

    @abstractmethod
    async def read(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation that only reads, on one consistent picture of the rows."""

    @abstractmethod
    def read_now(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation that only reads, while the calling thread waits: for one short look by key.

        Raises:
            DatabaseError: It did not answer within about `limits.LOOK_S`, or could not.
            ClosedError: The database was closed, or opened before a fork.
        """

    @abstractmethod
    async def durability(self) -> str:
        """Return the settings in force, asked of the connection that writes."""

    @property
    def waiting(self) -> int:
        """How many operations wait to be written, 0 where the driver does not queue them."""
        return 0

    @abstractmethod
    async def close(self) -> None:
        """Finish every operation that was accepted, then let go of the database. Calling it twice is fine."""
