"""What stands in an archive: JSON, one record a line. docs/archive.md describes it for other programs.

An archive is a tar: `alcove.json` says what it is, `sessions.jsonl` has the sessions, parents first, `dialogs.jsonl`
the definitions of their dialogs; then for each session `objects/HASH` for each large part of its messages that no
session before had, `history/ID.jsonl` and, where it has a workspace, `files/ID.tar.gz`; `end.json` is the last, so that
a file that was cut off is known as such. Instants are epoch seconds, as everywhere outside. Reading believes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias, TypeVar, cast

import msgspec

from alcove import ids, limits
from alcove.clock import SECOND, Micros, seconds
from alcove.dialogs.model import Cause
from alcove.durations import ttl_us
from alcove.errors import InvalidError
from alcove.messages.content import Kept
from alcove.messages.model import Part, Span, Turn
from alcove.rights.model import Rights, read_rights, written
from alcove.rights.writing import checked
from alcove.sessions.model import NewSession, Session
from alcove.sessions.rules import check_new, encode_metadata
from alcove.values import Json, Metadata

T = TypeVar("T")

FORMAT: Final = "alcove-archive"
VERSION: Final = 2
READABLE: Final = frozenset({1, VERSION})
"""Versions that can be read; 1 had no objects, usage, pins, summaries, repairs, ends and bounds."""
MANIFEST: Final = "alcove.json"
SESSIONS: Final = "sessions.jsonl"
DIALOGS: Final = "dialogs.jsonl"
OBJECTS: Final = "objects"
END: Final = "end.json"
_LATEST: Final = 253_402_300_800  # the year 10000


class Manifest(msgspec.Struct, kw_only=True):
    """The first thing in an archive.

    Attributes:
        archive_id: Tells this archive from every other one.
        made_by: Which Alcove wrote it.
    """

    format: str
    version: int
    archive_id: str
    exported_at: float
    made_by: str


class SessionLine(msgspec.Struct, kw_only=True):
    """A session; `parent_id` may name one that is not in the archive.

    Attributes:
        messages: How many lines of messages its history has, hidden ones included: its last `seq`.
        turns: How many lines of turns it has.
        ends_at: When it expires whatever happens; None for never.
        ceiling: What runs in it may be granted at most; None for no such bound.
    """

    session_id: str
    parent_id: str
    app: str
    user_id: str
    key: str | None
    title: str
    agent: str
    metadata: Metadata
    pinned: bool
    ttl_s: float | None
    created_at: float
    last_activity: float
    messages: int
    turns: int
    ends_at: float | None = None
    ceiling: dict[str, Json] | None = None


class DefinitionLine(msgspec.Struct, kw_only=True):
    """A version of a dialog that sessions in the archive have followed.

    Attributes:
        source: Its declaration as JSON, as a text.
    """

    name: str
    number: int
    source: str


class TurnLine(msgspec.Struct, kw_only=True, tag="turn"):
    """A turn. One that was open when it was exported is `lost`: its run is not in the archive."""

    turn: int
    status: Literal["done", "failed", "cancelled", "lost"]
    opened_at: float
    closed_at: float


class MessageLine(msgspec.Struct, kw_only=True, tag="message", omit_defaults=True):
    """A message.

    Attributes:
        content: As in `Draft`; null stands where something was taken out as an object, `""` where all of it was.
        objects: What was taken out, and from where.
        summary_of: The messages that it stands for, when it is a summary.
        pinned: Whether it is in every window.
        repaired: Whether a repair wrote it.
        repair_after: The `seq` after which a repair put it.
        hidden: Whether it was popped or cleared.
    """

    seq: int
    turn: int
    role: str
    content: str | list[Part]
    created_at: float
    name: str | None = None
    tool_calls: list[Part] | None = None
    tool_call_id: str | None = None
    metadata: Metadata | None = None
    usage: dict[str, int] | None = None
    objects: list[Kept] = []
    summary_of: Span | None = None
    pinned: bool = False
    repaired: bool = False
    repair_after: int | None = None
    hidden: bool = False


class StepLine(msgspec.Struct, kw_only=True, tag="step", omit_defaults=True):
    """Something that happened in the dialog; `name` and `number` are those of its definition, `''` for free-form."""

    version: int
    cause: Cause
    state: str
    slots: dict[str, Json]
    last_seq: int
    created_at: float
    event: str = ""
    before: str = ""
    message: str = ""
    first_seq: int = 0
    due_at: float | None = None
    name: str = ""
    number: int = 0


class End(msgspec.Struct, kw_only=True):
    """The last thing in an archive: how much is before it."""

    sessions: int
    messages: int
    steps: int


Line: TypeAlias = TurnLine | MessageLine | StepLine
_decode_line = msgspec.json.Decoder(Line).decode


def encode(*records: msgspec.Struct) -> bytes:
    """Return records as lines."""
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def decode(raw: bytes, kind: type[T], where: str) -> T:
    """Return the record in a line.

    Raises:
        InvalidError: It is none.
    """
    return _decoded(lambda: msgspec.json.decode(raw, type=kind), where)


def decode_line(raw: bytes) -> Line:
    """Return a line of a history. Raises InvalidError when it is none."""
    return _decoded(lambda: _decode_line(raw), "a history")


def _decoded(decode: Callable[[], T], where: str) -> T:
    try:
        return decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(f"{where}: {error}") from error


def damaged(what: str) -> InvalidError:
    """Return the error for an archive that says what cannot be."""
    return InvalidError(f"the archive is damaged: {what}", field="archive", remedy="export it again")


def history_name(session_id: str) -> str:
    """Return where the history of a session stands."""
    return f"history/{session_id}.jsonl"


def files_name(session_id: str) -> str:
    """Return where the files of a session stand."""
    return f"files/{session_id}.tar.gz"


def object_name(digest: str) -> str:
    """Return where an object stands."""
    return f"{OBJECTS}/{digest}"


# -- out -------------------------------------------------------------------------------------------------------------


def session_line(session: Session, ceiling: Rights | None) -> SessionLine:
    """Return a session as it is exported."""
    return SessionLine(
        session_id=session.id,
        parent_id=session.parent_id,
        app=session.app,
        user_id=session.user_id,
        key=session.key,
        title=session.title,
        agent=session.agent,
        metadata=session.metadata,
        pinned=bool(session.pinned),
        ttl_s=seconds(session.ttl_us) if session.ttl_us else None,
        created_at=seconds(session.created_us),
        last_activity=seconds(session.last_activity_us),
        messages=session.last_seq,
        turns=session.turn_count,
        ends_at=seconds(session.ends_us) if session.ends_us else None,
        ceiling=msgspec.json.decode(written(ceiling)) if ceiling else None,
    )


def turn_line(turn: Turn) -> TurnLine:
    """Return a turn as it is exported."""
    status = "lost" if turn.status == "open" else turn.status
    return TurnLine(
        turn=turn.number,
        status=cast("Literal['done', 'failed', 'cancelled', 'lost']", status),
        opened_at=seconds(turn.opened_us),
        closed_at=seconds(turn.closed_us or turn.opened_us),
    )


# -- in --------------------------------------------------------------------------------------------------------------


def new_session(line: SessionLine, tenant: str) -> NewSession:
    """Return a session as it is imported, into a tenant.

    Raises:
        InvalidError: A field cannot be kept; named.
    """
    try:
        text, indexed = encode_metadata(line.metadata)
        new = NewSession(
            id=line.session_id,
            tenant=tenant,
            app=line.app,
            user_id=line.user_id,
            key=line.key,
            parent_id=line.parent_id,
            title=line.title,
            agent=line.agent,
            metadata_json=text,
            indexed=indexed,
        )
        ttl_us(line.ttl_s)
        ceiling(line)
        return check_new(new)
    except InvalidError as error:
        raise damaged(f"session {line.session_id[:128]!r}: {error.message}") from error


def ceiling(line: SessionLine) -> Rights | None:
    """Return what runs in a session may be granted at most. Raises InvalidError when that is none."""
    if line.ceiling is None:
        return None
    try:
        return checked(read_rights(msgspec.json.encode(line.ceiling).decode()), bound=True)
    except (msgspec.DecodeError, InvalidError) as error:
        raise damaged(f"session {line.session_id[:128]!r}: its bound: {error}") from error


def check_sessions(lines: Sequence[SessionLine], tenant: str) -> None:
    """Make sure that sessions can be made in this order.

    Raises:
        InvalidError: One comes twice or before its parent, or says what cannot be.
    """
    known = {line.session_id for line in lines}
    seen: set[str] = set()
    for line in lines:
        ids.session_id(line.session_id)
        if line.session_id in seen:
            raise damaged(f"session {line.session_id} is in it twice")
        if line.parent_id in known and line.parent_id not in seen:
            raise damaged(f"session {line.session_id} stands before its parent")
        if line.messages < 0 or not 0 <= line.turns <= line.messages:
            raise damaged(f"session {line.session_id} counts {line.messages} messages in {line.turns} turns")
        micros_of(line.created_at)
        micros_of(line.last_activity)
        micros_of(line.ends_at or 0)
        new_session(line, tenant)
        seen.add(line.session_id)


class History:
    """Checks the lines of one history as they come: turns, messages and steps dense, from 1."""

    def __init__(self, session: SessionLine) -> None:
        self._session = session
        self.messages = 0
        self.turns = 0
        self.steps = 0
        self.visible = 0
        self._pinned = 0
        self.last_step: StepLine | None = None

    def check(self, line: Line) -> None:
        """Take the next line. Raises InvalidError when it cannot be the next."""
        where = f"session {self._session.session_id}"
        if isinstance(line, TurnLine):
            self.turns += 1
            if line.turn != self.turns:
                raise damaged(f"{where} has turn {line.turn} where {self.turns} should be")
            micros_of(line.opened_at)
            micros_of(line.closed_at)
            return
        if isinstance(line, StepLine):
            self.steps += 1
            if line.version != self.steps:
                raise damaged(f"{where} has step {line.version} where {self.steps} should be")
            self.last_step = line
            return
        self.messages += 1
        self.visible += not line.hidden
        if line.seq != self.messages:
            raise damaged(f"{where} has message {line.seq} where {self.messages} should be")
        if not 0 <= line.turn <= self._session.turns:
            raise damaged(f"{where} has a message of turn {line.turn}, and {self._session.turns} turns")
        self._pinned += line.pinned and not line.hidden
        if self._pinned > limits.PINNED_MESSAGES:
            raise damaged(f"{where} has more than {limits.PINNED_MESSAGES} pinned messages")
        micros_of(line.created_at)

    def finish(self) -> None:
        """Make sure that it is whole."""
        if (self.messages, self.turns) != (self._session.messages, self._session.turns):
            raise damaged(
                f"session {self._session.session_id} has {self.messages} messages and {self.turns} turns, "
                f"not {self._session.messages} and {self._session.turns}"
            )


def micros_of(at: float) -> Micros:
    """Return an instant in microseconds. Raises InvalidError when it is none."""
    if not (math.isfinite(at) and 0 <= at < _LATEST):
        raise damaged(f"{at} is no time")
    return round(at * SECOND)
