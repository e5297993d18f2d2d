"""Importing sessions that were kept as one JSON file each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import tzinfo
from pathlib import Path
from typing import Final

import msgspec

from alcove import limits
from alcove.archive import queries, reading, rules
from alcove.archive.model import Imported, Problem
from alcove.archive.rules import MARK, Found, Head
from alcove.clock import Micros
from alcove.database.op import Database, Steps
from alcove.errors import AlcoveError, ConflictError, InvalidError, NotFoundError
from alcove.messages import queries as messages
from alcove.sessions.model import Session, Status
from alcove.sessions.service import Sessions

_BATCH: Final = 64  # messages in one transaction: other writers wait for no more than that
_REFUSED: Final = (InvalidError, ConflictError, NotFoundError)  # what concerns one file, and not the whole import


class JsonSessions:
    """One import: `run` it once.

    Args:
        database: Where the sessions go.
        sessions: Says which there are.
        app: The app that they belong to from now on.
        zone: Where naive times are local; None for this machine's zone.
    """

    def __init__(self, database: Database, sessions: Sessions, app: str, zone: tzinfo | None) -> None:
        self._database = database
        self._sessions = sessions
        self._app = app
        self._zone = zone
        self._depths: dict[str, int] = {}  # of the sessions that are there by now, or would be

    async def run(self, folder: str | Path, dry_run: bool, progress: Callable[[int, int], None]) -> Imported:
        """Import what is in a folder: parents first, each file for itself."""
        report = Imported(dry_run=dry_run)
        with reading.opened(folder) as fd:
            order, cut = rules.parents_first(await asyncio.to_thread(self._heads, fd, report))
            for done, head in enumerate(order):
                progress(done, len(order))
                try:
                    raw = await asyncio.to_thread(reading.read, fd, head.path)
                    found = await self._found(head, raw, cut.get(head.session_id, ""))
                    await self._take(head, found, report)
                except _REFUSED as error:
                    report.failed.append(Problem(head.path, _sentence(error)))
                    continue
                report.notes.extend(Problem(head.path, note) for note in found.notes)
            progress(len(order), len(order))
        return report

    def _heads(self, fd: int, report: Imported) -> list[Head]:
        heads: dict[str, Head] = {}
        for name in reading.names(fd):
            if not name.endswith(".json"):
                continue
            try:
                head = rules.head(name, rules.object_of(reading.read(fd, name)))
            except InvalidError as error:
                report.failed.append(Problem(name, _sentence(error)))
                continue
            first = heads.setdefault(head.session_id, head)
            if first is not head:
                report.failed.append(Problem(name, f"session {head.session_id} is in {first.path} already"))
        return list(heads.values())

    async def _found(self, head: Head, raw: bytes, cut: str) -> Found:
        now = await self._database.read(_now)
        fields = rules.object_of(raw)
        found = rules.session(fields, path=head.path, app=self._app, zone=self._zone, now=now)
        why = cut
        if not cut and head.parent_id and not await self._is_there(head.parent_id):
            why = f"its parent {head.parent_id} is not there"
        if why:
            found.notes.append(f"{why}: it became a root")
            found = msgspec.structs.replace(found, new=msgspec.structs.replace(found.new, parent_id=""))
        return found

    async def _is_there(self, session_id: str) -> bool:
        if session_id not in self._depths:
            session = await self._sessions.find(session_id)
            if session is None or session.status == Status.TRASHED:
                return False
            self._depths[session_id] = session.depth
        return True

    async def _take(self, head: Head, found: Found, report: Imported) -> None:
        """Make a session, or go on with one of an earlier import."""
        existing = await self._sessions.find(head.session_id)
        if existing:
            await self._check_ours(existing, head, found)
            start = existing.last_seq
            self._depths[existing.id] = existing.depth
            (report.continued if start < len(found.history) else report.present).append(existing.id)
        else:
            depth = self._depths[found.new.parent_id] + 1 if found.new.parent_id else 0
            if depth > limits.DEPTH:
                raise InvalidError(f"it is {depth} levels below its root, and {limits.DEPTH} are possible")
            if not report.dry_run:
                await self._database.write(queries.create, found.new, found.created_us)
            start = 0
            self._depths[head.session_id] = depth
            report.created.append(head.session_id)
        report.messages += max(len(found.history) - start, 0)
        if not report.dry_run and (start < len(found.history) or not existing):
            await self._write(found, start, existing.last_activity_us if existing else 0)

    async def _check_ours(self, existing: Session, head: Head, found: Found) -> None:
        if existing.status == Status.TRASHED:
            raise ConflictError(f"session {existing.id} is in the trash: restore or purge it first")
        if existing.metadata.get(MARK) != head.path:
            raise ConflictError(f"there is a session {existing.id} already, and it does not come from this file")
        if 0 < existing.last_seq < len(found.history):
            last = await self._database.read(messages.one, existing.id, existing.last_seq)
            then = found.history[existing.last_seq - 1].message
            if last is None or (last.role, last.raw) != (then.role, then.content):
                raise ConflictError(f"session {existing.id} has gone on here since, differently from the file")

    async def _write(self, found: Found, start: int, active_us: Micros) -> None:
        history = found.history
        for first in range(start, len(history), _BATCH):
            await self._database.write(queries.append, found.new.id, history[first : first + _BATCH], first)
        await self._database.write(queries.settle, found.new.id, max(found.active_us, active_us))


def _now(now: Micros) -> Steps[Micros]:
    """Return the database's present."""
    yield from ()
    return now


def _sentence(error: AlcoveError) -> str:
    return f"{error.message} ({error.remedy})" if error.remedy else error.message
