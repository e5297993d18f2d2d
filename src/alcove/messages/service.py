"""Messages and turns, as callers use them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from alcove import limits
from alcove.database.idempotency import once, write_once
from alcove.database.op import Database
from alcove.errors import InvalidError
from alcove.messages import queries
from alcove.messages.model import Appended, Draft, Message, MessagePage, Turn
from alcove.messages.rules import check_drafts
from alcove.pages import page_limit

_END = 2**62
_encode = msgspec.msgpack.Encoder().encode


class Messages:
    """Appends to histories and reads them. Each method is one transaction.

    An append in a session that a run holds is refused: the run is its one writer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

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
        """
        messages = check_drafts(drafts)
        if idempotency_key is None:
            return await self._database.write(queries.append, session_id, messages, expected_seq=expected_seq)
        request = once(f"append:{session_id}", idempotency_key, _encode((expected_seq, messages)))
        appended, replayed = await write_once(
            self._database,
            request,
            Appended,
            queries.append,
            session_id,
            messages,
            expected_seq=expected_seq,
            request=request,
        )
        return Appended(appended.first_seq, appended.last_seq, appended.turn, replayed) if replayed else appended

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
        return await self._database.read(queries.last, session_id, page_limit(count, limits.MESSAGE_PAGE))

    async def page(
        self,
        session_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = limits.PAGE_DEFAULT,
        hidden: bool = False,
    ) -> MessagePage:
        """Return messages in ascending order: those after a `seq`, or the last ones before it.

        Args:
            session_id: Whose.
            after: Exclusive; the default is from the beginning.
            before: Exclusive; not together with `after`.
            limit: 1 to `limits.MESSAGE_PAGE`. A page of long messages may be shorter.
            hidden: Show popped and cleared messages too.
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
            found,
            found[-1].seq if found and more and ascending else None,
            found[0].seq if found and more and not ascending else None,
        )

    async def window(self, session_id: str, *, rounds: int = 10, before: int | None = None) -> list[Message]:
        """Return the last rounds of the conversation, as a model is shown them, oldest first.

        A round is a user message and what follows it. Failed and lost turns are left out.

        Args:
            session_id: Whose.
            rounds: 1 to `limits.WINDOW_ROUNDS`.
            before: Only messages with a lower `seq`.
        """
        return await self._database.read(
            queries.window,
            session_id,
            page_limit(rounds, limits.WINDOW_ROUNDS),
            _END if before is None else before,
        )

    async def pop(self, session_id: str, count: int = 1) -> list[Message]:
        """Hide the last visible messages and return them, oldest first. They stay in the history, hidden."""
        return await self._database.write(queries.pop, session_id, page_limit(count, limits.POP_MESSAGES))

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
