"""How a run starts: at once, or when its session is free, as whoever sends the message chose."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from math import inf

import msgspec

from alcove import ids, limits
from alcove.agents.base import Line, Prompt
from alcove.agents.catalog import Agent, Catalog
from alcove.agents.function import FunctionAgent
from alcove.audit.model import Act
from alcove.audit.service import Audit
from alcove.database.idempotency import Once, once, recall, write_once
from alcove.database.op import Database
from alcove.errors import (
    AlcoveError,
    ClosedError,
    DatabaseError,
    InvalidError,
    RunEndedError,
    SessionBusyError,
)
from alcove.events.service import Events
from alcove.messages.model import Stored
from alcove.messages.service import Messages
from alcove.runs import holder, queries, queue_queries, steering_queries
from alcove.runs.approvals import Asking, Desk
from alcove.runs.busy import Busy, Queue, policy
from alcove.runs.granting import Built, new_run
from alcove.runs.grants import Asked, Grant
from alcove.runs.hosted import HostedRuns
from alcove.runs.model import NewRun, Run, RunStatus
from alcove.runs.queries import Started
from alcove.runs.queue_queries import Claimed, Queued, Wish
from alcove.runs.steering import check_message
from alcove.runs.supervisor import Supervisor
from alcove.runs.working import Job, Workshop, broken
from alcove.sessions.model import Session
from alcove.sessions.service import Sessions

_log = logging.getLogger("alcove.runs")


class Starting(HostedRuns):
    """Starts runs, one at a time in each session.

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
        self._queue = Queue(database, events, self)
        self._starting: set[asyncio.Task[Run]] = set()
        self._live: dict[str, tuple[Supervisor, asyncio.Task[Run]]] = {}
        self._closing = False
        workshop.asking = partial(Asking, self)
        workshop.pulling = self.pull

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
        busy: str = "reject",
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
            busy: What becomes of it while another run goes on there: `reject` refuses it; `queue` has it answered next,
                and returns a run that is `queued`; `steer` gives it to the run that goes on, which is returned as it
                is, `steered`; `interrupt` has that run end with what it said so far, and queues this before all others.
            by: Who asks; the audit keeps it.

        Raises:
            SessionNotFoundError, SessionExpiredError: There is no session to run in.
            SessionBusyError: Another run holds it, or is queued there; to be steered, it must take messages.
            QueueFullError: As many messages wait as may.
            AgentNotFoundError, AgentUnavailableError, RunNotFoundError: Nobody to answer, or no such parent.
            GuaranteeError: This machine cannot confine it as required.
            NotPermittedError: The parent or the resolver refuses.
            InvalidError: A bad message or grant; nothing was recorded in any of these cases.
        """
        self._check_open()
        rule = policy(busy)
        said = check_message(message)
        session = await self._sessions.get(session_id)
        request = _once(session_id, idempotency_key, (agent, message, language, timeout_s), grant, parent_run, rule)
        if request and (seen := await recall(self._database, request, Started)):
            return await self._as_told(seen, replayed=True)
        wish = Wish(
            session_id=session_id,
            message=message,
            agent=self._agents.get(agent or session.agent or self._default_agent).name,
            language=language,
            timeout_s=_timeout(timeout_s),
            grant=grant or Asked(),
            parent_run=parent_run,
            by=by,
        )
        built = await self._build(session, wish)
        return await self._to_its_end(self._admit(session, wish, said, request, built, rule, agent or ""))

    async def queue(self, session_id: str) -> list[Queued]:
        """Return what waits in a session, the next one first; `cancel` takes a run out of it.

        Raises:
            SessionNotFoundError: There is no such session.
        """
        await self._sessions.get(session_id)
        return await self._database.read(queue_queries.waiting, session_id)

    # -- what the queue needs of us --------------------------------------------------------------------------------

    def knows(self, agent: str) -> bool:
        """Return whether there is an agent of that name in this process."""
        return agent in self._agents

    def holds(self, session_id: str) -> bool:
        """Return whether a run goes on in a session, in this process."""
        return any(supervisor.started.session_id == session_id for supervisor, _ in self._live.values())

    async def give_way(self, run_id: str) -> None:
        """Have a run end, for a message that came after it; one of another process is asked to."""
        live = self._live.get(run_id)
        if live:
            live[0].stop(RunStatus.INTERRUPTED)
        else:
            await self._database.write(queries.ask_end, run_id, RunStatus.INTERRUPTED)

    async def begin(self, claimed: Claimed) -> None:
        """Start a run that was queued; its session is held for it.

        What an ordinary start would be refused for ends it as failed: its message was taken in, and is in the history.
        """
        self._check_open()
        wish = claimed.wish
        session = await self._sessions.get(wish.session_id)
        try:
            if claimed.lost:
                await self._workshop.reconciler.clear(claimed.lost)
            built = await self._build(session, wish)
            job = await self._prepare(session, claimed.run_id, wish, built)
        except DatabaseError:
            raise  # it is tried again
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep all that waits from being started
            built = Built(grant=Grant(agent=wish.agent, parent=wish.parent_run), cuts=(), root_run="", lifetime_s=inf)
            job = broken(built.grant, error)
        new = self._new(session, claimed.run_id, job, built)
        said = check_message(wish.message)
        try:
            started = await self._database.write(queries.begin, new, said, claimed.fence, self._witness(wish.by))
        except BaseException:
            await job.work.clean()
            raise
        self._look_after(started, job, built)

    # -- how one starts --------------------------------------------------------------------------------------------

    async def _to_its_end(self, starting: Coroutine[None, None, Run]) -> Run:
        """Go on starting a run when its caller goes away: one that is recorded is looked after all the same."""
        task = asyncio.create_task(starting)
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return await asyncio.shield(task)

    async def _admit(
        self, session: Session, wish: Wish, said: Stored, request: Once | None, built: Built, rule: Busy, agent: str
    ) -> Run:
        refusal = SessionBusyError(session_id=session.id)
        for _ in range(limits.LIVE_RETRIES):
            try:
                if rule is not Busy.REJECT:
                    await self._database.read(queue_queries.check_free, session.id)
                return await self._start_now(session, wish, said, request, built)
            except SessionBusyError as error:
                if rule is Busy.REJECT:
                    raise
                refusal = error
            if rule is not Busy.STEER:
                return await self._put(session, wish, request, built, urgent=rule is Busy.INTERRUPT)
            if run := await self._join(session.id, wish, request, agent):
                return run
            if not await self._database.read(queries.live, session.id):
                break
        raise refusal

    async def _start_now(self, session: Session, wish: Wish, said: Stored, request: Once | None, built: Built) -> Run:
        run_id = ids.new_id()
        job = await self._prepare(session, run_id, wish, built)
        try:
            new, witness = self._new(session, run_id, job, built), self._witness(wish.by)
            started, replayed = await write_once(
                self._database, request, Started, queries.start, new, said, request, witness
            )
        except BaseException:
            await job.work.clean()
            raise
        if replayed:
            await job.work.clean()
        else:
            self._look_after(started, job, built)
        return await self._as_told(started, replayed=replayed)

    async def _put(self, session: Session, wish: Wish, request: Once | None, built: Built, *, urgent: bool) -> Run:
        """Queue a run; one that interrupts before all that do not, and the run that goes on gives way to it."""
        run_id = ids.new_id()
        new = NewRun(
            id=run_id,
            session_id=session.id,
            agent=wish.agent,
            holder=self._holder,
            tenant=session.tenant,
            user_id=session.user_id,
            parent_run=wish.parent_run,
            root_run=built.root_run or run_id,
            grant_json="",
            cuts_json="",
            digest="",
        )
        queued, replayed = await write_once(
            self._database, request, Started, queue_queries.put, new, wish, urgent, request
        )
        if not replayed:
            _log.info("run queued", extra={"run_id": run_id, "session_id": session.id, "agent": wish.agent})
            self._queue.look_after(session.id)
            for live in await self._database.read(queries.live, session.id) if urgent else ():
                if live.id != run_id:
                    await self._audited("run.interrupted", live, wish.by)
                    await self.give_way(live.id)
        return await self._as_told(queued, replayed=replayed)

    async def _audited(self, act: str, run: Run, by: str) -> None:
        """Tell the audit that somebody has a run end; it ends also when that cannot be written."""
        if self._audit:
            told = Act(
                act=act,
                subject=f"run:{run.id}",
                tenant=run.tenant,
                user_id=run.user_id,
                session_id=run.session_id,
                who=ids.name(by, field="by"),
            )
            try:
                await self._audit.done(told)
            except AlcoveError:
                _log.exception("not audited", extra={"act": act, "run_id": run.id, "by": by})

    async def _join(self, session_id: str, wish: Wish, request: Once | None, agent: str) -> Run | None:
        """Put a message to the run that holds the session, which is returned; None when it takes none any more."""
        run_id = await self._database.read(steering_queries.find, session_id, agent, False)
        if run_id is None:
            return None
        steering_queries.spoken(wish.message)
        try:
            joined, replayed = await write_once(
                self._database, request, Started, queue_queries.join, run_id, wish, request
            )
        except RunEndedError:
            return None
        return await self._as_told(joined, replayed=replayed)

    async def _as_told(self, started: Started, *, replayed: bool) -> Run:
        """Return a run as whoever asked for it is told."""
        run = await self.get(started.run_id)
        if started.how == "steered":
            return msgspec.structs.replace(run, steered=True, replayed=replayed)
        return run.as_queued(replayed=replayed) if started.how == "queued" else run.as_started(replayed=replayed)

    async def _build(self, session: Session, wish: Wish) -> Built:
        return await self._granting.build(
            wish.grant,
            agent=wish.agent,
            declared=self._agents.get(wish.agent).declared,
            session_id=session.id,
            tenant=session.tenant,
            user_id=session.user_id,
            parent_run=wish.parent_run,
            by=wish.by,
        )

    async def _prepare(self, session: Session, run_id: str, wish: Wish, built: Built) -> Job:
        agent = self._agents.get(wish.agent)
        prompt = Prompt(message=wish.message, history=await self._history(session.id, agent), language=wish.language)
        # What has expired may nothing more, so the run ends then.
        timeout_s = min(wish.timeout_s or agent.timeout_s, built.lifetime_s)
        return await self._workshop.prepare(session.id, run_id, agent, prompt, timeout_s, built.grant)

    def _new(self, session: Session, run_id: str, job: Job, built: Built) -> NewRun:
        return new_run(
            job.grant,
            built,
            run_id=run_id,
            session_id=session.id,
            holder=self._holder,
            tenant=session.tenant,
            user_id=session.user_id,
        )

    def _look_after(self, started: Started, job: Job, built: Built) -> None:
        supervisor = Supervisor(self._database, self._events, started, job.work, built.lifetime_s)
        task = asyncio.create_task(supervisor.supervise(), name=f"run {started.run_id}")
        self._live[started.run_id] = (supervisor, task)
        task.add_done_callback(lambda done: self._forget(started, done))
        facts = {"run_id": started.run_id, "session_id": started.session_id, "agent": job.grant.agent}
        _log.info("run started", extra=facts)

    def _forget(self, started: Started, task: asyncio.Task[Run]) -> None:
        run_id = started.run_id
        self._live.pop(run_id, None)
        self._forget_line(run_id)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a run's end could not be written", exc_info=error, extra={"run_id": run_id})
        self._events.wake(run_id)
        self._queue.kick(started.session_id)

    async def _history(self, session_id: str, agent: Agent) -> list[Line]:
        if isinstance(agent, FunctionAgent) or not agent.history_rounds:
            return []
        window = await self._messages.window(session_id, rounds=agent.history_rounds)
        return [Line(message.role, message.text) for message in window]

    def _check_open(self) -> None:
        if self._closing:
            raise ClosedError("no more runs are started here: Alcove is stopping", remedy="try again later")

    def _desk(self, run_id: str) -> Desk | None:
        live = self._live.get(run_id)
        return live[0] if live else None


def _once(
    session_id: str, key: str | None, said: tuple[object, ...], grant: Asked | None, parent_run: str, rule: Busy
) -> Once | None:
    """Return what identifies a request; a part that says nothing is not in it, as in versions that did not have it."""
    if key is None:
        return None  # a large grant takes a while to be written
    if grant or parent_run:
        said += (grant, parent_run)
    if rule is not Busy.REJECT:
        said += (str(rule),)
    return once(f"run:{session_id}", key, ascii(said).encode())


def _timeout(timeout_s: float | None) -> float | None:
    if timeout_s is not None and not 0 < timeout_s <= limits.RUN_TIMEOUT_S_MAX:
        raise InvalidError(
            f"timeout_s is {timeout_s}",
            field="timeout_s",
            limit=limits.RUN_TIMEOUT_S_MAX,
            remedy=f"use more than 0 and at most {limits.RUN_TIMEOUT_S_MAX} seconds",
        )
    return timeout_s
