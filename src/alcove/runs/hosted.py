"""Runs that a host framework executes itself, with or without a session: they have a grant and a ledger here.

The host says when one begins, that it goes on, what it says and how it ends. One that is not heard of in time is lost,
and with it its authority.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from alcove import ids, limits
from alcove.agents.catalog import Catalog
from alcove.audit.service import Audit
from alcove.clock import SECOND, Clock
from alcove.database.idempotency import once, write_once
from alcove.database.op import Database
from alcove.errors import AgentNotFoundError, InvalidError, TooLargeError, UnauthorizedError
from alcove.events.model import NewEvent
from alcove.events.service import Events
from alcove.messages.model import Draft
from alcove.messages.rules import stored
from alcove.principals.rules import digest
from alcove.rights.model import Rights
from alcove.runs import hosted_queries
from alcove.runs.checking import Whose
from alcove.runs.granting import new_run
from alcove.runs.grants import Asked
from alcove.runs.hosted_queries import Reported
from alcove.runs.model import Ending, Run, RunStatus
from alcove.runs.remembering import Remembering
from alcove.runs.steering import Steering
from alcove.sessions.service import Sessions

_log = logging.getLogger("alcove.runs")

TOKEN_PREFIX: Final = "alcove_run_"
"""Begins the token of every hosted run."""

_ENDS: Final = (
    RunStatus.FINISHED,
    RunStatus.FAILED,
    RunStatus.CANCELLED,
    RunStatus.INTERRUPTED,
    RunStatus.TIMED_OUT,
)
_STREAMS: Final = ("stdout", "stderr")
_PIECE: Final = limits.EVENT_BYTES // 4  # a character takes at most four bytes


class Registered(msgspec.Struct, frozen=True):
    """A run that a host executes, and its token: what the run itself may call the server with, told once."""

    run: Run
    token: str


class Bearer(NamedTuple):
    """The run that a token is of."""

    run_id: str
    owner: Whose


class HostedRuns(Steering, Remembering):
    """Keeps runs that a host framework executes.

    Args:
        database: Where runs are recorded.
        sessions: Says whose a session is.
        events: Carries what runs say.
        agents: Knows what an agent declares, when it is one of Alcove's.
        clock: Measures how long what the database said holds.
        audit: Is told of grants, withdrawals and denials.
    """

    def __init__(
        self,
        database: Database,
        *,
        sessions: Sessions,
        events: Events,
        agents: Catalog,
        clock: Clock | None = None,
        audit: Audit | None = None,
    ) -> None:
        super().__init__(database, events=events, clock=clock, audit=audit)
        self._sessions = sessions
        self._agents = agents
        self._tokens: dict[str, str] = {}

    async def register(
        self,
        agent: str,
        *,
        run_id: str | None = None,
        session_id: str = "",
        tenant: str = "default",
        user_id: str = "",
        parent_run: str = "",
        grant: Asked | None = None,
        stale_s: float = limits.STALE_S,
        by: str = "library",
    ) -> Registered:
        """Record a run that the caller executes, with its frozen grant, in one transaction.

        It takes no lease: in a session it may go on beside others, and its messages are appended as anybody's.

        Args:
            agent: Who works: the host's own name for it (a runner id). One of Alcove's agents bounds the grant.
            run_id: The host's own id for the run; a UUIDv7 by default.
            session_id: Where, `''` for nowhere; then tenant and user are the session's.
            tenant: Whose run it is, without a session.
            user_id: Which user's, without a session.
            parent_run: The run that hands its rights on: this one gets no more than that holds.
            grant: What the run is to be allowed (`alcove.ask`).
            stale_s: Seconds without a heartbeat or report after which it is lost, up to `limits.STALE_S_MAX`.
            by: Who asks; the audit keeps it.

        Raises:
            AlreadyExistsError: There is a run of that id.
            SessionNotFoundError, SessionExpiredError: There is no session for it.
            RunNotFoundError: There is no such parent.
            NotPermittedError: The parent or the resolver refuses.
            InvalidError: An argument is not valid.
        """
        _check(agent, tenant, user_id, stale_s)
        if session_id:
            session = await self._sessions.get(session_id)
            tenant, user_id = session.tenant, session.user_id
        own_id = ids.new_id() if run_id is None else ids.session_id(run_id, field="run_id")
        built = await self._granting.build(
            grant or Asked(),
            agent=agent,
            declared=self._declared(agent),
            session_id=session_id,
            tenant=tenant,
            user_id=user_id,
            parent_run=parent_run,
            by=by,
        )
        new = new_run(
            built.grant, built, run_id=own_id, session_id=session_id, holder="", tenant=tenant, user_id=user_id
        )
        token = TOKEN_PREFIX + ids.new_secret()
        stale_after = round(stale_s * SECOND)
        await self._database.write(hosted_queries.register, new, stale_after, digest(token), self._witness(by))
        _log.info("run registered", extra={"run_id": own_id, "session_id": session_id, "agent": agent})
        return Registered(await self.get(own_id), token)

    async def heartbeat(self, run_id: str) -> Run:
        """Say that a run goes on, and return it: `cancelling` tells that somebody asked to cancel it.

        Raises:
            RunNotFoundError: There is none of that id.
            RunEndedError: It has ended, or was not heard of for so long that it is lost.
            ConflictError: Alcove executes it.
        """
        await self._database.write(hosted_queries.beat, run_id)
        return await self.get(run_id)

    async def report(
        self,
        run_id: str,
        *,
        text: str = "",
        stream: str = "stdout",
        messages: Sequence[Draft] = (),
        idempotency_key: str | None = None,
    ) -> Reported:
        """Write what a run said, all or nothing; it goes on, by that.

        Args:
            run_id: The run.
            text: Output, for its journal and whoever listens.
            stream: `stdout` or `stderr`.
            messages: For its journal and, when it has a session, for that session's history.
            idempotency_key: With it, a repetition of the same report changes nothing.

        Raises what `heartbeat` does, and:
            TooLargeError: A message, or all that it said, is too long.
            SessionBusyError, SessionExpiredError, SessionNotFoundError: Its messages cannot be appended now.
        """
        if stream not in _STREAMS:
            raise InvalidError(f"there is no stream {stream!r}", field="stream", remedy="use stdout or stderr")
        if len(messages) > limits.APPEND_MESSAGES:
            raise TooLargeError(
                f"{len(messages)} messages", field="messages", limit=limits.APPEND_MESSAGES, remedy="report in parts"
            )
        said = [stored(draft) for draft in messages]
        valid = text.encode(errors="replace").decode()
        pieces = [valid[i : i + _PIECE] for i in range(0, len(valid), _PIECE)]
        output = [NewEvent("output", {"stream": stream, "text": piece}) for piece in pieces]
        size = len(valid.encode()) + sum(len(one.content.encode()) for one in said)
        if size > limits.BODY_BYTES:
            raise TooLargeError(
                f"the report takes {size} bytes", field="text", limit=limits.BODY_BYTES, remedy="report in parts"
            )
        request = None
        if idempotency_key is not None:
            request = once(f"report:{run_id}", idempotency_key, msgspec.msgpack.encode((text, stream, said)))
        reported, _ = await write_once(
            self._database, request, Reported, hosted_queries.report, run_id, output, size, said, request
        )
        self._events.wake(run_id)
        return reported

    async def finish(
        self,
        run_id: str,
        *,
        status: str = "finished",
        text: str = "",
        error: str = "",
        exit_code: int | None = None,
    ) -> Run:
        """End a run, with its answer, and with it its authority. Its records stay.

        Args:
            run_id: The run.
            status: `finished`, `failed`, `cancelled`, `interrupted` or `timed_out`.
            text: Its answer: a message of the session, when it has one.
            error: Why it failed.
            exit_code: Of a program.

        Raises what `report` does; a second end is a RunEndedError.
        """
        if status not in _ENDS:
            raise InvalidError(f"no run ends {status!r}", field="status", remedy=f"use {', '.join(_ENDS)}")
        answer = stored(Draft("assistant", text, metadata={"run_id": run_id})) if text else None
        told = error.replace("\x00", "\ufffd").encode(errors="replace")[: limits.RUN_ERROR_BYTES]
        ending = Ending(status=status, exit_code=exit_code, error=told.decode(errors="ignore"))
        await self._database.write(hosted_queries.finish, run_id, ending, answer)
        self._forget_line(run_id)
        self._events.wake(run_id)
        _log.info("run ended", extra={"run_id": run_id, "status": status})
        return await self.get(run_id)

    async def fail(self, run_id: str, error: str) -> Run:
        """End a run that failed: see `finish`."""
        return await self.finish(run_id, status=RunStatus.FAILED, error=error)

    async def sweep_stale(self) -> int:
        """Mark hosted runs lost that were not heard of in time; return how many. Done again and again while it is open.

        They lost their authority at that time, whether this has run or not.
        """
        found = 0
        while lost := await self._database.write(hosted_queries.lose_stale, limits.PAGE):
            found += len(lost)
            for run_id in lost:
                self._forget_line(run_id)
                self._events.wake(run_id)
                _log.warning("run lost: not heard of in time", extra={"run_id": run_id})
            await asyncio.sleep(0)
        return found

    async def of_token(self, token: str) -> Bearer:
        """Return the live run that a token is of, and whose that is.

        Raises:
            UnauthorizedError: It is no token of a run, or the run has ended.
        """
        hashed = digest(token)
        run_id = self._tokens.get(hashed) or await self._database.read(hosted_queries.by_token, hashed)
        known = await self._recent(run_id) if run_id else None
        if run_id is None or known is None or (known.refusal is not None and known.refusal.code == "finished"):
            self._tokens.pop(hashed, None)
            raise UnauthorizedError("this token is no live run's", remedy="register the run, or keep it alive")
        if hashed not in self._tokens:
            if len(self._tokens) >= limits.GRANTS_KNOWN:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[hashed] = run_id
        return Bearer(run_id, Whose(known.tenant, known.user_id, known.session_id))

    def _declared(self, agent: str) -> Rights:
        try:
            return self._agents.get(agent).declared
        except AgentNotFoundError:
            return Rights()


def _check(agent: str, tenant: str, user_id: str, stale_s: float) -> None:
    ids.name(agent, field="agent")
    ids.name(tenant, field="tenant")
    ids.name(user_id, field="user_id", empty=True)
    if not 0 < stale_s <= limits.STALE_S_MAX:
        raise InvalidError(
            f"stale_s is {stale_s}",
            field="stale_s",
            limit=limits.STALE_S_MAX,
            remedy="use seconds above 0, and heartbeats",
        )
