"""The one connection that writes to a SQLite database, and who may use it when.

Operations that tasks submit in one round of their event loop form a group, and so do those that wait while a group is
being flushed: one transaction, one flush to disk, and each caller is answered only after it.

Statements run in the callers' event loop: they do not wait for anything, and in a second thread each of them would
wait for the interpreter's lock instead. What waits is the thread's: the flush, unless the disk has lately been faster
than two thread switches are worth, and the lock of another process, for whole groups (docs/adr/0002).
"""

# pyright: reportUnknownMemberType=false
# (apsw's stubs leave part of its binding types open; rows are cast where they come in.)

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, cast, final

import apsw

from alcove import limits
from alcove.clock import Clock
from alcove.database.op import Rows, Statement, Steps, T
from alcove.database.sqlite_errors import DRIVER_ERRORS, failed_flush, translated
from alcove.database.sqlite_log import Log
from alcove.errors import AlcoveError, DatabaseBusyError, DatabaseFailedError

Loop = asyncio.AbstractEventLoop
_RESTART = "check the disk, then restart"


@final
class Job:
    """An operation on its way to the database, and then its outcome on the way back."""

    __slots__ = ("args", "error", "future", "kwargs", "operation", "result")

    def __init__(
        self, loop: Loop, operation: Callable[..., Steps[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None


_Group = tuple[Loop, list[Job]]
_FLUSH = None  # in the queue: there is a group to flush, or the end has come


@final
class Writer:
    """Runs jobs, in groups, in the order in which they were submitted.

    Args:
        connection: With its settings, and nobody else's.
        clock: Gives `now` to each attempt of an operation.
    """

    def __init__(self, connection: apsw.Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._turn = threading.Lock()  # whose turn it is to use the connection
        self._pending: dict[Loop, list[Job]] = {}
        self._flushing: Loop | None = None
        self._flushes: queue.SimpleQueue[_Group] = queue.SimpleQueue()
        self._queue: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._closing = False
        self._log = Log(connection.filename_wal)
        self._commit_s = 2 * limits.INLINE_COMMIT_S  # a moving average; slow until the disk has shown otherwise
        self.failed = False  # a flush failed: what the disk holds is not known any more
        connection.set_wal_hook(self._on_commit)
        self._thread = threading.Thread(target=self._work, name="alcove-writer", daemon=True)
        self._thread.start()

    def submit(self, loop: Loop, job: Job) -> None:
        """Take a job; called in its event loop."""
        pending = self._pending.get(loop)
        if pending is not None:
            pending.append(job)
            return
        self._pending[loop] = [job]
        if self._flushing is not loop:
            loop.call_soon(self._round, loop)

    def look(self, steps: Steps[T]) -> T:
        """Run an operation that only reads between two groups, while the caller waits."""
        with self._turn:
            try:
                self._connection.execute("BEGIN")
                return drive(self._connection, steps)
            except DRIVER_ERRORS as error:
                raise self._meaning(error) from error
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    async def close(self) -> None:
        """Finish every job that was submitted, then close the connection."""
        for loop in list(self._pending):
            self._queue.put((loop, self._pending.pop(loop)))
        self._closing = True
        self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    # -- in the event loop -----------------------------------------------------------------------------------------

    def _round(self, loop: Loop) -> None:
        """Run what is pending as one group, and flush it or have it flushed."""
        jobs = self._pending.pop(loop, None)
        if not jobs:
            return
        if not self._turn.acquire(blocking=False):
            self._queue.put((loop, jobs))
            return
        jobs, rest = jobs[: limits.GROUP_COMMIT_OPERATIONS], jobs[limits.GROUP_COMMIT_OPERATIONS :]
        if rest:
            self._pending[loop] = rest
        left = self._run(jobs, patient=False)
        if left:
            self._queue.put((loop, left))
        done = [job for job in jobs if job not in left] if left else jobs
        if self._connection.in_transaction and self._commit_s >= limits.INLINE_COMMIT_S:
            self._flushing = loop
            self._flushes.put((loop, done))
            self._queue.put(_FLUSH)
            return
        self._commit(done)
        self._turn.release()
        if self._log.pages >= limits.CHECKPOINT_PAGES:
            self._queue.put((loop, []))
        self._reply(done)
        if loop in self._pending:
            loop.call_soon(self._round, loop)

    def _flushed(self, loop: Loop, jobs: list[Job]) -> None:
        """Send what waited meanwhile on its way to the disk, then answer the callers: both work at the same time."""
        self._flushing = None
        self._round(loop)
        self._reply(jobs)

    def _reply(self, jobs: list[Job]) -> None:
        for job in jobs:
            if job.future.done():
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)

    # -- the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            group = self._queue.get()
            if group is None:
                self._flush_waiting()
                if self._closing and self._queue.empty():
                    break
                continue
            # Whoever has the turn may be waiting for this very thread to flush.
            while not self._turn.acquire(timeout=limits.TURN_S):
                self._flush_waiting()
            self._end_turn(self._run_waiting(group))
        self._connection.close()

    def _flush_waiting(self) -> None:
        try:
            loop, jobs = self._flushes.get_nowait()
        except queue.Empty:
            return
        self._commit(jobs)
        self._end_turn([(loop, jobs)])

    def _end_turn(self, groups: list[_Group]) -> None:
        """Let others write, and answer; once the log is long, copy it back into the file, but let no caller wait."""
        if self._log.pages < limits.CHECKPOINT_PAGES or self.failed:
            self._turn.release()
            self._answer(groups)
            return
        self._answer(groups)
        self._log.pages = 0
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except apsw.Error as error:
            self._meaning(error)
        self._turn.release()

    def _run_waiting(self, first: _Group) -> list[_Group]:
        """Run a group and, once the database's lock is there, what has come up behind it: one transaction."""
        groups = [first]
        error = self._begin(patient=True) if first[1] else None
        jobs = list(first[1])
        while jobs and len(jobs) < limits.GROUP_COMMIT_OPERATIONS and not self._queue.empty():
            group = self._queue.get()
            if group is None:
                self._queue.put(group)
                break
            groups.append(group)
            jobs += group[1]
        if error:
            _refuse(jobs, error)
        elif jobs:
            self._run(jobs, patient=True, begun=True)
            self._commit(jobs)
        return groups

    def _answer(self, groups: list[_Group]) -> None:
        for loop, jobs in groups:
            try:
                loop.call_soon_threadsafe(self._flushed, loop, jobs)
            except RuntimeError:
                # The callers' event loop is gone: what they asked for is done, and nobody is left to be told.
                self._flushing = None

    # -- where the turn is -----------------------------------------------------------------------------------------

    def _begin(self, *, patient: bool) -> AlcoveError | None:
        """Take the database's lock; an impatient caller hears at once that another process has it."""
        if self.failed:
            return DatabaseFailedError(remedy=_RESTART)
        try:
            if not patient:
                self._connection.set_busy_timeout(0)
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as error:
            return self._meaning(error)
        finally:
            if not patient:
                self._connection.set_busy_handler(busy_handler(self._clock))
        return None

    def _run(self, jobs: list[Job], *, patient: bool, begun: bool = False) -> list[Job]:
        """Run jobs in one transaction that is still to be committed; each that ran has its result or its error.

        Most groups need no savepoints: a job that fails before it has changed anything just drops out. When one
        fails after a change, the group goes again with a savepoint each. When SQLite itself has ended the
        transaction, nothing of the group holds: the job that was running gets the error, the others go again.

        Returns:
            The jobs that have not run, because another process holds the database and the caller is not patient.
        """
        jobs = [job for job in jobs if not job.future.cancelled()]
        careful = False
        while jobs:
            error = None if begun else self._begin(patient=patient)
            if error:
                if not patient and isinstance(error, DatabaseBusyError):
                    return jobs
                _refuse(jobs, error)
                return []
            culprit = self._run_once(jobs, careful=careful)
            if culprit is None:
                return []
            ended = not self._connection.in_transaction
            if not ended:
                self._connection.execute("ROLLBACK")
            if ended or len(jobs) == 1:
                jobs = [job for job in jobs if job is not culprit]
            for job in jobs:
                job.error = None
            careful, begun = True, False
        return []

    def _run_once(self, jobs: list[Job], *, careful: bool) -> Job | None:
        """Run each job; return the one because of which the group has to go again, if any."""
        connection = self._connection
        for job in jobs:
            changes = connection.total_changes()
            try:
                if careful:
                    connection.execute("SAVEPOINT op")
                job.result = drive(connection, job.operation(self._clock.now(), *job.args, **job.kwargs))
                if careful:
                    connection.execute("RELEASE op")
            except Exception as error:  # noqa: BLE001 - whatever the operation raised belongs to its caller
                job.error = self._meaning(error) if isinstance(error, DRIVER_ERRORS) else error
                if not connection.in_transaction:
                    return job
                if careful:
                    connection.execute("ROLLBACK TO op; RELEASE op")
                elif connection.total_changes() != changes:
                    return job
        return None

    def _commit(self, jobs: list[Job]) -> None:
        if not self._connection.in_transaction:
            return
        self._log.make_room()
        before = self._clock.monotonic()
        try:
            self._connection.execute("COMMIT")
        except apsw.Error as error:
            failure = self._meaning(error)
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            _refuse([job for job in jobs if job.error is None], failure)
        self._commit_s = 0.9 * self._commit_s + 0.1 * (self._clock.monotonic() - before)

    def _on_commit(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._log.pages = pages
        return apsw.SQLITE_OK

    def _meaning(self, error: Exception) -> AlcoveError:
        """Return the Alcove error for a driver's one; after a failed flush there are no acknowledgements any more."""
        if failed_flush(error):
            self.failed = True
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


def drive(connection: apsw.Connection, steps: Steps[T]) -> T:
    """Run an operation's statements on a connection and return its record."""
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


def _refuse(jobs: list[Job], error: AlcoveError) -> None:
    for job in jobs:
        job.error = error
