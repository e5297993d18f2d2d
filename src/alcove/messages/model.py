"""What a message is, as records. Instants are microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from alcove.clock import Micros, instant
from alcove.messages import content as contents
from alcove.messages.content import Part
from alcove.values import Metadata

Role = Literal["system", "developer", "user", "assistant", "tool"]
TurnStatus = Literal["open", "done", "failed", "cancelled", "lost"]


class Draft(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A message before it has a place.

    Attributes:
        role: Who speaks.
        content: Text, or a list of parts, each an object with a `type` (`alcove.messages.content` has those that
            Alcove knows); other types are kept as they are.
        name: The speaker's or the tool's name.
        tool_calls: What an assistant asks tools to do, as the provider gave it.
        tool_call_id: Which call a tool message answers.
        metadata: The caller's own facts, JSON.
        usage: What the provider reported for this message: `input_tokens`, `output_tokens` and whatever else it counts.
    """

    role: Role
    content: str | list[Part] = ""
    name: str | None = None
    tool_calls: list[Part] | None = None
    tool_call_id: str | None = None
    metadata: Metadata | None = None
    usage: dict[str, int] | None = None


class Span(msgspec.Struct, frozen=True):
    """Messages from one `seq` to another, both included."""

    first: int
    last: int


class Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rarer fields of a message, stored together as JSON.

    Attributes:
        name, tool_calls, tool_call_id, metadata, usage: See `Draft`.
        summary_of: The messages that this one stands for, when it is a summary.
        repair_after: The `seq` after which this one stands, when a repair wrote it; 0 for the beginning.
    """

    name: str | None = None
    tool_calls: list[Part] | None = None
    tool_call_id: str | None = None
    metadata: Metadata | None = None
    usage: dict[str, int] | None = None
    summary_of: Span | None = None
    repair_after: int | None = None


class Stored(msgspec.Struct, frozen=True):
    """A draft as it is written: `format` is one of `content`'s; `detail` is `''` or a `Detail`."""

    role: str
    format: int
    content: str
    detail: str


PINNED = 1
REPAIRED = 2
"""Values of `Message.kept`."""


class Message(msgspec.Struct, frozen=True):
    """A message of a session. The fields are in the order of `queries.COLUMNS`.

    Attributes:
        seq: Dense per session, from 1, never reused.
        turn: The turn it belongs to; 0 before the first user message.
        hidden: 1 when it was popped or cleared: it stays in the history and is left out of views.
        created_us: When it was appended, microseconds since the epoch.
        kept: 1 when it is pinned: it goes into every window; 2 when a repair wrote it.
        objects: What was read of its objects, by hash; None when they were not asked for.
    """

    seq: int
    turn: int
    role: str
    format: int
    raw: str
    detail_json: str
    hidden: int
    created_us: Micros
    kept: int = 0
    objects: Mapping[str, bytes] | None = None

    @property
    def content(self) -> str | list[Part]:
        """Text, or a fresh list of parts. A part whose object was not read has `object` (the hash) and `size_bytes`."""
        if self.format == contents.TEXT:
            return self.raw
        if self.format == contents.PARTS:
            return msgspec.json.decode(self.raw)
        return contents.unpack(self.raw, self.objects)

    @property
    def text(self) -> str:
        """The text of the message: of a list, its texts and those of its tool results one after the other."""
        return self.raw if self.format == contents.TEXT else contents.text_of(self.content)

    @property
    def size_bytes(self) -> int:
        """About how long the content is, its objects included."""
        return contents.size_of(self.format, self.raw)

    @property
    def summary_of(self) -> Span | None:
        """The messages that this one stands for, when it is a summary."""
        return self.detail.summary_of if "summary_of" in self.detail_json else None

    @property
    def repaired(self) -> bool:
        """Whether a repair wrote it."""
        return self.kept == REPAIRED

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


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is shown of a history: system messages, a summary, pinned messages, then whole rounds.

    Attributes:
        messages: In the order in which a model reads them.
        tokens: How many they are, by the counter that was given; None when nothing was counted.
        estimated: Whether `tokens` is at least in part the built-in estimate.
        left_out: Whether there are earlier messages that are neither here nor in a summary that is.
    """

    messages: list[Message]
    tokens: int | None = None
    estimated: bool = False
    left_out: bool = False

    def __iter__(self) -> Iterator[Message]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)

    def __getitem__(self, at: int) -> Message:
        return self.messages[at]


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
