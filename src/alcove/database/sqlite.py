"""SQLite through apsw: one writer with group commit, reader connections, `memory://` by the same code.

Operations that tasks submit in one round of the event loop travel together. The writer thread takes the database's
lock first and then everything that is waiting, so that what arrives while another process holds the lock shares one
commit, and with it one flush to disk. A caller is answered only after it. A lone operation on a disk that flushes
fast is run where it is, without the two thread switches that would cost more than the operation (docs/adr/0002).
"""

# pyright: reportUnknownMemberType=false
# (apsw's stubs leave part of its binding types open; rows are cast where they come in.)

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, cast, final

import apsw

from alcove import limits
from alcove.clock import Clock, Micros
from alcove.database.op import Database, Operation, P, Rows, Statement, Steps, T
from alcove.database.sqlite_errors import DRIVER_ERRORS, failed_flush, translated
from alcove.errors import AlcoveError, ClosedError, DatabaseBusyError, DatabaseFailedError

_Loop = asyncio.AbstractEventLoop
_RESTART = "check the disk, then restart"


class _Job:
    """An operation on its way to the writer, and then its outcome on the way back."""

    __slots__ = ("args", "error", "future", "kwargs", "operation", "result")

    def __init__(
        self, loop: _Loop, operation: Callable[..., Steps[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None


_Batch = tuple[_Loop, list[_Job]]


@final
class SqliteDatabase(Database):
    """One SQLite file (or one private database in memory) and the thread that writes to it.

    Args:
        connect: Opens a connection with this database's settings; `patient` says whether it waits for other
            processes' locks.
        kind: `sqlite`, or `memory`: then there is one connection, and reads are operations on the writer too.
        clock: Gives `now` to each attempt of an operation.
    """

    def __init__(self, connect: Callable[[], apsw.Connection], *, kind: str, clock: Clock) -> None:
        self.kind = kind
        self._connect = connect
        self._clock = clock
        self._pid = os.getpid()
        self._failed = False  # a flush failed: what the disk holds is not known any more
        self._closed = False
        self._readers: list[apsw.Connection] = []
        self._batches: dict[_Loop, list[_Job]] = {}
        self._waiting = 0
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._writer = connect()
        self._wal_pages = 0
        self._commit_s = 1.0  # a moving average; slow until the disk has shown otherwise
        self._writer.set_wal_hook(self._on_commit)
        self._thread = threading.Thread(target=self._work, name="alcove-writer", daemon=True)
        self._thread.start()

    async def write(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check_open()
        if self._failed:
            raise DatabaseFailedError(remedy=_RESTART)
        if self._waiting >= limits.WRITE_QUEUE:
            raise DatabaseBusyError(
                f"{limits.WRITE_QUEUE} operations are waiting for the database",
                limit=limits.WRITE_QUEUE,
                remedy="send fewer requests at once, or try again",
            )
        loop = asyncio.get_running_loop()
        job = _Job(loop, operation, args, kwargs)
        batch = self._batches.get(loop)
        if batch is None:
            batch = self._batches[loop] = []
            loop.call_soon(self._hand_over, loop)
        batch.append(job)
        self._waiting += 1
        try:
            return await job.future
        finally:
            self._waiting -= 1

    async def read(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.kind == "memory":
            return await self.write(operation, *args, **kwargs)
        self._check_open()
        reader = None
        try:
            reader = self._readers.pop() if self._readers else self._reader()
            reader.execute("BEGIN")
            return _drive(reader, operation(self._clock.now(), *args, **kwargs))
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
        for loop in list(self._batches):
            self._queue.put((loop, self._batches.pop(loop)))
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)
        while self._readers:
            self._readers.pop().close()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the database has been closed", remedy="open it again")
        if os.getpid() != self._pid:
            raise ClosedError("the database was opened before a fork", remedy="open it in the process that uses it")

    def _hand_over(self, loop: _Loop) -> None:
        """Give what was submitted in this round of the loop to the writer, or run it here when it is alone."""
        jobs = self._batches.pop(loop, None)
        if not jobs:
            return
        alone = len(jobs) == 1 and self._commit_s < limits.INLINE_COMMIT_S and self._queue.empty()
        if alone and self._writing.acquire(blocking=False):
            try:
                begun = self._begin(patient=False)
                if begun is None:
                    self._run(jobs)
            finally:
                self._writing.release()
            if begun is None:
                _resolve(jobs)
                if self._wal_pages >= limits.CHECKPOINT_PAGES:
                    self._queue.put((loop, []))
                return
        self._queue.put((loop, jobs))

    # -- the writer thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        batch = self._queue.get()
        while batch is not None:
            with self._writing:
                stopping = self._commit_batches(batch)
                self._checkpoint()
            if stopping:
                break
            batch = self._queue.get()
        self._writer.close()

    def _commit_batches(self, first: _Batch) -> bool:
        """Run a batch and what waits behind it in one transaction; return whether the end was seen."""
        batches, jobs, stopping = [first], list(first[1]), False
        error = self._begin(patient=True) if jobs else None
        while len(jobs) < limits.GROUP_COMMIT_OPERATIONS and jobs and not stopping:
            try:
                batch = self._queue.get_nowait()
            except queue.Empty:
                break
            stopping = batch is None
            if batch is not None:
                batches.append(batch)
                jobs.extend(batch[1])
        if error:
            for job in jobs:
                job.error = error
        elif jobs:
            self._run(jobs)
        for loop, done in batches:
            try:
                loop.call_soon_threadsafe(_resolve, done)
            except RuntimeError:
                # The callers' event loop is gone: what they asked for is done, and nobody is left to be told.
                continue
        return stopping

    def _begin(self, *, patient: bool) -> AlcoveError | None:
        """Take the database's lock; an impatient caller hears at once that another process has it."""
        if self._failed:
            return DatabaseFailedError(remedy=_RESTART)
        try:
            if not patient:
                self._writer.set_busy_timeout(0)
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            return self._meaning(error)
        finally:
            if not patient:
                self._writer.set_busy_handler(busy_handler(self._clock))
        return None

    def _run(self, jobs: list[_Job]) -> None:
        """Run jobs in the transaction that has begun and commit it; each job then has its result or its error.

        Most groups need no savepoints: a job that fails before it has changed anything just drops out. When one
        fails after a change, the group goes again with a savepoint each. When SQLite itself has ended the
        transaction, nothing of the group holds: the job that was running gets the error, the others go again.
        """
        jobs = [job for job in jobs if not job.future.cancelled()]
        careful = False
        while True:
            culprit = self._run_once(jobs, careful=careful)
            if culprit is None:
                self._commit([job for job in jobs if job.error is None])
                return
            ended = not self._writer.in_transaction
            if not ended:
                self._writer.execute("ROLLBACK")
            careful = True
            if ended or len(jobs) == 1:
                jobs = [job for job in jobs if job is not culprit]
            if not jobs:
                return
            for job in jobs:
                job.error = None
            error = self._begin(patient=True)
            if error:
                for job in jobs:
                    job.error = error
                return

    def _run_once(self, jobs: list[_Job], *, careful: bool) -> _Job | None:
        """Run each job; return the one because of which the group has to go again, if any."""
        writer = self._writer
        for job in jobs:
            changes = writer.total_changes()
            try:
                if careful:
                    writer.execute("SAVEPOINT op")
                job.result = _drive(writer, job.operation(self._clock.now(), *job.args, **job.kwargs))
                if careful:
                    writer.execute("RELEASE op")
            except Exception as error:  # noqa: BLE001 - whatever the operation raised belongs to its caller
                job.error = self._meaning(error) if isinstance(error, DRIVER_ERRORS) else error
                if not writer.in_transaction:
                    return job
                if careful:
                    writer.execute("ROLLBACK TO op; RELEASE op")
                elif writer.total_changes() != changes:
                    return job
        return None

    def _commit(self, jobs: list[_Job]) -> None:
        before = self._clock.monotonic()
        try:
            self._writer.execute("COMMIT")
        except apsw.Error as error:
            failure = self._meaning(error)
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            for job in jobs:
                job.error = failure
        self._commit_s = 0.9 * self._commit_s + 0.1 * (self._clock.monotonic() - before)

    def _on_commit(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Copy the log back into the file once it is long: after the callers were answered, so that none waits."""
        if self._wal_pages < limits.CHECKPOINT_PAGES or self._failed:
            return
        self._wal_pages = 0
        try:
            self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except apsw.Error as error:
            self._meaning(error)

    def _meaning(self, error: Exception) -> AlcoveError:
        """Return the Alcove error for a driver's one; after a failed flush there are no acknowledgements any more."""
        if failed_flush(error):
            self._failed = True
            return DatabaseFailedError(remedy=_RESTART)
        return translated(error)


def busy_handler(clock: Clock) -> Callable[[int], bool]:
    """Return what waits for another process's lock, up to `limits.BUSY_TIMEOUT_S`.

    SQLite's own back-off sleeps up to 100 ms; a commit takes a fraction of one, so this asks again sooner.
    """
    deadline = 0.0

    def busy(tries: int) -> bool:
        nonlocal deadline
        if tries == 0:
            deadline = clock.monotonic() + limits.BUSY_TIMEOUT_S
        threading.Event().wait(min(0.0002 * (tries + 1), 0.005))
        return clock.monotonic() < deadline

    return busy


def _drive(connection: apsw.Connection, steps: Steps[T]) -> T:
    try:
        statement: Statement = next(steps)
        while True:
            sql, values, many = statement
            if many:
                connection.executemany(sql, values)
                rows: Rows = []
            else:
                rows = cast("Rows", connection.execute(sql, values).fetchall())
            statement = steps.send(rows)
    except StopIteration as end:
        return end.value


def _resolve(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)


def _durability(now: Micros) -> Steps[str]:
    [[journal]] = yield Statement("PRAGMA journal_mode")
    [[synchronous]] = yield Statement("PRAGMA synchronous")
    names = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    return f"sqlite {apsw.sqlite_lib_version()} journal_mode={journal} synchronous={names[synchronous]}"
