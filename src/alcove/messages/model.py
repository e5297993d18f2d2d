"""What a message is, as records. Instants are microseconds since the epoch."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from alcove.clock import Micros, instant
from alcove.values import Json, Metadata

Role = Literal["system", "developer", "user", "assistant", "tool"]
Part: TypeAlias = dict[str, Json]
TurnStatus = Literal["open", "done", "failed", "cancelled", "lost"]


class Draft(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A message before it has a place.

    Attributes:
        role: Who speaks.
        content: Text, or a list of parts, each an object with a `type`; types unknown to Alcove are kept as they are.
        name: The speaker's or the tool's name.
        tool_calls: What an assistant asks tools to do, as the provider gave it.
        tool_call_id: Which call a tool message answers.
        metadata: The caller's own facts, JSON.
    """

    role: Role
    content: str | list[Part] = ""
    name: str | None = None
    tool_calls: list[Part] | None = None
    tool_call_id: str | None = None
    metadata: Metadata | None = None


class Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rarer fields of a message, stored together as JSON."""

    name: str | None = None
    tool_calls: list[Part] | None = None
    tool_call_id: str | None = None
    metadata: Metadata | None = None


class Stored(msgspec.Struct, frozen=True):
    """A draft as it is written: `format` 0 is text, 1 is a JSON list of parts; `detail` is `''` or a `Detail`."""

    role: str
    format: int
    content: str
    detail: str


class Message(msgspec.Struct, frozen=True):
    """A message of a session. The fields are in the order of `queries.COLUMNS`.

    Attributes:
        seq: Dense per session, from 1, never reused.
        turn: The turn it belongs to; 0 before the first user message.
        hidden: 1 when it was popped or cleared: it stays in the history and is left out of views.
        created_us: When it was appended, microseconds since the epoch.
    """

    seq: int
    turn: int
    role: str
    format: int
    raw: str
    detail_json: str
    hidden: int
    created_us: Micros

    @property
    def content(self) -> str | list[Part]:
        """Text, or a fresh list of parts."""
        return self.raw if self.format == 0 else msgspec.json.decode(self.raw)

    @property
    def text(self) -> str:
        """The text of the message: of a list, its text parts one after the other."""
        content = self.content
        if isinstance(content, str):
            return content
        return "".join(text for part in content if isinstance(text := part.get("text"), str))

    @property
    def detail(self) -> Detail:
        """Name, tool calls and metadata."""
        return msgspec.json.decode(self.detail_json, type=Detail) if self.detail_json else Detail()

    @property
    def created_at(self) -> datetime:
        """When it was appended."""
        return instant(self.created_us)


class Appended(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an append went.

    Attributes:
        first_seq: The `seq` of the first message.
        last_seq: The `seq` of the last one.
        turn: The turn of the last one.
        replayed: Whether this is the stored answer to an earlier request with the same idempotency key.
    """

    first_seq: int
    last_seq: int
    turn: int
    replayed: bool = False


class MessagePage(msgspec.Struct, frozen=True):
    """Messages in ascending order, and where to go on: `after=next_after`, or `before=next_before`; None at the end."""

    messages: list[Message]
    next_after: int | None
    next_before: int | None


class Turn(msgspec.Struct, frozen=True):
    """One exchange. The fields are in the order of `queries.turns`.

    Attributes:
        number: From 1, dense per session.
        status: `open` while its run works; `done failed cancelled lost` afterwards.
        run_id: `''` when no run of Alcove's answered.
        closed_us: 0 while open.
    """

    number: int
    status: str
    run_id: str
    opened_us: Micros
    closed_us: Micros
