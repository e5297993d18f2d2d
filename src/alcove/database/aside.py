"""A second SQLite database beside the main one, for what can be made again: all its work is done in a thread.

What is long here (merging an index) delays neither the event loop nor the commits of the main database.
"""

# pyright: reportUnknownMemberType=false
# (apsw's stubs leave part of its binding types open.)

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import final

import apsw

from alcove.clock import Clock, SystemClock
from alcove.database.op import Database, Operation, P, Statement, Steps, T
from alcove.database.sqlite_errors import DRIVER_ERRORS, translated
from alcove.database.sqlite_writer import busy_handler, drive
from alcove.errors import ClosedError

_SUFFIXES = ("", "-wal", "-shm")


@final
class AsideDatabase(Database):
    """One SQLite file that holds nothing of its own, or a private database in memory.

    Args:
        path: The file, or `:memory:`.
        clock: Gives `now`.
    """

    kind = "sqlite"

    def __init__(self, path: str, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None
        self._closed = False

    async def write(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation in a transaction of its own: see `Database.write`."""
        return await asyncio.to_thread(self._run, "BEGIN IMMEDIATE", lambda now: operation(now, *args, **kwargs))

    async def read(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation that only reads: see `Database.read`."""
        return await asyncio.to_thread(self.read_now, operation, *args, **kwargs)

    def read_now(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an operation that only reads while the calling thread waits: see `Database.read_now`."""
        return self._run("BEGIN", lambda now: operation(now, *args, **kwargs))

    async def durability(self) -> str:
        """Return the settings in force."""
        return await self.read(_durability)

    async def close(self) -> None:
        """Wait for what is under way, then let go of the file."""
        await asyncio.to_thread(self._close)

    async def remove(self) -> None:
        """Remove the file, because it is damaged or of another time; the next operation begins an empty one."""
        await asyncio.to_thread(self._remove)

    def _run(self, begin: str, begun: Callable[[int], Steps[T]]) -> T:
        with self._lock:
            if self._closed:
                raise ClosedError("the database has been closed", remedy="open it again")
            try:
                connection = self._connection = self._connection or self._connect()
                connection.execute(begin)
                try:
                    result = drive(connection, begun(self._clock.now()))
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except DRIVER_ERRORS as error:
                raise translated(error, f"the search index {self._path}") from error
            return result

    def _connect(self) -> apsw.Connection:
        if self._path != ":memory:":
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = apsw.Connection(self._path)
        connection.set_busy_handler(busy_handler(self._clock))
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "trusted_schema = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            self._let_go()

    def _remove(self) -> None:
        with self._lock:
            self._let_go()
            for suffix in _SUFFIXES if self._path != ":memory:" else ():
                try:
                    os.unlink(self._path + suffix)
                except FileNotFoundError:
                    continue

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _durability(now: int) -> Steps[str]:
    [[journal]] = yield Statement("PRAGMA journal_mode")
    return f"sqlite journal_mode={journal}"
