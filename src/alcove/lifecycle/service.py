"""The door of sessions: what `Sessions` does, together with folders and processes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import msgspec

from alcove import ids, limits
from alcove.audit.service import Audit
from alcove.database.idempotency import Once
from alcove.database.op import Database
from alcove.dialogs.model import Dialog, Step
from alcove.dialogs.service import Dialogs
from alcove.errors import SessionBusyError, SessionNotFoundError
from alcove.events.model import Event
from alcove.lifecycle import listing, queries, trashing
from alcove.lifecycle.model import By, DeedPage, Gone, Receipt, Restored, Trashing, TrashPage, Why
from alcove.lifecycle.trash import Trash
from alcove.messages.model import Appended, Draft, Message, Window
from alcove.messages.service import Messages
from alcove.pages import page_limit
from alcove.runs.model import Reply
from alcove.runs.service import Runs
from alcove.sessions import queries as session_queries
from alcove.sessions.model import Changes, Page, Session
from alcove.sessions.service import Sessions
from alcove.values import Json, Metadata
from alcove.workspaces.service import Workspaces

_log = logging.getLogger("alcove.sessions")


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
        """Change title, agent, metadata, pin, TTL or lifetime."""
        return await self.sessions.update(self.id, changes)

    async def chat(self, message: str, *, agent: str | None = None, busy: str = "reject") -> Reply:
        """Run an agent on a message and return its answer: see `Runs.chat`, and `Runs.start` for `busy`."""
        return await self.runs.chat(self.id, message, agent=agent, busy=busy)

    def stream(self, message: str, *, agent: str | None = None, busy: str = "reject") -> AsyncIterator[Event]:
        """Run an agent on a message and yield what happens: see `Runs.stream`, and `Runs.start` for `busy`."""
        return self.runs.stream(self.id, message, agent=agent, busy=busy)

    async def delete(self, *, purge: bool = False) -> Receipt:
        """Move it to the trash, or remove it for good: see `Lifecycle.delete`."""
        return await self.sessions.delete(self.id, purge=purge)


class Lifecycle(Sessions):
    """Sessions with their folders and their ends. Sessions that it returns singly are handles.

    Attributes:
        trash: Does the work of deleting and restoring.

    Args:
        database: Where the rows are.
        messages: What handles append to.
        runs: What is ended before a session goes, and what handles run.
        dialogs: What handles step, and what is due when a live session is replaced.
        workspaces: The folders; None for a hub without.
        forget: Removes what is kept elsewhere of a session that is purged; may be called again.
        ttl_s: Idle time of new sessions by default.
        audit: Where deletions and restorations are recorded.
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
        audit: Audit | None = None,
    ) -> None:
        super().__init__(database, ttl_s=ttl_s)
        self._messages = messages
        self._runs = runs
        self._dialogs = dialogs
        self._workspaces = workspaces
        self.trash = Trash(database, runs, workspaces, forget, audit)

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
        lifetime_s: float | None = None,
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
            lifetime_s=lifetime_s,
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
        more = True
        while more:
            _, more = await self._database.write(queries.purge, session_id, limits.PURGE_ROWS, None, Gone())
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

    async def delete(
        self, session_id: str, *, purge: bool = False, version: int | None = None, by: str = "library"
    ) -> Receipt:
        """Move a session and its descendants to the trash, or remove them for good.

        From the first step on nothing new starts in them; what runs is cancelled, and only then do their folders go.
        What is interrupted is finished by the next call, by the janitor, or when the installation is opened again.

        Args:
            session_id: Which session.
            purge: Whether it is gone for good: from outside the trash, or from it.
            version: When given, it goes only when it is at exactly that version; looked at in the transaction that
                moves it to the trash.
            by: Who asks; the log keeps it.

        Raises:
            VersionMismatchError: It is at another version.
            SessionNotFoundError: There is none of that id, or it is in the trash and `purge` is false.
            ConflictError: Another call is trashing, restoring or purging it; or its folder cannot be removed.
            StorageError: Something is mounted in its folder, or the disk failed.
        """
        why = By(Why.ASKED, ids.name(by, field="by"))
        if purge:
            return await self.trash.purge(session_id, why, version)
        receipt = await self.trash.put(session_id, why, version)
        if receipt is None:
            session = await self.find(session_id)
            raise SessionNotFoundError(
                f"session {session_id} is in the trash" if session else f"there is no session {session_id}",
                field="session_id",
                remedy="purge it to remove it for good" if session else "",
                session_id=session_id,
            )
        return receipt

    async def restore(
        self, session_id: str, *, without_keys: bool = False, as_root: bool = False, by: str = "library"
    ) -> Restored:
        """Bring back from the trash exactly what went with one trashing, whichever session of it is named.

        Coming back is activity. A session that is past its end gets a day to be given another one.

        Args:
            session_id: Any session of the trashing.
            without_keys: Sessions whose key belongs to another session now come back without.
            as_root: The session that was trashed comes back as a root, its descendants below it.
            by: Who asks; the log keeps it.

        Raises:
            SessionNotFoundError: There is none of that id: it was purged, or never was.
            AlreadyExistsError: A key belongs to another session now, and `without_keys` is false.
            ConflictError: It is not in the trash, its parent is neither, another call works on it, or something is in
                the way of its folder. Then it stays in the trash, whole.
        """
        why = By(Why.ASKED, ids.name(by, field="by"))
        return await self.trash.restore(session_id, why, without_keys=without_keys, as_root=as_root)

    async def trashing(self, session_id: str) -> Trashing | None:
        """Return the trashing that a session waits in, None when it is not in the trash."""
        found = await self._database.read(trashing.of_session, session_id)
        return found[0] if found else None

    async def trashings(
        self, *, limit: int = limits.PAGE_DEFAULT, cursor: str | None = None, tenant: str = "default"
    ) -> TrashPage:
        """List what is in the trash, newest first."""
        return await self._database.read(listing.page, tenant, page_limit(limit), cursor)

    async def deeds(
        self,
        session_id: str | None = None,
        *,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
        tenant: str = "default",
    ) -> DeedPage:
        """List what went to the trash, came back and was purged, when, why and by whom: newest first.

        Args:
            session_id: Of this session only.
            limit: 1 to `limits.PAGE`.
            cursor: `next_cursor` of the page before.
            tenant: Whose.
        """
        return await self._database.read(listing.log, tenant, session_id, page_limit(limit), cursor)

    def _handle(self, session: Session) -> Handle:
        fields = (getattr(session, name) for name in Session.__struct_fields__)
        return Handle(*fields, sessions=self, messages=self._messages, runs=self._runs, dialogs=self._dialogs)


def _log_created(session: Session) -> None:
    _log.info("session created", extra={"session_id": session.id, "user_id": session.user_id})
