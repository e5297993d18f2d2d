"""Messages for runs that go on: somebody puts one to a run, and the run takes it when it is ready for it.

A message grants nothing: the run that takes it may what it might before.
"""

from __future__ import annotations

import logging

from alcove import ids, limits
from alcove.database.idempotency import once, write_once
from alcove.errors import ConflictError, InvalidError, RunEndedError, RunNotFoundError, TooLargeError
from alcove.messages.model import Draft, Stored
from alcove.messages.rules import stored
from alcove.runs import hosted_queries, steering_queries
from alcove.runs.approvals import Approvals
from alcove.runs.steering_queries import Pulled, Steered, Unread

_log = logging.getLogger("alcove.runs")


class Steering(Approvals):
    """Carries messages to runs that go on."""

    async def steer(
        self,
        message: str,
        *,
        run_id: str = "",
        session_id: str = "",
        agent: str = "",
        idempotency_key: str | None = None,
        by: str = "library",
    ) -> Steered:
        """Put a message to a run that goes on, which takes it when it is ready for it (`pull`).

        It becomes a user's message of the open turn once it is taken. One that is not taken before the run ends is
        returned: see `unread`.

        Args:
            message: What the user says, at most `limits.CHAT_BYTES` as UTF-8.
            run_id: To which run.
            session_id: Or in which session: to the newest run there that goes on.
            agent: Of this agent only.
            idempotency_key: With it, a repetition puts nothing.
            by: Who says it.

        Raises:
            RunNotFoundError: There is no such run, or none goes on in the session.
            RunEndedError: It has ended, or is to end.
            ConflictError: It is queued, and has not begun.
            QueueFullError: `limits.STEERING_MESSAGES` wait for it already.
            InvalidError, TooLargeError: A bad message, or neither a run nor a session is named.
        """
        check_message(message)
        steering_queries.spoken(message)
        ids.name(by, field="by")
        if bool(run_id) == bool(session_id):
            raise InvalidError("which run is meant", field="run_id", remedy="name either a run or a session")
        request = None
        if idempotency_key is not None:
            request = once(f"steer:{run_id or session_id}", idempotency_key, ascii((message, agent)).encode())
        target = run_id or await self._database.read(steering_queries.find, session_id, agent)
        if target is None:
            whose = f" of agent {agent}" if agent else ""
            raise RunNotFoundError(
                f"no run{whose} goes on in session {session_id}",
                field="session_id",
                remedy="start one",
                session_id=session_id,
            )
        steered, replayed = await write_once(
            self._database, request, Steered, steering_queries.put, target, message, by, request
        )
        _log.info("run steered", extra={"run_id": steered.run_id, "n": steered.n, "by": by})
        return Steered(steered.run_id, steered.n, steered.waiting, replayed)

    async def pull(self, run_id: str, *, limit: int = limits.STEERING_MESSAGES) -> Pulled:
        """Take the messages that wait for a run, oldest first: each is told once, and stands in the history then.

        For who executes the run: the host of a hosted one, else a program by its socket, or a function by its context.

        Args:
            run_id: The run.
            limit: How many at most: 1 for one at a time.

        Raises:
            RunNotFoundError, RunEndedError: There is no such run any more.
            ConflictError: Another process looks after it.
            SessionBusyError: Another run holds the session of a hosted run, so that nothing can be appended now.
            InvalidError: The limit is not valid.
        """
        if not 1 <= limit <= limits.STEERING_MESSAGES:
            raise InvalidError(
                f"limit is {limit}", field="limit", limit=limits.STEERING_MESSAGES, remedy="use 1 for one at a time"
            )
        if not await self._database.read(steering_queries.count, run_id) and not (await self.get(run_id)).ended:
            return Pulled([], 0)
        desk = self._desk(run_id)
        if desk:
            return await desk.pull(limit)
        run = await self.get(run_id)
        if not run.hosted and run.ended:
            raise RunEndedError(f"run {run_id} has ended ({run.status})", field="run_id", run_id=run_id)
        if not run.hosted:
            raise ConflictError(
                f"another process looks after run {run_id}", field="run_id", remedy="call that one", run_id=run_id
            )
        pulled = await self._database.write(hosted_queries.pull, run_id, limit)
        self._events.wake(run_id)
        return pulled

    async def unread(self, run_id: str) -> list[Unread]:
        """Return the messages that were put to a run and that it has not taken, oldest first.

        Those of a run that has ended were returned: they stand in no history.

        Raises:
            RunNotFoundError: There is no such run.
        """
        await self.get(run_id)
        return await self._database.read(steering_queries.unread, run_id)


def check_message(message: str) -> Stored:
    """Return a user's message as it will be written.

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
