"""Checks and repairs of stored histories: reads some rounds, lets `repair` look at them, writes what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from alcove import limits
from alcove.clock import Micros
from alcove.database.op import Database, Statement, Steps
from alcove.errors import AlcoveError, ObjectGoneError, SessionBusyError, SessionNotFoundError, StaleSequenceError
from alcove.messages import content as contents, queries
from alcove.messages.model import REPAIRED, Message, Stored
from alcove.messages.repair import Examiner, Fault, arranged
from alcove.messages.rules import detail, packed, stored
from alcove.messages.windows import opens_round
from alcove.objects.service import Objects

_SYSTEM = frozenset({"system", "developer"})


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """A history that was looked at.

    Attributes:
        session_id: Whose.
        messages: How many messages were looked at.
        faults: What a provider would refuse of it; what was repaired of it, when that was asked for.
        skipped: Why it could not be repaired, `''` otherwise.
    """

    session_id: str
    messages: int
    faults: list[Fault]
    skipped: str = ""


async def examined(database: Database, session_id: str) -> Examined:
    """Look at a history; the memory that it takes does not depend on its length."""
    faults: list[Fault] = []
    count = await _through(database, session_id, faults, None)
    return Examined(session_id=session_id, messages=count, faults=faults)


async def repaired(database: Database, session_id: str, objects: Objects | None) -> Examined:
    """Repair a history. When somebody else writes to it meanwhile, what is left is looked at anew.

    Raises:
        SessionBusyError: A run holds the session.
        StaleSequenceError: It is written to all the time.
    """
    faults: list[Fault] = []
    for attempt in range(limits.MEND_ATTEMPTS):
        last, held = await database.read(queries.last_seq, session_id)
        if held:
            raise SessionBusyError(
                f"a run holds session {session_id}", remedy="wait for it to end, or cancel it", session_id=session_id
            )
        try:
            count = await _through(database, session_id, faults, _Pen(database, session_id, objects, last))
        except (StaleSequenceError, ObjectGoneError):
            if attempt == limits.MEND_ATTEMPTS - 1:
                raise
        else:
            return Examined(session_id=session_id, messages=count, faults=faults)
    raise AssertionError


async def every(database: Database, objects: Objects | None, *, repair: bool) -> AsyncIterator[Examined]:
    """Look at every session outside the trash, and repair it when asked."""
    after = ""
    while True:
        found = await database.read(_sessions, after, limits.PAGE)
        for session_id in found:
            try:
                yield await (repaired(database, session_id, objects) if repair else examined(database, session_id))
            except SessionNotFoundError:
                continue  # it went meanwhile
            except AlcoveError as error:
                yield Examined(session_id=session_id, messages=0, faults=[], skipped=error.message)
        if len(found) < limits.PAGE:
            return
        after = found[-1]


def _sessions(now: Micros, after: str, limit: int) -> Steps[list[str]]:
    rows = yield Statement(
        "SELECT session_id FROM heads WHERE session_id > ? AND trashed = 0 ORDER BY session_id LIMIT ?", (after, limit)
    )
    return [row[0] for row in rows]


class _Pen:
    """Writes what a repair says, as long as nobody else writes."""

    def __init__(self, database: Database, session_id: str, objects: Objects | None, last_seq: int) -> None:
        self._database = database
        self._session_id = session_id
        self._objects = objects
        self._last_seq = last_seq

    async def whole(self, rows: list[tuple[Message, str]]) -> list[tuple[Message, str]]:
        """Return rows with the objects of those that may have to be written anew."""
        if self._objects is None:
            return rows
        found: list[tuple[Message, str]] = []
        for message, status in rows:
            if message.format == contents.PACKED and "tool" in message.role + message.raw + message.detail_json:
                data = await self._objects.read(contents.hashes(message.raw))
                found.append((msgspec.structs.replace(message, objects=data), status))
            else:
                found.append((message, status))
        return found

    async def write(self, examiner: Examiner) -> None:
        """Hide and append in one transaction."""
        if not (examiner.hide or examiner.place):
            return
        messages: list[tuple[int, Stored]] = []
        data: dict[str, bytes] = {}
        for after, turn, draft in examiner.place:
            if self._objects is None:
                message = stored(draft)
            else:
                message, objects = packed(draft)
                data |= objects
            messages.append((turn, msgspec.structs.replace(message, detail=detail(draft, repair_after=after))))
        files = await self._objects.keep(data.values()) if self._objects and data else {}
        hide = sorted(set(examiner.hide))
        await self._database.write(queries.mend, self._session_id, self._last_seq, hide, messages, files)
        self._last_seq += len(messages)


async def _through(database: Database, session_id: str, faults: list[Fault], pen: _Pen | None) -> int:
    """Look at a whole history, and write with the pen, if there is one; return how many messages were looked at."""
    examiner = Examiner()
    kept = await database.read(queries.kept, session_id, 2**62)
    examiner.systems([one for one in kept if one.role in _SYSTEM and not one.summary_of])
    placed = [one for one in kept if one.kept == REPAIRED and one.role not in _SYSTEM]
    count = after = 0
    more = True
    while True:
        if pen:
            await pen.write(examiner)
        faults += examiner.faults
        if not more:
            return count
        rows, upto = await _rounds(database, session_id, after)
        more = upto is not None
        end = 2**62 if upto is None else upto
        among = [one for one in placed if after < (one.detail.repair_after or 0) <= end]
        ended = not more and not (rows and rows[-1][1] == "open")
        examiner.rounds(arranged(await pen.whole(rows) if pen else rows, among), last=ended)
        count, after = count + len(rows), end


async def _rounds(database: Database, session_id: str, after: int) -> tuple[list[tuple[Message, str]], int | None]:
    """Return the next whole rounds, and up to which seq they go, None for the end of the history.

    A round that is very long is returned in one piece.
    """
    limit = limits.MEND_MESSAGES
    while True:
        rows = await database.read(queries.view, session_id, after, limit)
        if len(rows) < limit:
            return rows, None
        last = max((at for at, (one, _) in enumerate(rows) if opens_round(one)), default=0)
        if last:
            return rows[:last], rows[last][0].seq - 1
        limit *= 2
