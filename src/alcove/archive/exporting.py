"""Writing an archive."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import IO, TYPE_CHECKING

from alcove import __version__, ids, limits
from alcove.archive import dialogs, lines, queries
from alcove.archive.messages import message_line
from alcove.archive.model import Exported
from alcove.archive.writing import written
from alcove.clock import seconds
from alcove.database.op import Database
from alcove.errors import FileMissingError, SessionNotFoundError, TooLargeError
from alcove.messages import content as contents
from alcove.messages.model import Message
from alcove.messages.service import Messages
from alcove.objects.service import Objects
from alcove.runs import grant_queries
from alcove.sessions.model import Session
from alcove.sessions.service import Sessions
from alcove.workspaces.service import Workspaces

if TYPE_CHECKING:
    import tarfile

_SPOOL = limits.MIB  # of one member in memory; a longer one goes through a file


class Exporting:
    """One export: `run` it once.

    Args:
        database: Where the rows are.
        sessions: Says which there are.
        messages: Their histories.
        objects: Large parts of messages.
        workspaces: Their files; None for a hub without.
        tenant: Whose sessions: those of others do not exist.
    """

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        messages: Messages,
        objects: Objects,
        workspaces: Workspaces | None,
        tenant: str,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._messages = messages
        self._objects = objects
        self._written: set[bytes] = set()  # objects, by their hashes
        self._members = 0
        self._workspaces = workspaces
        self._tenant = tenant
        self._exported = Exported()
        self._steps = 0

    async def run(
        self, file: str | Path, session_ids: Sequence[str] | None, replace: bool, progress: Callable[[int, int], None]
    ) -> Exported:
        """Write sessions to a file: those named with all below them, or all."""
        import tarfile  # late: it brings every compression along, and only its way of writing a header is used

        found = await self._found(session_ids)
        with written(file, replace=replace) as out:
            with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                await self._fill(tar, found, Path(file).parent, progress)
            self._exported.size_bytes = out.tell()
        return self._exported

    async def _fill(
        self, tar: tarfile.TarFile, found: list[Session], folder: Path, progress: Callable[[int, int], None]
    ) -> None:
        manifest = lines.Manifest(
            format=lines.FORMAT,
            version=lines.VERSION,
            archive_id=ids.new_id(),
            exported_at=seconds(await self._database.read(queries.present)),
            made_by=f"alcove {__version__}",
        )
        await self._add(tar, lines.MANIFEST, lines.encode(manifest))
        with tempfile.SpooledTemporaryFile(_SPOOL, dir=str(folder)) as spool:
            for one in found:
                ceiling = await self._database.read(grant_queries.ceiling, one.id)
                spool.write(lines.encode(lines.session_line(one, ceiling)))
            await self._add(tar, lines.SESSIONS, spool)
        definitions = await self._definitions(tar, found)
        for done, session in enumerate(found):
            progress(done, len(found))
            await self._history(tar, session, folder, definitions)
            await self._files(tar, session, folder)
        end = lines.End(sessions=len(found), messages=self._exported.messages, steps=self._steps)
        await self._add(tar, lines.END, lines.encode(end))
        progress(len(found), len(found))

    async def _found(self, session_ids: Sequence[str] | None) -> list[Session]:
        """Return the sessions that are named and those below, parents first."""
        found: dict[str, Session] = {}
        if session_ids is None:
            cursor: str | None = None
            while True:
                page = await self._sessions.list(limit=limits.PAGE, cursor=cursor, tenant=self._tenant)
                found |= {one.id: one for one in page.sessions}
                cursor = page.next_cursor
                if cursor is None:
                    break
        else:
            for session_id in session_ids:
                tree = await self._sessions.tree(session_id)
                if tree[0].tenant != self._tenant:
                    raise SessionNotFoundError(f"there is no session {session_id}", session_id=session_id)
                found |= {one.id: one for one in tree}
        if len(found) > limits.ARCHIVE_SESSIONS:
            raise TooLargeError(
                f"{len(found)} sessions are too many for one archive",
                field="session_ids",
                limit=limits.ARCHIVE_SESSIONS,
                remedy="export them in parts",
            )
        order = sorted(found.values(), key=lambda one: (one.depth, one.created_us, one.id))
        self._exported.sessions = [one.id for one in order]
        return order

    async def _definitions(self, tar: tarfile.TarFile, found: list[Session]) -> set[tuple[str, int]]:
        """Add the definitions of dialogs that sessions have followed by now; return their names and numbers."""
        used: dict[tuple[str, int], lines.DefinitionLine] = {}
        for session in found:
            followed = await self._database.read(dialogs.followed, session.id)
            used |= {(one.name, one.number): one for one in followed}
        if used:
            await self._add(tar, lines.DIALOGS, lines.encode(*used.values()))
        return {*used, ("", 0)}

    async def _history(
        self, tar: tarfile.TarFile, session: Session, folder: Path, definitions: set[tuple[str, int]]
    ) -> None:
        """Add what was said up to the moment at which the session was looked at."""
        with tempfile.SpooledTemporaryFile(_SPOOL, dir=str(folder)) as spool:
            after = 0
            while after < session.turn_count:
                turns = await self._database.read(queries.turns, session.id, after, session.turn_count, limits.PAGE)
                spool.write(lines.encode(*map(lines.turn_line, turns)))
                after = turns[-1].number
            cleared = await self._database.read(queries.cleared, session.id)
            after = 0
            while after < session.last_seq:
                page = await self._messages.page(
                    session.id, after=after, limit=limits.MESSAGE_PAGE, hidden=True, objects=False
                )
                found = [one for one in page.messages if one.seq <= session.last_seq]
                spool.write(lines.encode(*(message_line(one, cleared) for one in found)))
                await self._parts(tar, found)
                self._exported.messages += len(found)
                after = page.messages[-1].seq
            await self._dialog(spool, session, definitions)
            await self._add(tar, lines.history_name(session.id), spool)

    async def _parts(self, tar: tarfile.TarFile, found: Sequence[Message]) -> None:
        """Add the large parts of messages that are not in the archive yet, one in memory at a time."""
        for message in found:
            if message.format != contents.PACKED:
                continue
            for digest in sorted(set(contents.hashes(message.raw))):
                if bytes.fromhex(digest) not in self._written:
                    [data] = (await self._objects.read([digest])).values()
                    await self._add(tar, lines.object_name(digest), data)
                    self._written.add(bytes.fromhex(digest))

    async def _dialog(self, spool: IO[bytes], session: Session, definitions: set[tuple[str, int]]) -> None:
        """Add what happened in the dialog, up to the same moment."""
        after = 0
        while True:
            page = await self._database.read(dialogs.steps, session.id, after, limits.PAGE)
            for step in page:
                if step.last_seq > session.last_seq or (step.name, step.number) not in definitions:
                    return  # it is of later
                spool.write(lines.encode(step))
                self._steps += 1
                after = step.version
            if len(page) < limits.PAGE:
                return

    async def _files(self, tar: tarfile.TarFile, session: Session, folder: Path) -> None:
        if self._workspaces is None:
            return
        with tempfile.SpooledTemporaryFile(_SPOOL, dir=str(folder)) as spool:
            try:
                async with aclosing(self._workspaces.archive(session.id)) as made:
                    async for piece in made:
                        await asyncio.to_thread(spool.write, piece)
            except FileMissingError:
                return  # it never had any: its folder comes when it is first needed
            await self._add(tar, lines.files_name(session.id), spool)
        self._exported.workspaces += 1

    async def _add(self, tar: tarfile.TarFile, name: str, content: bytes | IO[bytes]) -> None:
        import io
        import tarfile

        self._members += 1
        if self._members > limits.ARCHIVE_MEMBERS:
            raise TooLargeError(
                f"the archive would have more than {limits.ARCHIVE_MEMBERS} members",
                field="session_ids",
                limit=limits.ARCHIVE_MEMBERS,
                remedy="export the sessions in parts",
            )
        stream = io.BytesIO(content) if isinstance(content, bytes) else content
        member = tarfile.TarInfo(name)
        member.size = stream.seek(0, io.SEEK_END) if not isinstance(content, bytes) else len(content)
        member.mode = 0o600
        stream.seek(0)
        await asyncio.to_thread(tar.addfile, member, stream)
