"""Runs, as callers use them: start, stream, wait, cancel, list."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from alcove import limits
from alcove.agents.catalog import Catalog
from alcove.audit.service import Audit
from alcove.database.op import Database
from alcove.errors import InvalidError
from alcove.events.model import Event
from alcove.events.service import Events
from alcove.messages import queries as message_queries
from alcove.messages.service import Messages
from alcove.runs import queries, queue_queries, steering_queries
from alcove.runs.deciding import Check, Decision
from alcove.runs.model import Reply, Run, RunStatus
from alcove.runs.recovering import Recovering
from alcove.runs.working import Workshop
from alcove.sandbox.proxy import Refused
from alcove.sessions.service import Sessions

_log = logging.getLogger("alcove.runs")
_EVENTS = 2**62


class Runs(Recovering):
    """Runs agents in sessions, one run at a time in each, and answers what each of them may do.

    Args:
        database: Where runs are recorded.
        sessions: Says which agent a session has.
        messages: Gives agents their history.
        events: Carries what runs say.
        agents: Who can answer.
        workshop: Prepares and does the work of agents.
        default_agent: Who answers when neither the caller nor the session says.
        audit: Is told of grants, withdrawals and denials.
    """

    def __init__(
        self,
        database: Database,
        *,
        sessions: Sessions,
        messages: Messages,
        events: Events,
        agents: Catalog,
        workshop: Workshop,
        default_agent: str,
        audit: Audit | None = None,
    ) -> None:
        super().__init__(
            database,
            sessions=sessions,
            messages=messages,
            events=events,
            agents=agents,
            workshop=workshop,
            default_agent=default_agent,
            audit=audit,
        )
        workshop.on_refused = self._tell_refused

    async def stream(
        self,
        session_id: str,
        message: str,
        *,
        agent: str | None = None,
        timeout_s: float | None = None,
        busy: str = "reject",
    ) -> AsyncIterator[Event]:
        """Start a run and yield its events to the last one. Leaving early does not cancel it."""
        run = await self.start(session_id, message, agent=agent, timeout_s=timeout_s, busy=busy)
        async for event in self.events(run.id):
            yield event

    async def chat(
        self,
        session_id: str,
        message: str,
        *,
        agent: str | None = None,
        timeout_s: float | None = None,
        busy: str = "reject",
    ) -> Reply:
        """Start a run, wait for its end and return it with its answer."""
        run = await self.start(session_id, message, agent=agent, timeout_s=timeout_s, busy=busy)
        return await self.reply(run.id)

    async def events(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events of a run after number `after`, to its last one, waiting for those to come.

        Raises:
            RunNotFoundError: There is none of that id.
            InvalidError: `after` is no number of an event.
        """
        if not 0 <= after < _EVENTS:
            raise InvalidError(f"{after} is no number of an event", field="after", remedy="use the id of one, or 0")
        await self.get(run_id)
        async for event in self._events.subscribe(run_id, after):
            yield event

    async def reply(self, run_id: str) -> Reply:
        """Wait for the end of a run and return it with its answer."""
        live = self._live.get(run_id)
        if live:
            await asyncio.shield(live[1])
        run = await self.get(run_id)
        if not run.ended:
            async for _ in self._events.subscribe(run_id):
                pass
            run = await self.get(run_id)
        unread = await self._database.read(steering_queries.unread, run_id)
        returned = tuple(one.text for one in unread)
        if not run.answer_seq:
            return Reply(run, run.error, returned)
        message = await self._database.read(message_queries.one, run.session_id, run.answer_seq)
        metadata = (message.detail.metadata if message else None) or {}
        return Reply(run, "" if message is None or metadata.get("silent") else message.text, returned)

    async def cancel(self, run_id: str, *, by: str = "library") -> Run:
        """Cancel a run and return it: ended, when this process looks after it; another one is asked to end it.

        A host framework is asked too, and hears it with its next heartbeat. Of a run that Alcove executes the whole
        process tree is gone before it has ended. One that is queued is taken out of the queue, and its message is in no
        history. A run that has ended stays as it is.

        Args:
            run_id: Which.
            by: Who asks; the audit keeps it. What only stops something is done also when that cannot be written.
        """
        run = await self.get(run_id)
        if not run.ended:
            await self._audited("run.cancelled", run, by)
        return await self._cancel(run)

    async def _cancel(self, run: Run) -> Run:
        run_id = run.id
        if run.status == RunStatus.QUEUED and await self._queue.cancel(run_id):
            return await self.get(run_id)
        live = self._live.get(run_id)
        if live:
            live[0].stop(RunStatus.CANCELLED)
            await asyncio.shield(live[1])
            return await self.get(run_id)
        return run if run.ended else await self._database.write(queries.ask_end, run_id)

    async def cancel_session(self, session_id: str) -> None:
        """Cancel whatever runs or waits in a session, here or in another process, and wait until it has ended."""
        for queued in await self._database.read(queue_queries.waiting, session_id):
            await self._queue.cancel(queued.run_id)
        for live in await self._database.read(queries.live, session_id):
            run = await self._cancel(live)
            while not run.ended and not await self._end_if_gone(run):
                await asyncio.sleep(limits.EVENT_POLL_S)
                run = await self.get(run.id)

    async def close(self, drain_s: float = 0) -> None:
        """Start no more runs, give the live ones `drain_s` seconds to end, then cancel them and wait."""
        self._closing = True
        await self._queue.close()
        await asyncio.gather(*self._starting, return_exceptions=True)
        tasks = [task for _, task in self._live.values()]
        if tasks and drain_s > 0:
            await asyncio.wait(tasks, timeout=drain_s)
        for supervisor, _ in list(self._live.values()):
            supervisor.stop(RunStatus.CANCELLED)
        if tasks:
            await asyncio.wait(tasks)
        await self._workshop.close()

    @property
    def live_count(self) -> int:
        """How many runs this process looks after now."""
        return len(self._live)

    async def _end_withdrawn(self, run_id: str) -> None:
        await self._cancel(await self.get(run_id))

    def _tell_refused(self, run_id: str, refused: Refused) -> None:
        """Tell that a run's proxy refused it a destination: as any other denial, and in the log."""
        _log.info("destination refused", extra={"run_id": run_id, "destination": refused.host, "code": refused.code})
        asked = Check(kind="network", name=refused.host, operation="connect")
        self._told(run_id, asked, Decision(False, refused.code, refused.message))
