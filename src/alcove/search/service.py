"""Search, as callers use it, and the indexing behind it.

The index is behind the histories by a moment: `follow` looks twice a second, and a search waits a little for it. On
SQLite it is a database of its own, written in a thread, so that no append waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from alcove import ids, limits
from alcove.database.op import Database
from alcove.errors import AlcoveError, ClosedError, DatabaseError, NotFoundError
from alcove.messages import content as contents
from alcove.messages.model import Message
from alcove.messages.neutral import arguments_text, parts_of
from alcove.objects.service import Objects
from alcove.pages import page_limit
from alcove.search import queries
from alcove.search.dialects import Fts5, TsVector
from alcove.search.model import Behind, Entered, Filters, Found, Hit, Place
from alcove.search.rules import Candidate, Wanted, candidate, mark, marks_of, parse, scores, snippet

_log = logging.getLogger("alcove.search")
_END = 2**62
_TITLE = 0.5  # what is said in a title counts for more


class _Step(NamedTuple):
    """What a step of the indexing came to.

    Attributes:
        number: Of messages and titles that it indexed.
        first: Whether it began at the first session.
        cut: Whether there is more of a session than it took.
        last: Whether it came to the last session.
    """

    number: int
    first: bool
    cut: bool
    last: bool


class Search:
    """Finds messages and titles by their words.

    Args:
        database: Where sessions and messages are.
        index: Where the index is: the same on PostgreSQL.
        objects: Reads long texts.
        remove: Removes the index's file, when it is damaged; None where it has none of its own.
        patience_s: How long a search waits for the index to catch up before it answers.

    Attributes:
        index: Where the index is.
    """

    def __init__(
        self,
        database: Database,
        index: Database,
        objects: Objects | None = None,
        *,
        remove: Callable[[], object] | None = None,
        patience_s: float = limits.SEARCH_PATIENCE_S,
    ) -> None:
        self._database = database
        self.index = index
        self._objects = objects
        self._remove = remove
        self._patience_s = patience_s
        self._dialect = TsVector() if index.kind == "postgres" else Fts5()
        self._ready = False
        self._indexing = asyncio.Lock()
        self._after = ""  # the last session that was looked at

    async def find(
        self,
        query: str,
        *,
        tenant: str = "default",
        user_id: str | None = None,
        app: str | None = None,
        session_id: str | None = None,
        limit: int = 20,
    ) -> Found:
        """Find messages and titles that have every word of a query.

        Case, width and accents do not count. `word*` finds words that begin so, and "some words" stand together; in
        scripts without spaces any characters are found. What is hidden, popped, cleared or in the trash is not.

        Args:
            query: 1 to `limits.SEARCH_QUERY_CHARS` characters.
            tenant: Whose sessions.
            user_id: Of this user only.
            app: Of this app only.
            session_id: In this session only.
            limit: 1 to `limits.SEARCH_HITS`.

        Raises:
            InvalidError: The query has no words, or too many.
        """
        wanted = parse(query)
        page_limit(limit, limits.SEARCH_HITS)
        filters = Filters(tenant=tenant, user_id=user_id, app=app, session_id=session_id)
        with contextlib.suppress(TimeoutError):
            # What was appended a moment ago is to be found; what takes longer is said in `behind`.
            async with asyncio.timeout(self._patience_s):
                await self.catch_up()
        places, more = await self._places(wanted, filters)
        seen, cut = await self._database.read(queries.visible, places, filters)
        hits = await self._hits(wanted, seen)
        hits.sort(key=lambda hit: (-hit.score, -hit.created_us, -hit.seq))
        lag = await self._database.read(queries.lag)
        return Found(hits=hits[:limit], more=more or cut or len(hits) > limit, behind=lag)

    async def _places(self, wanted: Sequence[Wanted], filters: Filters) -> tuple[list[Place], bool]:
        await self._open()
        marks = [mark("t", filters.tenant)]
        if filters.user_id is not None:
            marks.append(mark("u", filters.tenant, filters.user_id))
        if filters.app is not None:
            marks.append(mark("a", filters.tenant, filters.app))
        if filters.session_id is not None:
            marks.append(mark("s", filters.tenant, filters.session_id))
        rows = await self.index.read(self._dialect.find, wanted, marks, _END, limits.SEARCH_CANDIDATES)
        return [place for _, place in rows], len(rows) == limits.SEARCH_CANDIDATES

    async def _hits(self, wanted: Sequence[Wanted], seen: Sequence[queries.Seen]) -> list[Hit]:
        found: dict[tuple[str, int], tuple[Candidate, queries.Seen, Message | None, str]] = {}
        for one in seen:
            session_id = one.place.session_id
            if one.place.first == 0 and (fits := candidate(wanted, one.title)):
                found[session_id, 0] = fits, one, None, one.title
            for message in one.messages:
                text = await self._text(message)
                if fits := candidate(wanted, text):
                    found[session_id, message.seq] = fits, one, message, text
        rated = scores(wanted, [fits for fits, _, _, _ in found.values()])
        hits: list[Hit] = []
        for score, ((session_id, seq), (_, one, message, text)) in zip(rated, found.items(), strict=True):
            shown, marks = snippet(wanted, text)
            hits.append(
                Hit(
                    session_id=session_id,
                    seq=seq,
                    role=message.role if message else "title",
                    snippet=shown,
                    marks=marks,
                    score=score if message else score + _TITLE,
                    title=one.title,
                    user_id=one.user_id,
                    created_us=message.created_us if message else one.created_us,
                )
            )
        return hits

    async def lag(self) -> int:
        """Return how many messages and titles the index does not have yet."""
        return await self._database.read(queries.lag)

    async def catch_up(self) -> int:
        """Index everything that is there now; return how many messages and titles that were. Safe to be cancelled.

        What is appended meanwhile may wait for the next time: otherwise a busy store had its index written without a
        pause, by a message or two.
        """
        count, whole = 0, False
        while True:
            step = await self._step()
            count += step.number
            whole = (whole or step.first) and not step.cut
            if whole and step.last:
                return count

    async def follow(self) -> None:
        """Index what is appended, by whatever process, for as long as this is not cancelled."""
        while True:
            await asyncio.sleep(limits.SEARCH_POLL_S)
            try:
                await self.catch_up()
            except ClosedError:
                return
            except AlcoveError:
                _log.warning("the search index is not kept up", exc_info=True)

    async def forget(self, session_id: str) -> None:
        """Take everything of a session out of the index: before its rows go, and after it is in the trash."""
        await self._open()
        await self._forget(session_id, 0)

    async def places(self, session_id: str) -> int:
        """Return how many places of a session the index has."""
        await self._open()
        return await self.index.read(self._dialect.count, session_id)

    async def rebuild(self) -> int:
        """Make the index anew from the histories; return how many messages and titles are in it."""
        async with self._indexing:
            await self._discard()
        return await self.catch_up()

    async def close(self) -> None:
        """Let go of the index, where it is a database of its own."""
        if self.index is not self._database:
            await self.index.close()

    async def _open(self) -> None:
        """Make the index where there is none, and see that the sessions' marks are about this one."""
        if self._ready:
            return
        try:
            name = await self.index.write(self._dialect.open, ids.new_id())
        except DatabaseError as error:
            if error.retryable or self._remove is None:
                raise
            _log.warning("the search index is damaged and is made anew", exc_info=True)
            await self._discard()
            return
        if await self._database.read(queries.of_index) != name:
            after: str | None = ""
            while after is not None:
                after = await self._database.write(queries.all_stale, after, limits.PURGE_ROWS)
            await self._database.write(queries.about_index, name)
        self._ready = True

    async def _discard(self) -> None:
        self._ready = False
        if self._remove is not None:
            done = self._remove()
            if asyncio.iscoroutine(done):
                await done
        else:
            await self.index.write(self._dialect.drop)
        name = await self.index.write(self._dialect.open, ids.new_id())
        after: str | None = ""
        while after is not None:
            after = await self._database.write(queries.all_stale, after, limits.PURGE_ROWS)
        await self._database.write(queries.about_index, name)
        self._ready = True

    async def _step(self) -> _Step:
        """Index a batch of the sessions that wait, in turn: those that always wait do not keep the others waiting."""
        async with self._indexing:
            if not self._ready and await self._database.read(queries.untouched):
                return _Step(number=0, first=True, cut=False, last=True)
            await self._open()
            after, limit = self._after, limits.SEARCH_BATCH_SESSIONS
            sessions = await self._database.read(queries.behind, after, limit)
            batch = await self._database.read(queries.unread, sessions)
            last = len(batch) == len(sessions) < limit
            self._after = "" if last else batch[-1][0].session_id
            entered: list[Entered] = []
            for session, messages, _ in batch:
                entered += await self._entered(session, messages)
            if entered:
                await self.index.write(self._dialect.enter, entered)
            done = [(session.session_id, session.indexed_seq, upto) for session, _, upto in batch]
            for gone in await self._database.write(queries.indexed, done) if done else ():
                await self._forget(gone, 0)
                await self._database.write(queries.stale, [gone])
            count = sum(len(messages) + session.title_waits for session, messages, _ in batch)
            cut = any(upto < session.last_seq for session, _, upto in batch)
            return _Step(number=count, first=not after, cut=cut, last=last)

    async def _entered(self, session: Behind, messages: Sequence[Message]) -> list[Entered]:
        marks = marks_of(session.tenant, session.user_id, session.app, session.session_id)
        entered: list[Entered] = []
        if session.title_waits:
            entered.append(Entered(Place(session.session_id, 0, 0), marks, (session.title,)))
        for start in range(0, len(messages), limits.SEARCH_PLACE_MESSAGES):
            together = messages[start : start + limits.SEARCH_PLACE_MESSAGES]
            texts = tuple([await self._text(message) for message in together])
            place = Place(session.session_id, together[0].seq, together[-1].seq)
            if sum(map(len, texts)) <= limits.SEARCH_TEXT_CHARS:
                entered.append(Entered(place, marks, texts))
            else:
                entered += [
                    Entered(Place(session.session_id, message.seq, message.seq), marks, (text,))
                    for message, text in zip(together, texts, strict=True)
                ]
        return entered

    async def _text(self, message: Message) -> str:
        """Return what of a message is found: its texts, its tools' results, and which tools it calls with what."""
        if message.format == contents.TEXT and "tool_calls" not in message.detail_json:
            return message.raw
        content = message.content
        if message.format == contents.PACKED and self._objects is not None:
            wanted = [one for one in contents.kept_of(message.raw) if one.form != "base64"]
            try:
                loaded = await self._objects.read(one.hash for one in wanted)
            except NotFoundError:
                loaded = {}  # it was purged meanwhile
            content = contents.unpack(message.raw, loaded)
        called = [
            f"{part.get('name')} {arguments_text(part)}"
            for part in parts_of(message.role, content, message.detail.tool_calls, message.detail.tool_call_id)
            if part["type"] == "tool_call"
        ]
        return "\n".join(filter(None, (contents.text_of(content), *called)))

    async def _forget(self, session_id: str, first: int) -> None:
        while await self.index.write(self._dialect.forget, session_id, first, _END, limits.PURGE_ROWS):
            pass
