"""Messages in an archive: as lines, and their large parts as members of their own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import IO, Final, cast, final

import msgspec

from alcove import limits
from alcove.archive.container import Members
from alcove.archive.lines import MessageLine, damaged
from alcove.clock import seconds
from alcove.errors import AlcoveError, InvalidError, TooLargeError
from alcove.messages import content as contents
from alcove.messages.content import Content, Kept, Packed
from alcove.messages.model import PINNED, REPAIRED, Draft, Message, Role, Stored
from alcove.messages.rules import calls, detail, packed, stored
from alcove.messages.service import Messages

_SYSTEM: Final = frozenset({"system", "developer"})
_NOTHING: Final[Mapping[str, bytes]] = {}


def message_line(message: Message, cleared_seq: int) -> MessageLine:
    """Return a message as it is exported.

    Raises:
        TooLargeError: With its objects, as often as it shows each, it has more than `limits.ARCHIVE_MESSAGE_BYTES`.
    """
    whole = msgspec.json.decode(message.raw, type=Packed) if message.format == contents.PACKED else None
    if whole and _shown_bytes(whole.kept) > limits.ARCHIVE_MESSAGE_BYTES:
        raise TooLargeError(
            f"message {message.seq} shows {_shown_bytes(whole.kept)} bytes of images, files and long texts",
            field="session_ids",
            limit=limits.ARCHIVE_MESSAGE_BYTES,
            remedy="export the other sessions",
        )
    rare = message.detail
    return MessageLine(
        seq=message.seq,
        turn=message.turn,
        role=message.role,
        content=(whole.parts or "") if whole else message.content,
        created_at=seconds(message.created_us),
        name=rare.name,
        tool_calls=rare.tool_calls,
        tool_call_id=rare.tool_call_id,
        metadata=rare.metadata,
        usage=rare.usage,
        objects=whole.kept if whole else [],
        summary_of=rare.summary_of,
        pinned=message.kept == PINNED,
        repaired=message.repaired,
        repair_after=rare.repair_after,
        hidden=bool(message.hidden) or message.seq <= cleared_seq,
    )


def _shown_bytes(kept: list[Kept]) -> int:
    return sum(one.size_bytes for one in kept)


@final
class Parts:
    """The large parts in an archive: where each lies, once `add` has seen it. In memory is one message at a time.

    Args:
        file: The archive.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, members: Members, digest: str) -> None:
        """Take the member that is an object. Raises InvalidError when it is another one than its name says."""
        place, size = members.place
        if size > limits.OBJECT_BYTES:
            raise damaged(f"object {digest[:64]!r} has {size} bytes, and {limits.OBJECT_BYTES} are possible")
        found = hashlib.sha256()
        for piece in members.pieces():
            found.update(piece)
        if found.hexdigest() != digest:
            raise damaged(f"object {digest[:64]!r} has another content than its name says")
        self._places[digest] = (place, size)

    def content(self, line: MessageLine, session_id: str) -> Content:
        """Return the content of a message, its parts in their places.

        Raises:
            InvalidError: One of them is missing, or has its place where none is.
        """
        if not line.objects:
            return line.content
        where = f"message {line.seq} of session {session_id}"
        if lacking := [one.hash for one in line.objects if one.hash not in self._places]:
            raise damaged(f"{where} has object {lacking[0][:64]!r}, which does not stand before it")
        if sum(self._places[one.hash][1] for one in line.objects) > limits.ARCHIVE_MESSAGE_BYTES:
            raise damaged(f"{where} has more than {limits.ARCHIVE_MESSAGE_BYTES} bytes of objects")
        loaded = {digest: self._read(digest) for digest in {one.hash for one in line.objects}}
        rest = None if isinstance(line.content, str) else line.content
        raw = msgspec.json.encode(Packed(_shown_bytes(line.objects), line.objects, rest)).decode()
        try:
            return contents.unpack(raw, loaded)
        except (LookupError, TypeError, ValueError, AttributeError, msgspec.MsgspecError) as error:
            raise damaged(f"{where} has an object where there is no place for it: {str(error)[:200]}") from error

    def _read(self, digest: str) -> bytes:
        place, size = self._places[digest]
        data = os.pread(self._file.fileno(), size, place)
        if hashlib.sha256(data).hexdigest() != digest:
            raise damaged("it was changed while it was read")
        return data


def written(line: MessageLine, content: Content, session_id: str) -> tuple[Stored, Mapping[str, bytes]]:
    """Return a message as it is written, and what of it goes to the object store, by hash.

    Args:
        line: As it stands in the archive.
        content: Its content, from `Parts.content`.
        session_id: Whose it is.

    Raises:
        InvalidError: It cannot be kept.
    """
    draft = Draft(
        role=cast("Role", line.role),
        content=content,
        name=line.name,
        tool_calls=line.tool_calls,
        tool_call_id=line.tool_call_id,
        metadata=line.metadata,
        usage=line.usage,
    )
    try:
        _check(line)
        message, objects = packed(draft) if contents.heavy(content) else (stored(draft), _NOTHING)
        if line.summary_of or line.repair_after is not None:
            rare = detail(draft, summary_of=line.summary_of, repair_after=line.repair_after)
            message = msgspec.structs.replace(message, detail=rare)
    except AlcoveError as error:
        raise damaged(f"message {line.seq} of session {session_id}: {error.message}") from error
    if line.pinned and (line.role == "tool" or calls(_read_back(line, message))):
        raise damaged(f"message {line.seq} of session {session_id} is a tool's, or calls one, and is pinned")
    return message, objects


def _check(line: MessageLine) -> None:
    span = line.summary_of
    if span and not (line.role in _SYSTEM and 1 <= span.first <= span.last < line.seq):
        raise InvalidError("it stands for messages that it cannot stand for", field="summary_of")
    if line.repair_after is not None and not (line.repaired and 0 <= line.repair_after < line.seq):
        raise InvalidError("a repair cannot have put it there", field="repair_after")
    if line.pinned and line.repaired:
        raise InvalidError("a repair wrote it, so that nobody can have pinned it", field="pinned")


def _read_back(line: MessageLine, message: Stored) -> Message:
    return Message(line.seq, line.turn, message.role, message.format, message.content, message.detail, 0, 0)


def kept(line: MessageLine) -> int:
    """Return `Message.kept` of a message as it is written."""
    return REPAIRED if line.repaired else PINNED if line.pinned else 0


@final
class Known:
    """The messages of a session that is here, asked for in ascending order.

    Args:
        messages: Their history.
        session_id: Whose.
        last_seq: Up to where it goes; 0 when there is no such session.
    """

    def __init__(self, messages: Messages, session_id: str, last_seq: int) -> None:
        self._messages = messages
        self._session_id = session_id
        self._last_seq = last_seq
        self._page: dict[int, Message] = {}

    async def agrees(self, line: MessageLine, message: Stored, content: Content) -> bool:
        """Return whether what is here of a message, if there is anything, says the same."""
        if line.seq > self._last_seq:
            return True
        if line.seq not in self._page:
            page = await self._messages.page(
                self._session_id, after=line.seq - 1, limit=limits.MESSAGE_PAGE, hidden=True, objects=False
            )
            self._page = {one.seq: one for one in page.messages}
        there = self._page.get(line.seq)
        if there is None or there.role != line.role:
            return there is None
        if (there.format, there.raw) == (message.format, message.content):
            return True
        # It may say the same in another form: what is an object now was in the row once.
        page = await self._messages.page(self._session_id, after=line.seq - 1, limit=1, hidden=True)
        return page.messages[0].content == content
