"""SQLite through apsw: reader connections, and the writer (`sqlite_writer.py`); `memory://` by the same code."""

# pyright: reportUnknownMemberType=false
# (apsw's stubs leave part of its binding types open.)

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import final

import apsw

from alcove import limits
from alcove.clock import Clock, Micros
from alcove.database.op import Database, Operation, P, Statement, Steps, T
from alcove.database.sqlite_errors import DRIVER_ERRORS, translated
from alcove.database.sqlite_writer import Job, Writer, drive
from alcove.errors import ClosedError, DatabaseBusyError, DatabaseFailedError


@final
class SqliteDatabase(Database):
    """One SQLite file, or one private database in memory.

    Args:
        connect: Opens a connection with this database's settings.
        kind: `sqlite`, or `memory`: then there is one connection, and reads are operations on the writer too.
        clock: Gives `now` to each attempt of an operation.
    """

    def __init__(self, connect: Callable[[], apsw.Connection], *, kind: str, clock: Clock) -> None:
        self.kind = kind
        self._connect = connect
        self._clock = clock
        self._pid = os.getpid()
        self._closed = False
        self._waiting = 0
        self._readers: list[apsw.Connection] = []
        self._writer = Writer(connect(), clock)

    async def write(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_open()
        if self._writer.failed:
            raise DatabaseFailedError(remedy="check the disk, then restart")
        if self._waiting >= limits.WRITE_QUEUE:
            raise DatabaseBusyError(
                f"{limits.WRITE_QUEUE} operations are waiting for the database",
                limit=limits.WRITE_QUEUE,
                remedy="send fewer requests at once, or try again",
            )
        loop = asyncio.get_running_loop()
        job = Job(loop, operation, args, kwargs)
        self._writer.submit(loop, job)
        self._waiting += 1
        try:
            return await job.future
        finally:
            self._waiting -= 1

    async def read(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.kind == "memory":
            return await self.write(operation, *args, **kwargs)
        return self.read_now(operation, *args, **kwargs)

    def read_now(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_open()
        if self.kind == "memory":
            return self._writer.look(operation(self._clock.now(), *args, **kwargs))
        reader = None
        try:
            reader = self._readers.pop() if self._readers else self._reader()
            reader.execute("BEGIN")
            return drive(reader, operation(self._clock.now(), *args, **kwargs))
        except DRIVER_ERRORS as error:
            raise translated(error) from error
        finally:
            if reader is not None:
                if reader.in_transaction:
                    reader.execute("ROLLBACK")
                self._readers.append(reader)

    def _reader(self) -> apsw.Connection:
        reader = self._connect()
        reader.execute("PRAGMA query_only = ON")
        return reader

    async def durability(self) -> str:
        return await self.write(_durability)

    @property
    def waiting(self) -> int:
        return self._waiting

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        while self._readers:
            self._readers.pop().close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the database has been closed", remedy="open it again")
        if os.getpid() != self._pid:
            raise ClosedError("the database was opened before a fork", remedy="open it in the process that uses it")


def _durability(now: Micros) -> Steps[str]:
    [[journal]] = yield Statement("PRAGMA journal_mode")
    [[synchronous]] = yield Statement("PRAGMA synchronous")
    names = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    return f"sqlite {apsw.sqlite_lib_version()} journal_mode={journal} synchronous={names[synchronous]}"
