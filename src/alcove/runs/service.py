"""Runs, as callers use them: start, stream, wait, cancel, list."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial

from alcove import ids, limits
from alcove.agents.base import Line, Prompt
from alcove.agents.catalog import Agent, Catalog
from alcove.agents.function import FunctionAgent
from alcove.audit.service import Audit
from alcove.database.idempotency import Once, once, recall, write_once
from alcove.database.op import Database
from alcove.errors import (
    ClosedError,
    ConflictError,
    DatabaseError,
    InvalidError,
    SandboxError,
    StorageError,
    TooLargeError,
)
from alcove.events.model import Event
from alcove.events.service import Events
from alcove.messages import queries as message_queries
from alcove.messages.model import Draft, Stored
from alcove.messages.rules import stored
from alcove.messages.service import Messages
from alcove.runs import holder, queries
from alcove.runs.approvals import Asking, Desk
from alcove.runs.deciding import Check, Decision
from alcove.runs.granting import Built, new_run
from alcove.runs.grants import Asked
from alcove.runs.hosted import HostedRuns
from alcove.runs.model import Reply, Run, RunStatus
from alcove.runs.queries import Lost, Started
from alcove.runs.reconciler import Reconciled
from alcove.runs.supervisor import Supervisor
from alcove.runs.working import Workshop
from alcove.sandbox.proxy import Refused
from alcove.sessions.model import Session
from alcove.sessions.service import Sessions

_log = logging.getLogger("alcove.runs")
_EVENTS = 2**62


class Runs(HostedRuns):
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
        super().__init__(database, sessions=sessions, events=events, agents=agents, audit=audit)
        self._messages = messages
        self._workshop = workshop
        self._default_agent = default_agent
        self._holder = holder.here()
        self._starting: set[asyncio.Task[Run]] = set()
        self._live: dict[str, tuple[Supervisor, asyncio.Task[Run]]] = {}
        self._closing = False
        workshop.on_refused = self._tell_refused
        workshop.asking = partial(Asking, self)

    async def start(
        self,
        session_id: str,
        message: str,
        *,
        agent: str | None = None,
        language: str | None = None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        grant: Asked | None = None,
        parent_run: str = "",
        by: str = "library",
    ) -> Run:
        """Start a run on a message and return it; it goes on whether anybody listens or not.

        The user's message, the turn, the frozen grant and the lease are one transaction.

        Args:
            session_id: Where.
            message: What the user says, at most `limits.CHAT_BYTES` as UTF-8.
            agent: Who answers; by default the session's agent, else the installation's.
            language: Language to reply in, for agents that are asked to.
            timeout_s: Wall time, at most `limits.RUN_TIMEOUT_S_MAX`; the agent's own by default.
            idempotency_key: With it, a repetition gets the first answer again: the same run, as it started.
            grant: What the run is to be allowed (`alcove.ask`); as much as the agent declares by default.
            parent_run: The run that hands its rights on: the new one gets no more than that holds.
            by: Who asks; the audit keeps it.

        Raises:
            SessionNotFoundError, SessionExpiredError: There is no session to run in.
            SessionBusyError: Another run holds it.
            AgentNotFoundError, AgentUnavailableError, RunNotFoundError: Nobody to answer, or no such parent.
            GuaranteeError: This machine cannot confine it as required.
            NotPermittedError: The parent or the resolver refuses.
            InvalidError: A bad message or grant; nothing was recorded in any of these cases.
        """
        self._check_open()
        said = _checked(message)
        session = await self._sessions.get(session_id)
        body = (agent, message, language, timeout_s, *((grant, parent_run) if grant or parent_run else ()))
        request = None if idempotency_key is None else once(f"run:{session_id}", idempotency_key, ascii(body).encode())
        if request and (seen := await recall(self._database, request, Started)):
            return (await self.get(seen.run_id)).as_started(replayed=True)
        answering = self._agents.get(agent or session.agent or self._default_agent)
        prompt = Prompt(message=message, history=await self._history(session_id, answering), language=language)
        built = await self._granting.build(
            grant or Asked(),
            agent=answering.name,
            declared=answering.declared,
            session_id=session_id,
            tenant=session.tenant,
            user_id=session.user_id,
            parent_run=parent_run,
            by=by,
        )
        # When its caller goes away, a run that is recorded is looked after all the same.
        task = asyncio.create_task(self._start(session, answering, prompt, said, _timeout(timeout_s), request, built))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return await asyncio.shield(task)

    async def _start(
        self,
        session: Session,
        agent: Agent,
        prompt: Prompt,
        said: Stored,
        timeout_s: float | None,
        request: Once | None,
        built: Built,
    ) -> Run:
        run_id = ids.new_id()
        # What has expired may nothing more, so the run ends then.
        timeout_s = min(timeout_s or agent.timeout_s, built.lifetime_s)
        job = await self._workshop.prepare(session.id, run_id, agent, prompt, timeout_s, built.grant)
        try:
            new = new_run(
                job.grant,
                built,
                run_id=run_id,
                session_id=session.id,
                holder=self._holder,
                tenant=session.tenant,
                user_id=session.user_id,
            )
            witness = self._witness(built.by)
            started, replayed = await write_once(
                self._database, request, Started, queries.start, new, said, request, witness
            )
        except BaseException:
            await job.work.clean()
            raise
        if replayed:
            await job.work.clean()
            return (await self.get(started.run_id)).as_started(replayed=True)
        supervisor = Supervisor(self._database, self._events, started, job.work, built.lifetime_s)
        task = asyncio.create_task(supervisor.supervise(), name=f"run {run_id}")
        self._live[run_id] = (supervisor, task)
        task.add_done_callback(lambda done: self._forget(run_id, done))
        _log.info("run started", extra={"run_id": run_id, "session_id": session.id, "agent": agent.name})
        return (await self.get(run_id)).as_started(replayed=False)

    async def stream(
        self, session_id: str, message: str, *, agent: str | None = None, timeout_s: float | None = None
    ) -> AsyncIterator[Event]:
        """Start a run and yield its events to the last one. Leaving early does not cancel it."""
        run = await self.start(session_id, message, agent=agent, timeout_s=timeout_s)
        async for event in self.events(run.id):
            yield event

    async def chat(
        self, session_id: str, message: str, *, agent: str | None = None, timeout_s: float | None = None
    ) -> Reply:
        """Start a run, wait for its end and return it with its answer."""
        run = await self.start(session_id, message, agent=agent, timeout_s=timeout_s)
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
        if not run.answer_seq:
            return Reply(run, run.error)
        message = await self._database.read(message_queries.one, run.session_id, run.answer_seq)
        metadata = (message.detail.metadata if message else None) or {}
        return Reply(run, "" if message is None or metadata.get("silent") else message.text)

    async def cancel(self, run_id: str) -> Run:
        """Cancel a run and return it: ended, when this process looks after it; another one is asked to end it.

        A host framework is asked too, and hears it with its next heartbeat. Of a run that Alcove executes the whole
        process tree is gone before it has ended. A run that has ended stays as it is.
        """
        run = await self.get(run_id)
        live = self._live.get(run_id)
        if live:
            live[0].stop(RunStatus.CANCELLED)
            await asyncio.shield(live[1])
            return await self.get(run_id)
        return run if run.ended else await self._database.write(queries.ask_cancel, run_id)

    async def cancel_session(self, session_id: str) -> None:
        """Cancel whatever runs in a session, here or in another process, and wait until it has ended."""
        for live in await self._database.read(queries.live, session_id):
            run = await self.cancel(live.id)
            while not run.ended and not await self._end_if_gone(run):
                await asyncio.sleep(limits.EVENT_POLL_S)
                run = await self.get(run.id)

    async def lost(self) -> list[Run]:
        """Return the runs whose holder is gone, or whose host was not heard of: what a sweep would mark lost."""
        found: list[Run] = await self._database.read(queries.stale)
        after = ""
        while runs := await self._database.read(queries.all_live, after, limits.PAGE):
            after = runs[-1].id
            found += [run for run in runs if await self._is_gone(run)]
        return found

    async def recover(self) -> int:
        """Mark runs lost whose holder is gone, end what they left, and return how many. Done when Alcove opens.

        Those of host frameworks have no holder: see `sweep_stale`.
        """
        found, after = 0, ""
        while runs := await self._database.read(queries.all_live, after, limits.PAGE):
            after = runs[-1].id
            for run in runs:
                try:
                    found += await self._end_if_gone(run)
                except (SandboxError, StorageError, ConflictError):
                    _log.exception("a lost run could not be ended", extra={"run_id": run.id})
        try:
            await self._workshop.reconciler.remove_folders()
        except (StorageError, ConflictError):
            _log.exception("the folder of a run could not be removed")
        return found

    async def reconcile(self) -> Reconciled:
        """End and remove what servers that died have left of runs, by whatever it can be known."""
        return await self._workshop.reconciler.sweep()

    async def evict(self, session_ids: list[str]) -> None:
        """End what is left of programs of sessions in which nothing can start any more: see `Reconciler.evict`."""
        await self._workshop.reconciler.evict(session_ids)

    async def watch(self) -> None:
        """Recover again and again, so that the end of another process is noticed. Goes on until it is cancelled."""
        while True:
            await asyncio.sleep(limits.LEASE_S)
            try:
                await self.sweep_stale()
                await self.sweep_expired()
                await self.recover()
            except DatabaseError:
                _log.exception("lost runs could not be looked for")

    async def close(self, drain_s: float = 0) -> None:
        """Start no more runs, give the live ones `drain_s` seconds to end, then cancel them and wait."""
        self._closing = True
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

    def _check_open(self) -> None:
        if self._closing:
            raise ClosedError("no more runs are started here: Alcove is stopping", remedy="try again later")

    def _desk(self, run_id: str) -> Desk | None:
        live = self._live.get(run_id)
        return live[0] if live else None

    async def _end_withdrawn(self, run_id: str) -> None:
        await self.cancel(run_id)

    def _tell_refused(self, run_id: str, refused: Refused) -> None:
        """Tell that a run's proxy refused it a destination: as any other denial, and in the log."""
        _log.info("destination refused", extra={"run_id": run_id, "destination": refused.host, "code": refused.code})
        asked = Check(kind="network", name=refused.host, operation="connect")
        self._told(run_id, asked, Decision(False, refused.code, refused.message))

    def _forget(self, run_id: str, task: asyncio.Task[Run]) -> None:
        self._live.pop(run_id, None)
        self._forget_line(run_id)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a run's end could not be written", exc_info=error, extra={"run_id": run_id})
        self._events.wake(run_id)

    async def _history(self, session_id: str, agent: Agent) -> list[Line]:
        if isinstance(agent, FunctionAgent) or not agent.history_rounds:
            return []
        window = await self._messages.window(session_id, rounds=agent.history_rounds)
        return [Line(message.role, message.text) for message in window]

    async def _end_if_gone(self, run: Run) -> bool:
        """Mark a run lost when its lease has run out, or the process that looked after it on this machine is gone."""
        if not await self._is_gone(run):
            return False
        await self._workshop.reconciler.clear(Lost(run.id, run.tree))
        return await self._database.write(queries.lose, run.id, run.holder)

    async def _is_gone(self, run: Run) -> bool:
        return holder.gone(run.holder) or await self._database.read(queries.lapsed, run.session_id, run.id)


def _checked(message: str) -> Stored:
    """Return the user's message as it will be written.

    Raises:
        InvalidError: It is empty, or has a lone surrogate.
        TooLargeError: It is past `limits.CHAT_BYTES`.
    """
    if not message.strip():
        raise InvalidError("the message is empty", field="message", remedy="say something")
    size = len(message.encode(errors="replace"))
    if size > limits.CHAT_BYTES:
        raise TooLargeError(
            f"the message is {size} bytes",
            field="message",
            limit=limits.CHAT_BYTES,
            remedy="put it into a file of the workspace",
        )
    return stored(Draft("user", message))


def _timeout(timeout_s: float | None) -> float | None:
    if timeout_s is not None and not 0 < timeout_s <= limits.RUN_TIMEOUT_S_MAX:
        raise InvalidError(
            f"timeout_s is {timeout_s}",
            field="timeout_s",
            limit=limits.RUN_TIMEOUT_S_MAX,
            remedy=f"use more than 0 and at most {limits.RUN_TIMEOUT_S_MAX} seconds",
        )
    return timeout_s
