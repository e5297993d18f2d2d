"""The runs of a server, and what they say, in the words of the hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final, final

import msgspec

from alcove import limits
from alcove.cli import answers
from alcove.cli.remote_approvals import RemoteApprovals
from alcove.cli.remote_grants import GrantAnswer, decisions
from alcove.cli.wire import UnreachableError, Wire, at
from alcove.clock import SECOND
from alcove.events.model import FINISHED, Event
from alcove.runs.checking import Held
from alcove.runs.deciding import Check, Decision
from alcove.runs.model import Reply, Run, RunPage
from alcove.runs.queue_queries import Queued
from alcove.runs.steering_queries import Steered, Unread
from alcove.values import Json

_PAUSE_S: Final = limits.SSE_RETRY_MS / 1000
_RESUMES: Final = 15  # times that a stream is taken up again without an event in between: half a minute


class _Queue(msgspec.Struct, kw_only=True):
    class One(msgspec.Struct, kw_only=True):
        run_id: str
        position: int
        message: str
        agent: str
        interrupts: bool
        made_by: str
        created_at: float

    queue: list[One]


class _Unread(msgspec.Struct, kw_only=True):
    class One(msgspec.Struct, kw_only=True):
        n: int
        text: str
        made_by: str
        returned: bool
        created_at: float

    messages: list[One]


@final
class RemoteRuns(RemoteApprovals):
    """`hub.runs` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def start(
        self,
        session_id: str,
        message: str,
        *,
        agent: str | None = None,
        timeout_s: float | None = None,
        busy: str = "reject",
    ) -> Run:
        """Start a run: see `Runs.start`."""
        body = {"message": message, "agent": agent, "timeout_s": timeout_s, "busy": busy}
        answer = await self._wire.ask("POST", at("sessions", session_id, "runs"), body=body)
        return answer.read(answers.RunAnswer).record()

    async def get(self, run_id: str) -> Run:
        """Return a run: see `Runs.get`."""
        return (await self._wire.ask("GET", at("runs", run_id))).read(answers.RunAnswer).record()

    async def list(
        self,
        session_id: str | None = None,
        *,
        active: bool | None = None,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
    ) -> RunPage:
        """List runs, newest first: see `Runs.list`."""
        query = {"session_id": session_id, "active": active, "limit": limit, "cursor": cursor}
        answer = (await self._wire.ask("GET", at("runs"), query=query)).read(answers.RunsAnswer)
        return RunPage([one.record() for one in answer.runs], answer.next_cursor)

    async def cancel(self, run_id: str) -> Run:
        """Cancel a run and return it: see `Runs.cancel`."""
        return (await self._wire.ask("POST", at("runs", run_id, "cancel"))).read(answers.RunAnswer).record()

    async def queue(self, session_id: str) -> list[Queued]:
        """Return what waits in a session, the next one first: see `Runs.queue`."""
        found = (await self._wire.ask("GET", at("sessions", session_id, "queue"))).read(_Queue)
        return [
            Queued(
                run_id=one.run_id,
                position=one.position,
                message=one.message,
                agent=one.agent,
                interrupts=one.interrupts,
                made_by=one.made_by,
                created_us=round(one.created_at * SECOND),
            )
            for one in found.queue
        ]

    async def steer(self, message: str, *, run_id: str = "", session_id: str = "", agent: str = "") -> Steered:
        """Put a message to a run that goes on: see `Runs.steer`."""
        path, body = at("runs", run_id, "steer"), {"message": message}
        if not run_id:
            path, body = at("sessions", session_id, "steer"), {**body, "agent": agent}
        return (await self._wire.ask("POST", path, body=body)).read(Steered)

    async def unread(self, run_id: str) -> list[Unread]:
        """Return the messages that a run has not taken: see `Runs.unread`."""
        found = (await self._wire.ask("GET", at("runs", run_id, "steering"))).read(_Unread)
        return [
            Unread(one.n, one.text, one.made_by, one.returned, round(one.created_at * SECOND)) for one in found.messages
        ]

    async def grant(self, run_id: str) -> Held:
        """Return a run's authority: see `Runs.grant`."""
        return (await self._wire.ask("GET", at("runs", run_id, "grant"))).read(GrantAnswer).record()

    async def authorize(self, run_id: str, checks: Sequence[Check], *, fresh: bool = False) -> list[Decision]:
        """Answer checks about one run: see `Runs.authorize`."""
        return await decisions(self._wire, run_id, checks, fresh=fresh)

    async def events(self, run_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events of a run after number `after`, to its last one: see `Runs.events`.

        A stream that breaks is taken up again where it broke, also from a server that was started anew.
        """
        patience = _RESUMES
        while True:
            try:
                async for event in stream_events(self._wire, _events(run_id), after):
                    yield event
                    after, patience = event.n, _RESUMES
                    if event.type == FINISHED:
                        return
                if (await self.get(run_id)).ended and not await self._left(run_id, after):
                    return
            except UnreachableError:
                if not patience:
                    raise
            patience -= 1
            await asyncio.sleep(_PAUSE_S)

    async def reply(self, run_id: str) -> Reply:
        """Wait for the end of a run and return it with its answer: see `Runs.reply`."""
        run = await self.get(run_id)
        if not run.ended:
            async for _ in self.events(run_id):
                pass
            run = await self.get(run_id)
        returned = tuple(one.text for one in await self.unread(run_id))
        if not run.answer_seq:
            return Reply(run, run.error, returned)
        query = {"after": run.answer_seq - 1, "limit": 1, "hidden": True}
        found = await self._wire.ask("GET", at("sessions", run.session_id, "messages"), query=query)
        [message] = found.read(answers.MessagesAnswer).messages
        return Reply(run, "" if (message.metadata or {}).get("silent") else message.record().text, returned)

    async def _left(self, run_id: str, after: int) -> bool:
        """Return whether there are events after a number, of a run that has ended."""
        async with aclosing(stream_events(self._wire, _events(run_id), after)) as events:
            async for _ in events:
                return True
        return False


@final
class RemoteEvents:
    """`hub.events` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def read(self, run_id: str, after: int = 0, limit: int = limits.EVENT_PAGE) -> list[Event]:
        """Return the events after number `after`, at most `limit`: see `Events.read`."""
        found: list[Event] = []
        async with aclosing(stream_events(self._wire, _events(run_id), after, follow=False)) as events:
            async for event in events:
                found.append(event)
                if len(found) == limit:
                    break
        return found


def _events(run_id: str) -> str:
    return at("runs", run_id, "events")


async def stream_events(wire: Wire, path: str, after: int = 0, *, follow: bool = True) -> AsyncGenerator[Event]:
    """Yield events as one stream brings them, to its end."""
    query = None if follow else {"follow": False}
    headers = {"Last-Event-ID": str(after)} if after else {}
    async with wire.stream(path, query=query, headers=headers) as response:
        fields: dict[bytes, bytes] = {}
        rest = b""
        async for piece in wire.pieces(response):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line:
                    name, _, value = line.partition(b": ")
                    fields[name] = value
                elif fields.get(b"data"):
                    data: dict[str, Json] = msgspec.json.decode(fields[b"data"])
                    yield Event(int(fields[b"id"]), fields[b"event"].decode(), data, 0)
                    fields = {}
