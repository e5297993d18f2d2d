"""Messages and turns, as callers use them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from alcove import limits
from alcove.database.idempotency import once, write_once
from alcove.database.op import Database
from alcove.errors import InvalidError, NotFoundError
from alcove.messages import content as contents, mending, queries
from alcove.messages.model import PINNED, Appended, Draft, Message, MessagePage, Span, Turn, Window
from alcove.messages.repair import Fault
from alcove.messages.rules import detail, stored
from alcove.messages.tokens import Counter
from alcove.messages.windows import Bounds, Over, fitted, newest_summary, opens_round
from alcove.messages.writing import Said, written
from alcove.objects.service import Objects
from alcove.pages import page_limit

_END = 2**62
_SYSTEM = frozenset({"system", "developer"})
_encode = msgspec.msgpack.Encoder().encode


class Messages:
    """Appends to histories and reads them. Each method is one transaction.

    An append in a session that a run holds is refused: the run is its one writer.

    Args:
        database: Where the rows are.
        objects: Keeps parts over `limits.PART_BYTES`; without it they stay in their rows, up to `limits.MESSAGE_BYTES`.

    Attributes:
        counter: Counts tokens for windows that are given none; None for the built-in estimate.
    """

    def __init__(self, database: Database, objects: Objects | None = None) -> None:
        self._database = database
        self._objects = objects
        self.counter: Counter | None = None

    async def append(
        self,
        session_id: str,
        drafts: Sequence[Draft],
        *,
        expected_seq: int | None = None,
        idempotency_key: str | None = None,
    ) -> Appended:
        """Append messages, all or none; durable when this returns.

        Each user message opens a turn; what follows belongs to it.

        Args:
            session_id: Where to.
            drafts: 1 to `limits.APPEND_MESSAGES`.
            expected_seq: When given, append only if this is the session's last `seq` (0: it is empty).
            idempotency_key: With it, a repetition of the same append changes nothing and gets the first answer.

        Raises:
            InvalidError, TooLargeError: A draft that may not be stored; nothing was.
            SessionNotFoundError, SessionExpiredError: There is no session to append to.
            SessionBusyError: A run holds the session.
            StaleSequenceError: `expected_seq` is not the last one.
            IdempotencyError: The key was used with other messages.
            StorageError: The disk of the objects is full or fails; nothing was appended.
        """

        async def write(said: Said) -> Appended:
            if idempotency_key is None:
                return await self._database.write(
                    queries.append, session_id, said.messages, expected_seq=expected_seq, files=said.files
                )
            request = once(f"append:{session_id}", idempotency_key, _encode((expected_seq, said.messages)))
            appended, replayed = await write_once(
                self._database,
                request,
                Appended,
                queries.append,
                session_id,
                said.messages,
                expected_seq=expected_seq,
                request=request,
                files=said.files,
            )
            return msgspec.structs.replace(appended, replayed=True) if replayed else appended

        return await written(self._objects, drafts, write)

    async def append_turn(
        self,
        session_id: str,
        said: str,
        reply: str,
        *,
        expected_seq: int | None = None,
        idempotency_key: str | None = None,
    ) -> Appended:
        """Append what a user said and what was replied: one turn, one transaction. Raises what `append` does."""
        drafts = (Draft("user", said), Draft("assistant", reply))
        return await self.append(session_id, drafts, expected_seq=expected_seq, idempotency_key=idempotency_key)

    async def last(self, session_id: str, count: int = 20) -> list[Message]:
        """Return the last visible messages, oldest first; the cost does not depend on the session's length."""
        return await self._whole(
            await self._database.read(queries.last, session_id, page_limit(count, limits.MESSAGE_PAGE))
        )

    async def page(
        self,
        session_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = limits.PAGE_DEFAULT,
        hidden: bool = False,
        objects: bool = True,
    ) -> MessagePage:
        """Return messages in ascending order: those after a `seq`, or the last ones before it.

        Args:
            session_id: Whose.
            after: Exclusive; the default is from the beginning.
            before: Exclusive; not together with `after`.
            limit: 1 to `limits.MESSAGE_PAGE`. A page of long messages may be shorter.
            hidden: Show popped and cleared messages too.
            objects: Read the objects of large parts; else such a part has `object` and `size_bytes` instead.
        """
        if after is not None and before is not None:
            raise InvalidError("after and before exclude each other", field="before", remedy="give one of them")
        ascending = before is None
        found, more = await self._database.read(
            queries.page,
            session_id,
            (after or 0) if ascending else (before or 0),
            ascending=ascending,
            hidden=hidden,
            limit=page_limit(limit, limits.MESSAGE_PAGE),
        )
        return MessagePage(
            await self._whole(found) if objects else found,
            found[-1].seq if found and more and ascending else None,
            found[0].seq if found and more and not ascending else None,
        )

    async def window(
        self,
        session_id: str,
        *,
        rounds: int | None = None,
        before: int | None = None,
        messages: int | None = None,
        size_bytes: int | None = None,
        tokens: int | None = None,
        count: Counter | None = None,
        media: int | None = None,
        media_bytes: int | None = None,
        over: Over = "reference",
        failed: bool = False,
        objects: bool = True,
    ) -> Window:
        """Return the newest part of the conversation that fits, as a model is shown it.

        It has the system messages, the newest summary and the pinned messages first, and then whole rounds: a user
        message and what follows it. A tool's result stays with its call. A newest round that does not fit by itself
        keeps its user message and the newest exchanges that fit. Every bound that is given holds.

        Args:
            session_id: Whose.
            rounds: The last so many; 10 when no other bound is given, else as many as fit.
            before: Only messages with a lower `seq`.
            messages: At most so many, 1 to `limits.WINDOW_MESSAGES`.
            size_bytes: At most so many bytes of content, images and files included.
            tokens: At most so many, by the counter.
            count: Counts the tokens of a message; `counter` otherwise, and without that the built-in estimate.
            media: At most so many images, audios and files, the newest; 0 for none.
            media_bytes: At most so many bytes of those together, the newest.
            over: What becomes of the others: a `reference` in words, or `drop`.
            failed: Show failed and lost turns too; by default they are left out.
            objects: Read large parts; else such a part has `object` and `size_bytes` instead.

        Raises:
            InvalidError: A bound is out of range, or what is in every window does not fit by itself.
            SessionNotFoundError: There is no such session.
        """
        if rounds is None:
            rounds = limits.WINDOW_ROUNDS if messages or size_bytes or tokens else limits.PAGE_ROUNDS
        bounds = Bounds(
            rounds=rounds,
            messages=messages,
            size_bytes=size_bytes,
            tokens=tokens,
            media=media,
            media_bytes=media_bytes,
            over=over,
            failed=failed,
        ).check()
        counter = count or self.counter
        window = await self._database.read(
            queries.window, session_id, bounds, _END if before is None else before, counter
        )
        if not objects or not any(one.format == contents.PACKED for one in window):
            return window
        return fitted(bounds, msgspec.structs.replace(window, messages=await self._whole(window.messages)), counter)

    async def _whole(self, found: list[Message]) -> list[Message]:
        """Return messages with their objects."""
        wanted = {one.seq: set(contents.hashes(one.raw)) for one in found if one.format == contents.PACKED}
        if not wanted or self._objects is None:
            return found
        data = await self._objects.read(digest for some in wanted.values() for digest in some)
        return [
            msgspec.structs.replace(one, objects={digest: data[digest] for digest in wanted[one.seq]})
            if one.seq in wanted
            else one
            for one in found
        ]

    async def pin(self, session_id: str, seq: int) -> Message:
        """Pin a message: from now on it is in every window, before the rounds. Returns it.

        Raises:
            NotFoundError: There is no such visible message.
            InvalidError: It is a tool's or calls one, or `limits.PINNED_MESSAGES` are pinned.
        """
        return await self._pin(session_id, seq, PINNED)

    async def unpin(self, session_id: str, seq: int) -> Message:
        """Let a pinned message go. Raises NotFoundError."""
        return await self._pin(session_id, seq, 0)

    async def _pin(self, session_id: str, seq: int, value: int) -> Message:
        found = await self._database.write(queries.pin, session_id, seq, value)
        if found is None:
            raise NotFoundError(f"session {session_id} has no visible message {seq}", field="seq")
        return msgspec.structs.replace(found, kept=value)

    async def compact(
        self,
        session_id: str,
        summarise: Callable[[list[Message]], str | Awaitable[str]],
        *,
        keep_rounds: int = 10,
        expected_seq: int | None = None,
    ) -> Appended | None:
        """Append a summary that stands for everything but the last rounds; nothing is deleted.

        Windows show it in the place of what it stands for. It is written in one transaction, after `summarise` has
        returned: messages that are appended meanwhile are kept and shown, and when something of what was summarised
        was hidden, or summarised by another caller, nothing is written.

        Args:
            session_id: Whose.
            summarise: Gets the messages, oldest first, the former summary at their head; returns the text, or
                something to await for it. It may take its time: nothing is locked.
            keep_rounds: How many of the last rounds stay as they are.
            expected_seq: When given, write only if this still is the session's last `seq`.

        Returns:
            Where the summary stands; None when there was nothing to summarise.

        Raises:
            StaleSequenceError: What was summarised has changed meanwhile.
            InvalidError: The summary is empty.
        """
        shown = await self.window(session_id, rounds=page_limit(keep_rounds, limits.WINDOW_ROUNDS), objects=False)
        before = min((one.seq for one in shown if opens_round(one) and not one.kept), default=0)
        former = newest_summary(shown.messages)
        covered = former.summary_of if former else None
        after = covered.last if covered else 0
        rows = await self._database.read(queries.view, session_id, after, limits.COMPACT_MESSAGES)
        if rows and len(rows) == limits.COMPACT_MESSAGES and rows[-1][0].seq < before:
            # The rest is for the next call, from a round on.
            before = max((one.seq for one, _ in rows if opens_round(one)), default=0)
        seen = [(one, status) for one, status in rows if one.seq < before]
        said = [one for one, status in seen if status not in {"failed", "lost"} and one.role not in _SYSTEM]
        if not any(one.role == "user" for one in said):
            return None
        text = summarise([former, *said] if former else said)
        if inspect.isawaitable(text):
            text = await text
        if not text.strip():
            raise InvalidError("the summary is empty", field="summarise", remedy="return what is to be remembered")
        fresh = Span(seen[0][0].seq, seen[-1][0].seq)
        draft = Draft("system", text)
        span = Span(covered.first if covered else fresh.first, fresh.last)
        message = msgspec.structs.replace(stored(draft), detail=detail(draft, summary_of=span))
        return await self._database.write(
            queries.summarise, session_id, message, fresh, len(seen), former.seq if former else 0, expected_seq
        )

    async def check(self, session_id: str) -> list[Fault]:
        """Return what a provider would refuse of a session's history, oldest first: see `repair.Fault`."""
        return (await mending.examined(self._database, session_id)).faults

    async def repair(self, session_id: str) -> list[Fault]:
        """Make a history acceptable to every provider; return what was wrong with it.

        A call without a result gets one that says so; what cannot be shown as it is is hidden, and what stands for it
        is appended with a mark (`Message.repaired`) and shown in its place. Nothing is deleted. A second call finds
        nothing.

        Raises:
            SessionBusyError: A run holds the session.
        """
        return (await mending.repaired(self._database, session_id, self._objects)).faults

    async def examine(self, *, repair: bool = False) -> AsyncIterator[mending.Examined]:
        """Check every session of the installation outside the trash, and repair it when asked; yield each result."""
        async for one in mending.every(self._database, self._objects, repair=repair):
            yield one

    async def pop(self, session_id: str, count: int = 1) -> list[Message]:
        """Hide the last visible messages and return them, oldest first. They stay in the history, hidden."""
        return await self._whole(
            await self._database.write(queries.pop, session_id, page_limit(count, limits.POP_MESSAGES))
        )

    async def clear(self, session_id: str) -> int:
        """Hide every message so far and return how many were visible. `seq` goes on from where it was."""
        return await self._database.write(queries.clear, session_id)

    async def turns(
        self, session_id: str, *, before: int | None = None, limit: int = limits.PAGE_DEFAULT
    ) -> list[Turn]:
        """Return turns, newest first; page with `before` set to the lowest number seen."""
        return await self._database.read(
            queries.turns, session_id, _END if before is None else before, page_limit(limit, limits.MESSAGE_PAGE)
        )
