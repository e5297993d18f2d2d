"""Workspaces: the folders of sessions, made, measured and removed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from alcove import ids
from alcove.database.op import Database
from alcove.errors import AlcoveError, SessionNotFoundError
from alcove.workspaces import queries, strays, uids
from alcove.workspaces.base import Base, settle
from alcove.workspaces.failures import translated
from alcove.workspaces.files import Files
from alcove.workspaces.model import Removed, Stray, Usage


class Workspaces(Files):
    """The folders of sessions, and (`Files`) what is in them.

    Args:
        database: Where uids and sizes are recorded.
        folder: The base, `<base>/<session_id>/` is a workspace.
        home: `ALCOVE_HOME`; `<home>/homes/<session_id>/` is the HOME of a session's programs.
        installation: The id of this installation.
        leased_uids: Whether programs of each session run under a uid of their own (a root server).
    """

    def __init__(
        self, database: Database, *, folder: Path, home: Path, installation: str, leased_uids: bool = False
    ) -> None:
        super().__init__(database, Base.open(str(folder), installation, shared=leased_uids), str(folder))
        self.folder = folder
        self._uids = uids.leasable(installation) if leased_uids else None
        self._homes = home / "homes"
        mode = 0o711 if leased_uids else 0o700
        for place in (home, self._homes):
            with translated(str(place)):
                place.mkdir(mode=mode, parents=True, exist_ok=True)
                if place.stat().st_uid == os.geteuid():
                    place.chmod(mode)

    @property
    def leases(self) -> bool:
        """Whether each session has a uid of its own."""
        return self._uids is not None

    async def close(self) -> None:
        """Finish the writes that are under way, then let go of the base folder."""
        await self._watches.close()
        await self._changes.close()
        self._base.close()

    def path(self, session_id: str) -> Path:
        """Return the absolute path of a session's workspace, whether it is there or not."""
        return self.folder / ids.session_id(session_id)

    def home(self, session_id: str) -> Path:
        """Return the absolute path of the HOME of a session's programs."""
        return self._homes / ids.session_id(session_id)

    async def ensure(self, session_id: str, *, guarded: bool = False) -> int | None:
        """Make the workspace and the home of a session where they are missing; return its leased uid, if any.

        Args:
            session_id: Whose they are.
            guarded: Whether both are owned so that no `chmod` of its programs can open them (`base.settle`).

        Raises:
            SessionNotFoundError: There is no such session, or it is in the trash; nothing was made.
            StorageError: The disk could not do it, or every uid is leased.
        """
        uid = await self._database.read(queries.find, session_id)
        if uid is None or (self._uids and not uid):
            uid = await self._database.write(queries.settle, session_id, self._uids)
        await asyncio.to_thread(self._make, session_id, uid or None, guarded)
        if await self._database.read(queries.find, session_id) is None:
            # It was deleted meanwhile, and what was made now came too late to go with it.
            await asyncio.to_thread(self._unmake, session_id)
            raise SessionNotFoundError(f"there is no session {session_id}", field="session_id", session_id=session_id)
        return uid or None

    async def settle(self, session_id: str, *, guarded: bool = False) -> None:
        """Put owners and modes of a session's folders right, which its programs may have changed; makes none."""
        uid = await self._database.read(queries.find, session_id)
        if uid is not None and self._base.exists(session_id) and self.home(session_id).exists():
            await asyncio.to_thread(self._make, session_id, uid or None, guarded)

    async def usage(self, session_id: str) -> Usage:
        """Return bytes and files of a workspace as last measured: after each run and each write from outside."""
        return await self._database.read(queries.usage, session_id)

    async def totals(self) -> queries.Totals:
        """Return what all workspaces take, as last measured."""
        return await self._database.read(queries.totals)

    async def trash(self, going: Iterable[tuple[str, str]]) -> dict[str, AlcoveError]:
        """Move workspaces into their trashings: pairs of session id and trash id. May be repeated.

        Returns:
            The sessions whose folder could not be moved, and why. A session without a folder is none of them.
        """
        return await asyncio.to_thread(_each, self._base.trash, list(going))

    async def untrash(self, coming: Iterable[tuple[str, str]]) -> dict[str, AlcoveError]:
        """Move workspaces back from their trashings; as `trash`."""
        return await asyncio.to_thread(_each, self._base.untrash, list(coming))

    async def unmake(self, session_id: str) -> None:
        """Take back what `ensure` made for a session that came to nothing; a folder that holds something stays."""
        await asyncio.to_thread(self._unmake, session_id)
        if not self._base.exists(session_id):
            await self._database.write(queries.forget, session_id)

    async def purge(self, session_id: str, trash_id: str) -> Removed:
        """Remove a session's workspace and home for good, then give its uid back. May be repeated."""
        removed = await asyncio.to_thread(self._purge, session_id, trash_id)
        await self._database.write(queries.forget, session_id)
        return removed

    async def vacant(self, session_ids: Iterable[str]) -> set[str]:
        """Return those whose workspace holds nothing, or is not there."""
        return await asyncio.to_thread(self._base.vacant, list(session_ids))

    async def missing(self, session_ids: Iterable[str]) -> list[str]:
        """Return those that have no workspace folder."""
        return await asyncio.to_thread(lambda: [one for one in session_ids if not self._base.exists(one)])

    async def places(self) -> list[Stray]:
        """Return every folder of the base, of its trash and of the homes that is named like one of a session."""
        return await asyncio.to_thread(lambda: [*self._base.places(self.folder), *strays.homes(self._homes)])

    async def remove_stray(self, stray: Stray) -> Removed:
        """Remove a folder for good that is known to belong to nobody."""
        return await asyncio.to_thread(self._remove_stray, stray)

    def _remove_stray(self, stray: Stray) -> Removed:
        match stray.kind:
            case "home":
                return strays.remove_home(self._homes, stray.name)
            case "trashing":
                return self._base.purge(stray.name)
            case _:
                return self._base.discard(stray.name)

    def _make(self, session_id: str, uid: int | None, guarded: bool) -> None:
        # Also when it is there: its programs may have changed its mode, and locked us out or others in.
        self._base.create(session_id, owner=uid, guarded=guarded, adopt=True)
        home = self.home(session_id)
        with translated(str(home)):
            home.mkdir(mode=0o700, exist_ok=True)
            if uid is not None:
                folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    settle(folder, uid, guarded=guarded)
                finally:
                    os.close(folder)

    def _unmake(self, session_id: str) -> None:
        for place in (self.path(session_id), self.home(session_id)):
            with suppress(OSError):  # it is not empty, so it is not what was made just now
                place.rmdir()

    def _purge(self, session_id: str, trash_id: str) -> Removed:
        folder = self._base.purge_session(session_id, trash_id)
        return folder + strays.remove_home(self._homes, ids.session_id(session_id))


def _each(move: Callable[[str, str], bool], sessions: Iterable[tuple[str, str]]) -> dict[str, AlcoveError]:
    failed: dict[str, AlcoveError] = {}
    for session_id, trash_id in sessions:
        try:
            move(session_id, trash_id)
        except AlcoveError as error:
            failed[session_id] = error
    return failed
