"""Looks after one run from its start to its end: lease, output, time-out, cancellation, and the last transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf

import msgspec

from alcove import limits
from alcove.database.op import Database
from alcove.errors import AlcoveError, DatabaseError, LimitError, StaleEpochError
from alcove.events.model import NewEvent
from alcove.events.service import Events
from alcove.messages.model import Draft, Stored
from alcove.messages.rules import stored
from alcove.rights.approvals import ApprovalStatus, Question, cleaned
from alcove.runs import approval_queries, queries
from alcove.runs.approval_queries import Place, Put
from alcove.runs.approvals import Wait, Write
from alcove.runs.journal import Journal
from alcove.runs.model import Ending, Run, RunStatus
from alcove.runs.queries import Started
from alcove.runs.steering_queries import Pulled
from alcove.runs.walltime import WallTime
from alcove.sessions.heads import Fence
from alcove.values import Metadata
from alcove.workspaces.model import Usage

_log = logging.getLogger("alcove.runs")


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent does in a run, given the run's supervisor.

    Attributes:
        run: Does it and returns the answer and the exit code; it is told to stop by `Supervisor.stopped`.
        compare: Returns what the run changed in the workspace, and what that takes now.
        clean: Removes what belongs to the run alone.
        timeout_s: Wall time.
        redact: Takes the secrets that the run was given out of what is kept of it.
    """

    run: Callable[[Supervisor], Awaitable[tuple[str, int | None]]]
    compare: Callable[[], Awaitable[tuple[tuple[str, ...] | None, Usage | None]]]
    clean: Callable[[], Awaitable[None]]
    timeout_s: float
    redact: Callable[[str], str] = str


class Supervisor:
    """The one writer of a live run. `stopped` resolves to the status that the run is to end with.

    Args:
        database: Where it is written.
        events: Carries what it says.
        started: The run.
        work: What it does.
        lifetime_s: Seconds until its grant expires; infinite when that ends with the run.
    """

    def __init__(
        self, database: Database, events: Events, started: Started, work: Work, lifetime_s: float = inf
    ) -> None:
        self.started = started
        self.fence = Fence(started.run_id, started.epoch)
        # `run.queued` and the user's message were written with the start.
        self.journal = Journal(database, events, started.session_id, self.fence, 3)
        self.stopped: asyncio.Future[RunStatus] = asyncio.get_running_loop().create_future()
        self._database = database
        self._events = events
        self._work = work
        self._reason = self._limit = ""
        self._time = WallTime(work.timeout_s, lifetime_s, lambda: self.stop(RunStatus.TIMED_OUT))
        self._waits: set[asyncio.Task[None]] = set()

    def stop(self, status: RunStatus) -> None:
        """End the run with this status, unless it is ending already."""
        if not self.stopped.done():
            self.stopped.set_result(status)

    def fail(self, error: LimitError) -> None:
        """End the run as failed by this limit; what it said is kept. One that is ending already has its own reason."""
        if not self.stopped.done():
            self._reason, self._limit = str(error), error.field
        self.stop(RunStatus.FAILED)

    async def launched(self, *, tree: str, rung: str, guarantees: str) -> None:
        """Record the run's processes and what confines them. Called once, before any output."""

        async def write(n: int) -> tuple[None, bool]:
            await self._database.write(queries.launched, self.started, self.fence, tree, rung, guarantees, n)
            return None, True

        # A program is quick: it may ask something before this is written.
        await self.journal.beside(write)

    def cleaned(self, asked: Question) -> Question:
        """Return a question without the secrets that the run was given."""
        return cleaned(asked, self._work.redact)

    async def put(self, write: Write, wait: Wait) -> Put:
        """Have a question written in the run's journal; its time stands still until it is answered.

        Raises:
            ClosedError: The run has ended, or is about to.
        """
        return await asyncio.shield(asyncio.create_task(self._put(write, wait)))

    async def say(self, entry: NewEvent) -> None:
        """Write an event in the run's journal, after all that was said before it.

        Raises:
            ClosedError: The run has ended, or is about to.
        """

        async def write(n: int) -> tuple[None, int]:
            await self._database.write(queries.journal, self.started.session_id, self.fence, n, [entry], None)
            return None, 1

        await asyncio.shield(asyncio.create_task(self.journal.beside(write)))

    async def pull(self, limit: int) -> Pulled:
        """Take messages that were put to the run into the open turn, and into its journal.

        Raises:
            ClosedError: The run has ended, or is about to.
        """
        return await asyncio.shield(asyncio.create_task(self._pull(limit)))

    async def _pull(self, limit: int) -> Pulled:
        async def write(n: int) -> tuple[Pulled, int]:
            pulled = await self._database.write(queries.pull, self.started, self.fence, n, limit)
            return pulled, len(pulled.messages)

        return await self.journal.beside(write)

    async def _put(self, write: Write, wait: Wait) -> Put:
        async def place(n: int) -> tuple[Put, bool]:
            put = await write(Place(self.started.session_id, self.fence, n))
            return put, put.new

        put = await self.journal.beside(place)
        if put.new and not self.stopped.done():
            task = asyncio.create_task(self._wait(put.approval_id, wait))
            self._waits.add(task)
            task.add_done_callback(self._waits.discard)
        return put

    async def _wait(self, approval_id: str, wait: Wait) -> None:
        """Let time stand still until a request is answered or the run ends, and write the answer in its journal."""
        self._time.stand()
        answering = asyncio.create_task(wait(approval_id, None))
        try:
            await asyncio.wait((answering, self.stopped), return_when=asyncio.FIRST_COMPLETED)
            # A run may end on an answer before that is heard of here.
            approval = answering.result() if answering.done() else await wait(approval_id, 0)
            if approval.status not in {ApprovalStatus.WAITING, ApprovalStatus.CANCELLED}:
                await self.say(approval_queries.decided(approval))
        except AlcoveError:
            _log.warning("answer not followed", exc_info=True, extra={"run_id": self.started.run_id})
        finally:
            answering.cancel()
            self._time.go_on()

    async def supervise(self) -> Run:
        """Do the work, end the run and return it. Runs as a task of its own; whoever waits may go away."""
        lease = asyncio.create_task(self._keep_lease())
        writing = asyncio.create_task(self._write_journal())
        try:
            ending = await self._finish_work()
            await asyncio.gather(*self._waits, return_exceptions=True)
            self.journal.close()
            problem = await writing
            if problem and ending.status != RunStatus.LOST:
                ending = msgspec.structs.replace(ending, status=RunStatus.FAILED, error=problem)
            run = await self._end(ending)
        finally:
            self._time.cancel()
            tasks = (lease, writing, *self._waits)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._work.clean()
            self._events.wake(self.started.run_id)
        _log.info(
            "run ended",
            extra={"run_id": run.id, "session_id": run.session_id, "status": run.status, "exit_code": run.exit_code},
        )
        return run

    async def _finish_work(self) -> Ending:
        text, code, error = "", None, ""
        try:
            text, code = await self._work.run(self)
            error = self._reason
        except AlcoveError as problem:
            self.stop(RunStatus.FAILED)
            error = str(problem)
        except asyncio.CancelledError:
            # The event loop is going down: the work has been told, and the end is still written.
            self.stop(RunStatus.CANCELLED)
        except Exception as problem:  # noqa: BLE001 - what a function agent raises ends its run, not the server
            _log.exception("agent broke", extra={"run_id": self.started.run_id})
            self.stop(RunStatus.FAILED)
            error = f"{type(problem).__name__}: {problem}"
        self.stop(RunStatus.FINISHED)
        text, error = self._work.redact(text), self._work.redact(error)
        error = _cut(error.replace("\x00", "\ufffd"), limits.RUN_ERROR_BYTES)
        limit = "timeout" if self.stopped.result() == RunStatus.TIMED_OUT else self._limit
        return Ending(status=self.stopped.result(), text=text, exit_code=code, error=error, limit=limit)

    async def _end(self, ending: Ending) -> Run:
        """Write the end; one that has lost its lease leaves that to whoever took over, or says that it is lost."""
        if ending.status != RunStatus.LOST:
            with suppress(StaleEpochError):
                return await self._finish(ending)
        run = await self._database.read(queries.get, self.started.run_id)
        await self._database.write(queries.lose, run.id, run.holder)
        return await self._database.read(queries.get, run.id)

    async def _finish(self, ending: Ending) -> Run:
        usage = None
        try:
            changed, usage = await self._work.compare()
            ending = msgspec.structs.replace(ending, files=changed and tuple(map(self._work.redact, changed)))
        except (AlcoveError, OSError):
            _log.warning("the workspace cannot be read", exc_info=True, extra={"run_id": self.started.run_id})
        n, answer, waited_s = self.journal.next, self._answer(ending), 0.0
        while True:
            try:
                return await self._database.write(queries.finish, self.started, self.fence, n, ending, answer, usage)
            except DatabaseError as problem:
                # A full or busy disk may get better while the lease lasts; after that, the run is lost.
                if not problem.retryable or waited_s >= limits.LEASE_S:
                    raise
            await asyncio.sleep(limits.LEASE_RENEW_S)
            waited_s += limits.LEASE_RENEW_S

    def _answer(self, ending: Ending) -> Stored:
        """Return the message that the run leaves: what was said, and for a run that was ended a closing note."""
        note = {
            RunStatus.CANCELLED: "[cancelled]",
            RunStatus.INTERRUPTED: "[interrupted]",
            RunStatus.TIMED_OUT: f"[timed out after {self._work.timeout_s:g} s]",
            RunStatus.FAILED: f"[failed: {ending.error or 'see the server log'}]",
        }.get(RunStatus(ending.status), "")
        room = limits.MESSAGE_BYTES - limits.KIB - len(note.encode())
        text = "\n".join(part for part in (_cut(ending.text, room), note) if part)
        metadata: Metadata = {"run_id": self.started.run_id, "exit_code": ending.exit_code}
        # Providers refuse a message without content; `silent` tells that nothing was said.
        if not text:
            metadata["silent"] = True
        return stored(Draft("assistant", text or "(no output)", metadata=metadata))

    async def _keep_lease(self) -> None:
        """Renew the lease to the end of the run; when that fails for as long as it lasts, stop."""
        loop = asyncio.get_running_loop()
        good_until = loop.time() + limits.LEASE_S
        while loop.time() < good_until:
            await asyncio.sleep(limits.LEASE_RENEW_S)
            asked_at = loop.time()
            try:
                async with asyncio.timeout_at(good_until):
                    if asked := await self._database.write(queries.renew, self.started.session_id, self.fence):
                        self.stop(asked)
                good_until = asked_at + limits.LEASE_S
            except StaleEpochError:
                break
            except (TimeoutError, AlcoveError):
                _log.warning("lease not renewed", exc_info=True, extra={"run_id": self.started.run_id})
        self.stop(RunStatus.LOST)

    async def _write_journal(self) -> str:
        """Write what the run says until the journal is closed; return what went wrong, `''` for nothing."""
        try:
            await self.journal.write()
        except StaleEpochError:
            self.stop(RunStatus.LOST)
        except AlcoveError as problem:
            self.stop(RunStatus.FAILED)
            return str(problem)
        return ""


def _cut(text: str, room: int) -> str:
    """Return the beginning of a text, at most `room` bytes of it, as valid Unicode."""
    return text.encode(errors="replace")[:room].decode(errors="ignore")
