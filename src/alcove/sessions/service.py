"""Sessions, as callers use them. What also concerns folders and processes (deletion) is in `lifecycle`."""

from __future__ import annotations

import msgspec

from alcove import ids, limits
from alcove.clock import instant
from alcove.database.idempotency import Once, once, write_once
from alcove.database.op import Database
from alcove.durations import ttl_us
from alcove.pages import page_limit
from alcove.sessions import living, queries, rules
from alcove.sessions.model import Changes, Filters, NewSession, Page, Session, Summary
from alcove.values import Metadata


class Sessions:
    """Creates, finds, lists and changes sessions. Each method is one transaction.

    Args:
        database: Where the rows are.
        ttl_s: How long a session may be idle when its creator does not say; None for ever.
    """

    def __init__(self, database: Database, *, ttl_s: float | None = None) -> None:
        self._database = database
        self._ttl_us = ttl_us(ttl_s)

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
    ) -> Session:
        """Create a session.

        Args:
            session_id: The caller's own id; a UUIDv7 by default.
            user_id: Whose it is; the parent's by default, else nobody's.
            app: Which application; the parent's by default.
            key: The caller's own name for it, unique per tenant, app and user.
            parent_id: The session it is a child of. Root and depth follow from it.
            title: For people, at most `limits.TITLE_CHARS` characters.
            agent: Who answers by default.
            metadata: JSON; top-level scalars can be filtered by.
            ttl_s: Seconds it may be idle before it expires; None for ever; the installation's by default.
            lifetime_s: Seconds after which it expires whatever happens; None for never.
            tenant: Who pays.
            idempotency_key: With it, a repetition of the same call returns the same session.

        Raises:
            InvalidError: A field, named in the error, is not valid; or the tree is too deep or too wide.
            AlreadyExistsError, SessionNotFoundError: The id or the key is taken; there is no such parent.
            IdempotencyError: The key was used with other arguments.
        """
        text, indexed = rules.encode_metadata(metadata or {})
        new = rules.check_new(
            NewSession(
                id=session_id if session_id is not None else ids.new_id(),
                tenant=tenant,
                app=app,
                user_id=user_id,
                key=key,
                parent_id=parent_id or "",
                title=title,
                agent=agent,
                metadata_json=text,
                indexed=indexed,
                ttl_us=self._ttl_us if isinstance(ttl_s, msgspec.UnsetType) else ttl_us(ttl_s),
                lifetime_us=ttl_us(lifetime_s, field="lifetime_s"),
            )
        )
        asked = msgspec.structs.replace(new, id=session_id or "")
        request = once(f"create:{tenant}:{user_id or ''}", idempotency_key, msgspec.json.encode(asked))
        created, replayed = await write_once(self._database, request, queries.Created, queries.create, new, request)
        session = await self.get(created.session_id)
        return self._again(session) if replayed else await self._furnish(session, request)

    async def _furnish(self, session: Session, request: Once | None) -> Session:
        """Give a new session what it has besides its rows: for who adds to this class. Here it is nothing."""
        return session

    def _again(self, session: Session) -> Session:
        """Mark a session whose creation was repeated: for who adds to this class. Here there is no mark."""
        return session

    async def spawn(
        self,
        parent_id: str,
        *,
        title: str = "",
        user_id: str | None = None,
        agent: str | None = None,
        key: str | None = None,
        metadata: Metadata | None = None,
    ) -> Session:
        """Create a child: it inherits user, app and agent where they are not given. Raises what `create` does."""
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
    ) -> tuple[Session, bool]:
        """Find or make the user's live session of that key, in one transaction; it counts as activity.

        Returns:
            The session, and whether it was made. An expired one is replaced and stays readable.
        """
        ids.name(user_id, field="user_id")
        new = rules.check_new(
            NewSession(
                id=ids.new_id(),
                tenant=tenant,
                app=app,
                user_id=user_id,
                key=key,
                agent=agent,
                ttl_us=self._ttl_us if isinstance(ttl_s, msgspec.UnsetType) else ttl_us(ttl_s),
            )
        )
        lived = await self._database.write(living.live, new)
        if lived.replaced:
            await self._replaced(lived.replaced)
        return lived.session, lived.made

    async def _replaced(self, session_id: str) -> None:
        """Do what is left to do for a live session that has expired: for who adds to this class. Here it is nothing."""

    async def active_count(self, *, app: str | None = None, tenant: str = "default") -> int:
        """Return how many users' live sessions are active: those with a key that have not expired. Looks at each.

        Args:
            app: Only this app; None for any.
            tenant: Whose.
        """
        return await self._database.read(living.active_count, tenant, app)

    async def get(self, session_id: str) -> Session:
        """Return a session.

        Raises:
            SessionNotFoundError: There is none of that id, or it is in the trash.
        """
        return await self._database.read(queries.get, session_id)

    async def find(self, session_id: str) -> Session | None:
        """Return a session, also an expired or trashed one, or None."""
        return await self._database.read(queries.find, session_id)

    async def owner(self, session_id: str) -> tuple[str, str] | None:
        """Return tenant and user of a session, which never change; also of a trashed one, or None."""
        return await self._database.read(queries.owner, session_id)

    async def find_key(self, key: str, *, user_id: str = "", app: str = "", tenant: str = "default") -> Session | None:
        """Return the session that holds a key, or None."""
        return await self._database.read(queries.find_key, tenant, app, user_id, key)

    async def find_prefix(
        self, prefix: str, *, trashed: bool = False, tenant: str = "default", user_id: str | None = None
    ) -> list[Session]:
        """Return sessions whose id begins with `prefix`, in order of id, at most `limits.PREFIX_SESSIONS` of them.

        Args:
            prefix: At least one character. A session with exactly this id comes first.
            trashed: Look in the trash instead of outside it.
            tenant: Whose.
            user_id: Of this user only.

        Raises:
            InvalidError: No id begins so.
        """
        ids.session_id(prefix)
        return await self._database.read(queries.by_prefix, tenant, user_id, prefix, trashed, limits.PREFIX_SESSIONS)

    async def list(
        self,
        *,
        user_id: str | None = None,
        app: str | None = None,
        parent_id: str | None = None,
        root_id: str | None = None,
        status: str | None = None,
        metadata: Metadata | None = None,
        active_since_us: int | None = None,
        active_before_us: int | None = None,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
        tenant: str = "default",
    ) -> Page:
        """List sessions, newest first; every given filter must hold, and the trashed are left out unless asked for.

        Pages are stable: a session that is created or deleted meanwhile neither repeats nor hides another one.

        Args:
            user_id: Exactly this user.
            app: Exactly this app.
            parent_id: Direct children of this session.
            root_id: Members of this tree.
            status: `active`, `expired` or `trashed`.
            metadata: Each name has exactly this scalar value.
            active_since_us: Last activity at or after, microseconds since the epoch.
            active_before_us: Last activity before, microseconds since the epoch.
            limit: 1 to `limits.PAGE`.
            cursor: `next_cursor` of the page before.
            tenant: Whose.
        """
        filters = rules.check_filters(
            Filters(
                tenant=tenant,
                app=app,
                user_id=user_id,
                parent_id=parent_id,
                root_id=root_id,
                status=status,
                metadata=rules.metadata_filter(metadata or {}),
                active_since_us=active_since_us,
                active_before_us=active_before_us,
            )
        )
        return await self._database.read(queries.page, filters, page_limit(limit), cursor)

    async def count(self) -> int:
        """Return how many sessions there are outside the trash, of all tenants. Looks at each."""
        return await self._database.read(queries.count)

    async def ids_of(
        self,
        user_id: str,
        *,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
        tenant: str = "default",
    ) -> tuple[list[str], str | None]:
        """List the ids of a user's sessions, newest first: `list` without the records, at a fraction of its cost.

        Returns:
            The ids, and the cursor of the next page (None on the last).
        """
        return await self._database.read(
            queries.ids_of, tenant, ids.name(user_id, field="user_id"), page_limit(limit), cursor
        )

    async def children(
        self,
        session_id: str,
        *,
        user_id: str | None = None,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
    ) -> Page:
        """List the direct children of a session, newest first: of one user, or all."""
        tenant = (await self.get(session_id)).tenant
        return await self.list(parent_id=session_id, user_id=user_id, limit=limit, cursor=cursor, tenant=tenant)

    async def tree(self, session_id: str, *, limit: int = limits.TREE_SESSIONS) -> list[Session]:
        """Return a session and its descendants, nearest first, at most `limit` of them."""
        await self.get(session_id)
        return await self._database.read(queries.subtree, session_id, page_limit(limit, limits.TREE_SESSIONS))

    async def update(self, session_id: str, changes: Changes, *, version: int | None = None) -> Session:
        """Change title, agent, metadata (merged by name, None removes one), pin, TTL or lifetime.

        The version goes up by one.

        Args:
            session_id: Which session.
            changes: What is not set in it stays as it is.
            version: When given, the change is made only to exactly that version.

        Raises:
            VersionMismatchError: It is at another version.
        """
        if isinstance(changes.title, str):
            rules.check_title(changes.title)
        if isinstance(changes.agent, str):
            ids.name(changes.agent, field="agent", empty=True)
        return await self._database.write(queries.update, session_id, changes, version)

    async def pin(self, session_id: str, pinned: bool = True) -> Session:
        """Keep a session from expiring, or let it expire again."""
        return await self.update(session_id, Changes(pinned=pinned))

    async def touch(self, session_id: str) -> Session:
        """Record activity. This also revives a session that was idle for too long and has not been swept yet.

        One that is past its end stays expired: give it another lifetime, or pin it.
        """
        return await self._database.write(queries.touch, session_id)

    async def summary(self, session_id: str) -> Summary:
        """Return a session in a few words."""
        session = await self.get(session_id)
        return Summary(
            session_id=session.id,
            parent_id=session.parent_id,
            root_id=session.root_id,
            depth=session.depth,
            user_id=session.user_id,
            title=session.title,
            status=session.status,
            created_at=instant(session.created_us),
            last_activity=instant(session.last_activity_us),
            message_count=session.message_count,
            turn_count=session.turn_count,
            child_count=session.child_count,
        )
