"""The door of sessions: what `Sessions` does, together with folders and processes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from alcove import ids, limits
from alcove.database.idempotency import Once
from alcove.database.op import Database
from alcove.dialogs.model import Dialog, Step
from alcove.dialogs.service import Dialogs
from alcove.errors import SessionBusyError, SessionNotFoundError
from alcove.events.model import Event
from alcove.lifecycle import queries
from alcove.messages.model import Appended, Draft, Message, Window
from alcove.messages.service import Messages
from alcove.runs.model import Reply
from alcove.runs.service import Runs
from alcove.sessions import queries as session_queries
from alcove.sessions.model import Changes, Page, Session
from alcove.sessions.service import Sessions
from alcove.values import Json, Metadata
from alcove.workspaces.service import Workspaces

_log = logging.getLogger("alcove.sessions")


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a deletion did.

    Attributes:
        trash_id: Names the trashing; everything of it is restored or purged together.
        sessions: The sessions that went, parents first.
        purged: Whether they are gone for good; the counts are 0 otherwise.
        messages: Messages removed, hidden ones included.
        events: Journal events removed.
        files: Files removed, those of the homes included.
        size_bytes: Room given back to the disk.
    """

    trash_id: str
    sessions: tuple[str, ...]
    purged: bool
    messages: int = 0
    events: int = 0
    files: int = 0
    size_bytes: int = 0


class Handle(Session, frozen=True, kw_only=True, eq=False):
    """A session and its services. The fields are those of the moment it was read; `refresh` reads it again.

    Attributes:
        replayed: Whether it was created by an earlier call with the same idempotency key.
    """

    sessions: Lifecycle
    messages: Messages
    runs: Runs
    dialogs: Dialogs
    replayed: bool = False

    async def refresh(self) -> Handle:
        """Return the session as it is now."""
        return await self.sessions.get(self.id)

    async def append(
        self, drafts: Sequence[Draft], *, expected_seq: int | None = None, idempotency_key: str | None = None
    ) -> Appended:
        """Append messages: see `Messages.append`."""
        return await self.messages.append(self.id, drafts, expected_seq=expected_seq, idempotency_key=idempotency_key)

    async def append_turn(self, said: str, reply: str, *, idempotency_key: str | None = None) -> Appended:
        """Append what a user said and what was replied: see `Messages.append_turn`."""
        return await self.messages.append_turn(self.id, said, reply, idempotency_key=idempotency_key)

    async def last(self, count: int = 20) -> list[Message]:
        """Return the last visible messages, oldest first."""
        return await self.messages.last(self.id, count)

    async def window(self, rounds: int | None = None, *, tokens: int | None = None) -> Window:
        """Return the newest part of the history that fits, as a model is shown it: see `Messages.window`."""
        return await self.messages.window(self.id, rounds=rounds, tokens=tokens)

    async def dialog(self) -> Dialog:
        """Return the dialog: see `Dialogs.get`."""
        return await self.dialogs.get(self.id)

    async def step(
        self, event: str, slots: Mapping[str, Json] | None = None, *, messages: Sequence[Draft] = ()
    ) -> Step:
        """Take an event: see `Dialogs.step`."""
        return await self.dialogs.step(self.id, event, slots, messages=messages)

    async def reset(self) -> None:
        """Bring the dialog back to its start; the history stays."""
        await self.dialogs.reset(self.id)

    async def clear(self) -> None:
        """Bring the dialog back to its start, if there is one, and hide the history: one transaction."""
        await self.dialogs.reset(self.id, clear=True)

    async def spawn(self, *, title: str = "", agent: str | None = None, metadata: Metadata | None = None) -> Handle:
        """Create a child."""
        return await self.sessions.spawn(self.id, title=title, agent=agent, metadata=metadata)

    async def children(self, *, cursor: str | None = None) -> Page:
        """List the direct children, newest first."""
        return await self.sessions.children(self.id, cursor=cursor)

    async def update(self, changes: Changes) -> Session:
        """Change title, agent, metadata, pin or TTL."""
        return await self.sessions.update(self.id, changes)

    async def chat(self, message: str, *, agent: str | None = None) -> Reply:
        """Run an agent on a message and return its answer: see `Runs.chat`."""
        return await self.runs.chat(self.id, message, agent=agent)

    def stream(self, message: str, *, agent: str | None = None) -> AsyncIterator[Event]:
        """Run an agent on a message and yield what happens: see `Runs.stream`."""
        return self.runs.stream(self.id, message, agent=agent)

    async def delete(self, *, purge: bool = False) -> Receipt:
        """Move it to the trash, or remove it for good: see `Lifecycle.delete`."""
        return await self.sessions.delete(self.id, purge=purge)


class Lifecycle(Sessions):
    """Sessions with their folders and their ends. Sessions that it returns singly are handles.

    Args:
        database: Where the rows are.
        messages: What handles append to.
        runs: What is ended before a session goes, and what handles run.
        dialogs: What handles step, and what is due when a live session is replaced.
        workspaces: The folders; None for a hub without.
        forget: Removes what is kept elsewhere of a session that is purged; may be called again.
        ttl_s: Idle time of new sessions by default.
    """

    def __init__(
        self,
        database: Database,
        *,
        messages: Messages,
        runs: Runs,
        dialogs: Dialogs,
        workspaces: Workspaces | None,
        forget: Callable[[str], Awaitable[None]] | None = None,
        ttl_s: float | None = None,
    ) -> None:
        super().__init__(database, ttl_s=ttl_s)
        self._messages = messages
        self._runs = runs
        self._dialogs = dialogs
        self._workspaces = workspaces
        self._forget = forget

    async def create(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        app: str | None = None,
        key: str | None = None,
        parent_id: str | None = None,
        title: str = "",
        agent: str | None = None,
        metadata: Metadata | None = None,
        ttl_s: float | msgspec.UnsetType | None = msgspec.UNSET,
        tenant: str = "default",
        idempotency_key: str | None = None,
    ) -> Handle:
        """Create a session and its folder: see `Sessions.create`. When the folder cannot be made, there is neither."""
        session = await super().create(
            session_id=session_id,
            user_id=user_id,
            app=app,
            key=key,
            parent_id=parent_id,
            title=title,
            agent=agent,
            metadata=metadata,
            ttl_s=ttl_s,
            tenant=tenant,
            idempotency_key=idempotency_key,
        )
        assert isinstance(session, Handle), "read by `get`"
        if not session.replayed:
            _log_created(session)
        return session

    async def _furnish(self, session: Session, request: Once | None) -> Session:
        """Make the folder. A session that cannot have one is taken back; a caller that goes away changes nothing."""
        try:
            if self._workspaces:
                await self._workspaces.ensure(session.id)
        except Exception:
            await self._take_back(session.id, request)
            raise
        return session

    def _again(self, session: Session) -> Session:
        return msgspec.structs.replace(session, replayed=True)

    async def _take_back(self, session_id: str, request: Once | None) -> None:
        await self._database.write(session_queries.trash, session_id, ids.new_id(), 1)
        if self._workspaces:
            await self._workspaces.unmake(session_id)
        while (await self._database.write(queries.purge, session_id, limits.PURGE_ROWS)).more:
            pass
        if request:
            await self._database.write(queries.uncreate, request.scope, request.key)

    async def spawn(
        self,
        parent_id: str,
        *,
        title: str = "",
        user_id: str | None = None,
        agent: str | None = None,
        key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Handle:
        """Create a child and its folder: see `Sessions.spawn`."""
        return await self.create(
            parent_id=parent_id, title=title, user_id=user_id, agent=agent, key=key, metadata=metadata
        )

    async def live(
        self,
        user_id: str,
        key: str = "",
        *,
        app: str = "",
        agent: str = "",
        ttl_s: float | msgspec.UnsetType | None = msgspec.UNSET,
        tenant: str = "default",
    ) -> tuple[Handle, bool]:
        """Find or make the user's live session: see `Sessions.live`. Its folder comes when it is first needed."""
        session, made = await super().live(user_id, key, app=app, agent=agent, ttl_s=ttl_s, tenant=tenant)
        if made:
            _log_created(session)
        return self._handle(session), made

    async def _replaced(self, session_id: str) -> None:
        """Let a wait in the expired session end as it was declared to, and not silently."""
        with suppress(SessionNotFoundError, SessionBusyError):
            await self._dialogs.fire(session_id)

    async def get(self, session_id: str) -> Handle:
        """Return a session: see `Sessions.get`."""
        return self._handle(await super().get(session_id))

    async def delete(self, session_id: str, *, purge: bool = False, version: int | None = None) -> Receipt:
        """Move a session and its descendants to the trash, or remove them for good.

        From the first step on nothing new starts in them; what runs is cancelled, and only then do their folders go.
        A purge that is interrupted is finished by purging the same session again.

        Args:
            session_id: Which session.
            purge: Skip the trash, or empty it of this session.
            version: When given, it goes only when it is at exactly that version; looked at in the transaction that
                moves it to the trash.

        Raises:
            VersionMismatchError: It is at another version.
            SessionNotFoundError: There is none of that id, or it is in the trash and `purge` is false.
        """
        trash_id = ids.new_id()
        went: list[str] = []
        while step := await self._database.write(
            session_queries.trash, session_id, trash_id, limits.TREE_SESSIONS, version
        ):
            went += step
        if not went:
            await self._check_trashed(session_id, purge=purge)
        elif not purge:
            for gone in went:
                await self._runs.cancel_session(gone)
                if self._workspaces:
                    await self._workspaces.trash(gone, trash_id)
        _log.info("session trashed", extra={"session_id": session_id, "trash_id": trash_id, "sessions": len(went)})
        if purge:
            return await self._purge(session_id)
        return Receipt(trash_id=trash_id, sessions=tuple(went), purged=False)

    async def _check_trashed(self, session_id: str, *, purge: bool) -> None:
        session = await self.find(session_id)
        if session is None or not purge:
            raise SessionNotFoundError(
                f"session {session_id} is in the trash" if session else f"there is no session {session_id}",
                field="session_id",
                remedy="purge it to remove it for good" if session else "",
                session_id=session_id,
            )

    async def _purge(self, session_id: str) -> Receipt:
        """Remove a trashed session and what went with it, children first: an interrupted purge finds the rest."""
        went: list[str] = []
        messages = events = files = size_bytes = 0
        trash_id, found = await self._database.read(session_queries.trashing_of, session_id, limits.TREE_SESSIONS)
        while found:
            for gone in found:
                await self._runs.cancel_session(gone)
                if self._workspaces:
                    removed = await self._workspaces.purge(gone, trash_id)
                    files, size_bytes = files + removed.files, size_bytes + removed.size_bytes
                if self._forget:
                    await self._forget(gone)
                more = True
                while more:
                    step = await self._database.write(queries.purge, gone, limits.PURGE_ROWS)
                    messages, events, more = messages + step.messages, events + step.events, step.more
            went += found
            _, found = await self._database.read(session_queries.trashing_of, session_id, limits.TREE_SESSIONS)
        _log.info("session purged", extra={"trash_id": trash_id, "sessions": len(went), "files": files})
        return Receipt(
            trash_id=trash_id,
            sessions=tuple(reversed(went)),
            purged=True,
            messages=messages,
            events=events,
            files=files,
            size_bytes=size_bytes,
        )

    def _handle(self, session: Session) -> Handle:
        fields = (getattr(session, name) for name in Session.__struct_fields__)
        return Handle(*fields, sessions=self, messages=self._messages, runs=self._runs, dialogs=self._dialogs)


def _log_created(session: Session) -> None:
    _log.info("session created", extra={"session_id": session.id, "user_id": session.user_id})
