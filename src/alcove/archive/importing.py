"""Reading an archive back in: first all of it is checked, then written; and what fails leaves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final

import msgspec

from alcove import ids, limits
from alcove.archive import dialogs, lines, queries
from alcove.archive.container import Members, opened
from alcove.archive.lines import History, Line, Manifest, MessageLine, SessionLine, StepLine, TurnLine, damaged
from alcove.archive.messages import Known, Parts, written
from alcove.archive.model import Imported, Problem
from alcove.database.op import Database
from alcove.dialogs.model import Definition
from alcove.errors import AlcoveError, ConflictError, InvalidError
from alcove.lifecycle.service import Lifecycle
from alcove.messages.content import Content
from alcove.messages.model import Stored
from alcove.messages.service import Messages
from alcove.messages.writing import Said, with_objects
from alcove.objects.service import Objects
from alcove.sessions.model import Session, Status
from alcove.workspaces.service import Workspaces

IMPORTING: Final = "importing"  # the metadata of a session of which not everything is here yet: from which archive
_BATCH: Final = 64  # messages in one transaction: other writers wait for no more than that


class State(Enum):
    """What is here of a session in the archive."""

    MISSING = 1
    BEGUN = 2  # by an import of this archive that was interrupted
    PRESENT = 3


class Importing:
    """One import: `run` it once.

    Args:
        database: Where the sessions go.
        sessions: Says which there are, and takes them back.
        messages: Their histories.
        objects: Large parts of messages.
        workspaces: Their files; None for a hub without.
        tenant: Whose the sessions are from now on.
    """

    def __init__(
        self,
        database: Database,
        sessions: Lifecycle,
        messages: Messages,
        objects: Objects,
        workspaces: Workspaces | None,
        tenant: str,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._messages = messages
        self._objects = objects
        self._workspaces = workspaces
        self._tenant = tenant
        self._lines: dict[str, SessionLine] = {}
        self._states: dict[str, State] = {}
        self._definitions: dict[tuple[str, int], Definition] = {}
        self._kept: dict[tuple[str, int], str] = {}  # ids of the definitions, once they are here
        self._mark = ""
        self._report = Imported(dry_run=False)

    async def run(self, file: str | Path, dry_run: bool, progress: Callable[[int, int], None]) -> Imported:
        """Import what is in a file: all of it, or nothing."""
        self._report.dry_run = dry_run
        with opened(file) as stream:
            size = stream.seek(0, 2)
            self._parts = Parts(stream)
            passes = 1 if dry_run else 2
            await self._check(Members(stream), lambda done: progress(done, size * passes))
            self._describe()
            if not dry_run and any(state != State.PRESENT for state in self._states.values()):
                try:
                    await self._write(Members(stream), lambda done: progress(size + done, size * passes))
                except (AlcoveError, asyncio.CancelledError):
                    await self._take_back()
                    raise
            progress(size * passes, size * passes)
        return self._report

    # -- the first pass: nothing is written ------------------------------------------------------------------------

    async def _check(self, members: Members, progress: Callable[[int], None]) -> None:
        self._begin(members)
        end: lines.End | None = None
        seen: set[str] = set()
        messages = steps = 0
        while (name := members.next()) is not None:
            if end or name in seen:
                raise damaged(f"{name[:160]!r} is in it where nothing should be")
            seen.add(name)
            progress(members.read_bytes)
            session_id, what = self._of(name)
            if what == lines.OBJECTS:
                await asyncio.to_thread(self._parts.add, members, name.partition("/")[2])
            elif what == "history":
                history = await self._compare(members, self._lines[session_id])
                messages += history.messages
                steps += history.steps
            elif name == lines.DIALOGS:
                await self._define(members)
            elif name == lines.END:
                end = lines.decode(_small(members), lines.End, name)
        if end is None:
            raise damaged("it has no end, so a part of it is missing")
        if lacking := [one for one in self._lines if lines.history_name(one) not in seen]:
            raise damaged(f"the history of session {lacking[0]} is missing")
        if (end.sessions, end.messages, end.steps) != (len(self._lines), messages, steps):
            raise damaged(f"it should have {end.sessions} sessions, {end.messages} messages and {end.steps} steps")
        self._report.messages = sum(self._lines[one].messages for one in self._missing())

    def _begin(self, members: Members) -> None:
        if members.next() != lines.MANIFEST:
            raise InvalidError(
                "this is no archive of Alcove", field="archive", remedy="`alcove export FILE.alcove` makes one"
            )
        manifest = lines.decode(_small(members), Manifest, lines.MANIFEST)
        if manifest.format != lines.FORMAT or manifest.version not in lines.READABLE:
            raise InvalidError(
                f"the archive has format {manifest.format[:80]!r}, version {manifest.version}, made by "
                f"{manifest.made_by[:80]!r}; this Alcove reads versions 1 to {lines.VERSION}",
                field="archive",
                remedy="import it with the Alcove that made it, or a later one",
            )
        self._mark = manifest.archive_id[:128]
        if members.next() != lines.SESSIONS:
            raise damaged(f"{lines.SESSIONS} is missing")
        found: list[SessionLine] = []
        for raw in members.lines():
            found.append(lines.decode(raw, SessionLine, lines.SESSIONS))
            if len(found) > limits.ARCHIVE_SESSIONS:
                raise damaged(f"it has more than {limits.ARCHIVE_SESSIONS} sessions")
        lines.check_sessions(found, self._tenant)
        self._lines = {line.session_id: line for line in found}

    def _of(self, name: str) -> tuple[str, str]:
        """Return which session a member belongs to, and what it is."""
        what, _, rest = name.partition("/")
        for suffix, folder in ((".jsonl", "history"), (".tar.gz", "files")):
            session_id = rest.removesuffix(suffix)
            if what == folder and session_id != rest and session_id in self._lines:
                return session_id, folder
        if what == lines.OBJECTS:
            return "", lines.OBJECTS
        if name not in {lines.END, lines.DIALOGS}:
            raise damaged(f"{name[:160]!r} is in it, and belongs to no session of it")
        return "", name

    async def _define(self, members: Members) -> None:
        """Check the definitions of dialogs, and that none is here as another one."""
        for raw in members.lines():
            line = lines.decode(raw, lines.DefinitionLine, lines.DIALOGS)
            definition = dialogs.definition(line)
            if not await self._database.read(dialogs.may_keep, self._tenant, line, definition.digest):
                raise ConflictError(
                    f"version {line.number} of dialog {line.name!r} is here already, and is another one",
                    field="archive",
                    remedy="import into another installation",
                )
            self._definitions[line.name, line.number] = definition
            if len(self._definitions) > limits.DIALOG_VERSIONS:
                raise damaged(f"it has more than {limits.DIALOG_VERSIONS} dialogs")

    async def _compare(self, members: Members, line: SessionLine) -> History:
        """Check a history, and what is here of it."""
        existing = await self._sessions.find(line.session_id)
        self._states[line.session_id] = self._state(existing, line)
        history = History(line)
        known = Known(self._messages, line.session_id, existing.last_seq if existing else 0)
        for record in _history(members):
            history.check(record)
            if isinstance(record, MessageLine):
                content, message, _ = await self._read(record, line.session_id)
                if not await known.agrees(record, message, content):
                    raise _other(line.session_id, f"message {record.seq} says something else here")
            elif isinstance(record, StepLine):
                dialogs.check(record, self._definitions, line.messages)
                if existing and not await self._agrees(line.session_id, record):
                    raise _other(line.session_id, f"step {record.version} of its dialog is another one here")
        history.finish()
        if existing and self._states[line.session_id] == State.PRESENT and existing.last_seq < line.messages:
            raise _other(line.session_id, f"it has {existing.last_seq} messages here, {line.messages} in the archive")
        return history

    async def _read(self, line: MessageLine, session_id: str) -> tuple[Content, Stored, Mapping[str, bytes]]:
        """Return a message's content, as it is written, and its objects; refuse what cannot be kept."""

        def read() -> tuple[Content, Stored, Mapping[str, bytes]]:
            content = self._parts.content(line, session_id)
            return content, *written(line, content, session_id)

        return await asyncio.to_thread(read) if line.objects else read()

    async def _agrees(self, session_id: str, step: StepLine) -> bool:
        """Return whether a session of an earlier import has a step, or could still get it."""
        here = await self._database.read(dialogs.steps, session_id, step.version - 1, 1)
        return here == [step] if here else self._states[session_id] != State.PRESENT

    def _state(self, existing: Session | None, line: SessionLine) -> State:
        if existing is None:
            return State.MISSING
        if existing.tenant != self._tenant:
            raise _other(existing.id, "it is another tenant's")
        if existing.status == Status.TRASHED:
            raise ConflictError(
                f"session {existing.id} is in the trash",
                field="archive",
                remedy="restore or purge it first",
                session_id=existing.id,
            )
        if existing.created_us != lines.micros_of(line.created_at):
            raise _other(existing.id, "it was created at another time")
        mark = existing.metadata.get(IMPORTING)
        if mark == self._mark:
            return State.BEGUN
        if mark is not None and line.metadata.get(IMPORTING) != mark:
            raise _other(existing.id, "an import of another archive was interrupted here")
        return State.PRESENT

    def _describe(self) -> None:
        by_state: dict[State, list[str]] = {state: [] for state in State}
        for session_id, state in self._states.items():
            by_state[state].append(session_id)
        self._report.created = by_state[State.MISSING]
        self._report.continued = by_state[State.BEGUN]
        self._report.present = by_state[State.PRESENT]

    def _missing(self) -> Iterator[str]:
        return (one for one, state in self._states.items() if state != State.PRESENT)

    # -- the second pass -------------------------------------------------------------------------------------------

    async def _write(self, members: Members, progress: Callable[[int], None]) -> None:
        self._begin(members)
        for session_id, line in self._lines.items():
            if self._states[session_id] == State.MISSING:
                await self._create(line)
        fresh = [(ids.new_id(), one) for one in self._definitions.values()]
        self._kept = await self._database.write(dialogs.keep, self._tenant, fresh)
        histories: dict[str, History] = {}
        while (name := members.next()) is not None:
            progress(members.read_bytes)
            session_id, what = self._of(name)
            if not session_id or self._states[session_id] == State.PRESENT:
                continue
            if what == "history":
                histories[session_id] = await self._history(members, self._lines[session_id])
            elif self._workspaces:
                extracted = await self._workspaces.extract(session_id, members.pieces(), replace=True)
                self._report.files += extracted.files
                self._report.size_bytes += extracted.size_bytes
        for session_id in self._missing():
            line = self._lines[session_id]
            await self._database.write(
                queries.complete, lines.new_session(line, self._tenant), line, histories[session_id]
            )

    async def _create(self, line: SessionLine) -> None:
        """Make a session that says of itself that it is not whole yet."""
        new = msgspec.structs.replace(
            lines.new_session(line, self._tenant),
            metadata_json=msgspec.json.encode({IMPORTING: self._mark}).decode(),
            indexed=(),
        )
        if line.parent_id and line.parent_id not in self._lines and not await self._is_there(line.parent_id):
            self._report.notes.append(
                Problem(line.session_id, f"its parent {line.parent_id} is not there: it became a root")
            )
            new = msgspec.structs.replace(new, parent_id="")
        await self._database.write(queries.create, new, lines.micros_of(line.created_at))

    async def _is_there(self, session_id: str) -> bool:
        session = await self._sessions.find(session_id)
        return session is not None and session.status != Status.TRASHED and session.tenant == self._tenant

    async def _history(self, members: Members, line: SessionLine) -> History:
        """Write what is missing of a history."""
        start = (await self._sessions.get(line.session_id)).last_seq
        history = History(line)
        batch = _Batch()
        for record in _history(members):
            history.check(record)
            if isinstance(record, MessageLine):
                if record.seq > start:
                    batch.add(record, *(await self._read(record, line.session_id))[1:])
            else:
                batch.other(record)
            if batch.full:
                await self._flush(line.session_id, batch)
                batch = _Batch()
        await self._flush(line.session_id, batch)
        return history

    async def _flush(self, session_id: str, batch: _Batch) -> None:
        async def write(said: Said) -> None:
            await self._database.write(
                queries.add,
                session_id,
                batch.turns,
                list(zip(batch.lines, said.messages, strict=True)),
                batch.steps,
                self._kept,
                said.files,
            )

        if batch.any:
            await with_objects(self._objects, batch.messages, batch.objects, write)

    async def _take_back(self) -> None:
        """Remove what this import made: children first."""
        for session_id in reversed(self._report.created):
            with suppress(AlcoveError):
                await asyncio.shield(self._sessions.delete(session_id, purge=True))


class _Batch:
    """What is written of a history in one transaction."""

    def __init__(self) -> None:
        self.turns: list[TurnLine] = []
        self.lines: list[MessageLine] = []
        self.messages: list[Stored] = []
        self.steps: list[StepLine] = []
        self.objects: dict[str, bytes] = {}
        self._size_bytes = 0

    def add(self, line: MessageLine, message: Stored, objects: Mapping[str, bytes]) -> None:
        """Add a message with its objects."""
        self.lines.append(line)
        self.messages.append(message)
        self.objects |= objects
        self._size_bytes += sum(map(len, objects.values()))

    def other(self, line: TurnLine | StepLine) -> None:
        """Add a turn or a step."""
        if isinstance(line, TurnLine):
            self.turns.append(line)
        else:
            self.steps.append(line)

    @property
    def any(self) -> bool:
        """Whether there is something to write."""
        return bool(self.turns or self.lines or self.steps)

    @property
    def full(self) -> bool:
        """Whether it is time to write it."""
        count = len(self.turns) + len(self.lines) + len(self.steps)
        return count >= _BATCH or self._size_bytes >= limits.OBJECT_BYTES


def _history(members: Members) -> Iterator[Line]:
    for raw in members.lines():
        yield lines.decode_line(raw)


def _small(members: Members) -> bytes:
    """Return the one line of a member."""
    found = [*members.lines()]
    if len(found) != 1:
        raise damaged(f"{len(found)} lines stand where one should be")
    return found[0]


def _other(session_id: str, why: str) -> ConflictError:
    return ConflictError(
        f"there is a session {session_id} already, and it is another one than in the archive: {why}",
        field="archive",
        remedy=f"import into another installation, or purge the one here: `alcove rm --purge {session_id}`",
        session_id=session_id,
    )
