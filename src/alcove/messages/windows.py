"""Which part of a history a model is shown: plain rules over messages.

A window is made of whole rounds, newest first for as long as they fit. So it begins at a user message and never parts a
tool's result from its call. Only a newest round that is too large by itself is shortened: its user message stays, and
of the rest the newest whole exchanges that fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, cast, final

import msgspec

from alcove import limits
from alcove.errors import InvalidError
from alcove.messages import content as contents
from alcove.messages.model import PINNED, REPAIRED, Message, Part, Window
from alcove.messages.tokens import Counter, estimate, is_reported

Over: TypeAlias = Literal["reference", "drop"]
_LEFT_OUT = frozenset({"failed", "lost"})
_SYSTEM = frozenset({"system", "developer"})


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a history. Every bound that is given holds.

    Attributes:
        rounds: The last user messages, each with what follows it.
        messages: All of them, kept ones included.
        size_bytes: Of their contents, images and files included.
        tokens: By the counter.
        media: Images, audios and files, the newest of them.
        media_bytes: Of those together, the newest of them.
        over: What becomes of images, audios and files past their bounds: a `reference` in words, or `drop`: nothing.
        failed: Show failed and lost turns too.
    """

    rounds: int = limits.WINDOW_ROUNDS
    messages: int | None = None
    size_bytes: int | None = None
    tokens: int | None = None
    media: int | None = None
    media_bytes: int | None = None
    over: Over = "reference"
    failed: bool = False

    def check(self) -> Bounds:
        """Return itself when every bound makes sense.

        Raises:
            InvalidError: Names the one that does not.
        """
        for field, value, least, most in (
            ("rounds", self.rounds, 1, limits.WINDOW_ROUNDS),
            ("messages", self.messages, 1, limits.WINDOW_MESSAGES),
            ("size_bytes", self.size_bytes, 1, limits.MESSAGE_PAGE_BYTES),
            ("tokens", self.tokens, 1, limits.WINDOW_TOKENS),
            ("media", self.media, 0, limits.WINDOW_MESSAGES),
            ("media_bytes", self.media_bytes, 0, limits.MESSAGE_PAGE_BYTES),
        ):
            if value is not None and not least <= value <= most:
                raise InvalidError(f"{field} is {value}", field=field, limit=most, remedy=f"use {least} to {most}")
        if self.over not in {"reference", "drop"}:
            raise InvalidError(f"over is {self.over!r}", field="over", remedy="use reference or drop")
        return self


@final
class _Room:
    """What is left of the bounds."""

    __slots__ = ("_count", "counted", "estimated", "messages", "size_bytes", "tokens")

    def __init__(self, bounds: Bounds, count: Counter | None) -> None:
        self.messages = limits.WINDOW_MESSAGES if bounds.messages is None else bounds.messages
        self.size_bytes = limits.MESSAGE_PAGE_BYTES if bounds.size_bytes is None else bounds.size_bytes
        self.tokens = limits.WINDOW_TOKENS if bounds.tokens is None else bounds.tokens
        self._count = count or (estimate if bounds.tokens is not None else None)
        self.counted = 0
        self.estimated = False

    @property
    def counts(self) -> bool:
        return self._count is not None

    def cost(self, message: Message) -> tuple[int, int]:
        """Return bytes and tokens of a message."""
        return message.size_bytes, self._count(message) if self._count else 0

    def take(self, found: Sequence[Message], costs: Sequence[tuple[int, int]]) -> bool:
        """Take room for messages that go in together; return whether there was enough."""
        size, tokens = sum(one for one, _ in costs), sum(one for _, one in costs)
        if len(found) > self.messages or size > self.size_bytes or tokens > self.tokens:
            return False
        self.messages -= len(found)
        self.size_bytes -= size
        self.tokens -= tokens
        self.counted += tokens
        if self._count is estimate and not self.estimated:
            self.estimated = not all(map(is_reported, found))
        return True


@final
class Picker:
    """Takes messages from the newest to the oldest, until it has a window.

    Args:
        bounds: How much.
        kept: Visible system messages, summaries, pinned messages and repairs, oldest first.
        count: Counts tokens; the built-in estimate otherwise.

    Raises:
        InvalidError: What is to be in every window does not fit by itself.
    """

    def __init__(self, bounds: Bounds, kept: Sequence[Message] = (), count: Counter | None = None) -> None:
        self._bounds = bounds
        self._room = _Room(bounds, count)
        self._media = _Media(bounds)
        placed = [one for one in kept if one.kept == REPAIRED and one.role not in _SYSTEM]
        self._placed = sorted(((one.detail.repair_after or 0, one.seq, one) for one in placed), key=lambda one: one[:2])
        self._summary = newest_summary(kept)
        self._covered = self._summary.summary_of.last if self._summary and self._summary.summary_of else 0
        self._front = self._kept_ones(kept)
        self._rounds: list[list[Message]] = []  # newest first
        self._round: list[Message] = []  # the one that is being looked at, newest first
        self._done = False
        self.left_out = False

    def _kept_ones(self, kept: Sequence[Message]) -> list[Message]:
        found = [one for one in kept if one.role in _SYSTEM and not one.summary_of]
        if self._summary:
            found.append(self._summary)
        # What a summary stands for is not shown again, pinned messages excepted: they are pinned for this.
        found += [one for one in kept if one.kept == PINNED and one.role not in _SYSTEM]
        # The newest first: of images past the bound, those stay.
        lightened = [self._media.lighten(one) for one in reversed(found)][::-1]
        if not self._room.take(lightened, [self._room.cost(one) for one in lightened]):
            raise InvalidError(
                f"{len(lightened)} system, summary and pinned messages do not fit into the window by themselves",
                field="tokens" if self._bounds.tokens is not None else "messages",
                remedy="give more room, or unpin some",
            )
        return lightened

    def offer(self, message: Message, status: str) -> bool:
        """Look at the next older message; return whether more are wanted.

        Args:
            message: Visible, and older than the one before.
            status: Of its turn.
        """
        if message.seq <= self._covered:
            self._done = True
            return False
        if message.role in _SYSTEM or message.kept == REPAIRED:
            return True  # it is at the front, or comes with the message that it stands after
        failed = status in _LEFT_OUT and not self._bounds.failed
        while self._placed and self._placed[-1][0] >= message.seq:
            after, _, repair = self._placed.pop()
            if not (failed and after == message.seq):
                self._round.append(repair)
        if failed:
            return True
        self._round.append(message)
        if opens_round(message):
            self._close()
        return not self._done

    def _close(self) -> None:
        """Decide about the round that begins here."""
        found = [self._media.lighten(one) for one in self._round]
        costs = [self._room.cost(one) for one in found]
        if not self._rounds and self._bounds.size_bytes is None:
            # Only a bound of the caller's keeps what was said last from being shown.
            self._room.size_bytes = max(self._room.size_bytes, costs[-1][0])
        if self._room.take(found, costs):
            self._rounds.append(found)
            self._done = len(self._rounds) >= self._bounds.rounds
        else:
            self._done = self.left_out = True
            if not self._rounds:
                self._shorten(found[::-1], costs[::-1])
        self._round = []

    def _shorten(self, found: list[Message], costs: list[tuple[int, int]]) -> None:
        """Keep what fits of a newest round that is too large: its user message, and the newest exchanges."""
        if not self._room.take(found[:1], costs[:1]):
            return
        kept: list[Message] = []
        for first, last in reversed(exchanges(found)):
            if not self._room.take(found[first:last], costs[first:last]):
                break
            kept = found[first:last] + kept
        self._rounds.append([found[0], *kept][::-1])

    @property
    def covered(self) -> bool:
        """Whether a summary stands for everything earlier."""
        return self._covered > 0

    def window(self, *, more: bool = False) -> Window:
        """Return the window.

        Args:
            more: Whether there are older messages that were not offered.
        """
        shown = [one for found in reversed(self._rounds) for one in reversed(found)]
        seqs = {one.seq for one in shown}
        front = [one for one in self._front if one.seq not in seqs]
        return Window(
            messages=front + shown,
            tokens=self._room.counted if self._room.counts else None,
            estimated=self._room.estimated,
            left_out=self.left_out or bool(self._round) or more,
        )


def opens_round(message: Message) -> bool:
    """Return whether a round begins with a message: a user's, unless it has results of tools, as Anthropic's have."""
    return message.role == "user" and (message.format == contents.TEXT or '"tool_result"' not in message.raw)


def newest_summary(kept: Sequence[Message]) -> Message | None:
    """Return the summary that reaches furthest: the only one that is shown."""
    return max((one for one in kept if one.summary_of), key=_reach, default=None)


def _reach(message: Message) -> tuple[int, int]:
    return (message.summary_of.last if message.summary_of else 0), message.seq


def exchanges(found: Sequence[Message]) -> list[tuple[int, int]]:
    """Return where each exchange of a round begins and ends (exclusive): what an assistant says, and tools answer.

    The user message, which comes first, is not one.
    """
    starts = [
        at
        for at in range(1, len(found))
        if found[at].role != "tool" and (at == 1 or found[at - 1].role in {"tool", "user"} or not _calls(found[at - 1]))
    ]
    return list(zip(starts, [*starts[1:], len(found)], strict=True))


def _calls(message: Message) -> bool:
    return '"tool_calls"' in message.detail_json or (message.format != contents.TEXT and "tool" in message.raw)


@final
class _Media:
    """Replaces images, audios and files past their bounds, offered newest first."""

    def __init__(self, bounds: Bounds) -> None:
        self._left = bounds.media
        self._left_bytes = bounds.media_bytes
        self._over = bounds.over

    def lighten(self, message: Message) -> Message:
        if message.format == contents.TEXT or (self._left is None and self._left_bytes is None):
            return message
        packed = msgspec.json.decode(message.raw, type=contents.Packed) if message.format == contents.PACKED else None
        if packed is not None and packed.parts is None:
            return message
        whole = cast("list[Part]", msgspec.structs.replace(message, objects=None).content)
        # What stays keeps its place in the lists: objects are found by it.
        own = packed.parts if packed is not None and packed.parts is not None else cast("list[Part]", message.content)
        past: list[contents.Path] = []
        for path in reversed(list(_media_in(whole))):
            if not self._fits(part := _at(whole, path)):
                past.append(path)
                text = "" if self._over == "drop" else reference(part, message)
                _at(own, path[:-1])[path[-1]] = {"type": "text", "text": text}
        if not past:
            return message
        kept = [] if packed is None else [one for one in packed.kept if not any(_below(one.path, at) for at in past)]
        return _with_parts(message, own, kept)

    def _fits(self, part: Part) -> bool:
        size = contents.media_bytes(part)
        if self._left == 0 or (self._left_bytes is not None and size > self._left_bytes):
            return False
        if self._left is not None:
            self._left -= 1
        if self._left_bytes is not None:
            self._left_bytes -= size
        return True


def _media_in(parts: list[Part]) -> Iterator[contents.Path]:
    """Yield where images, audios and files are, also in the results of tools."""
    for at, part in enumerate(parts):
        if contents.media_of(part):
            yield [at]
        elif isinstance(inner := part.get("content"), list):
            for within, one in enumerate(inner):
                if isinstance(one, dict) and isinstance(one.get("type"), str) and contents.media_of(one):
                    yield [at, "content", within]


def _at(parts: list[Part], path: contents.Path) -> Any:
    place: Any = parts
    for step in path:
        place = place[step]
    return place


def _below(path: contents.Path, above: contents.Path) -> bool:
    return path[: len(above)] == above


def _with_parts(message: Message, parts: list[Part], kept: list[contents.Kept]) -> Message:
    """Return a message with other parts. Empty texts go, if something is left without them."""
    said = [part for part in parts if part != {"type": "text", "text": ""}]
    if kept:
        size = sum(one.size_bytes for one in kept)
        raw, form = msgspec.json.encode(contents.Packed(size, kept, parts)).decode(), contents.PACKED
    elif said:
        raw, form = msgspec.json.encode(said).decode(), contents.PARTS
    else:
        raw, form = "[left out]", contents.TEXT
    return msgspec.structs.replace(message, raw=raw, format=form)


def reference(part: Part, message: Message) -> str:
    """Return in words what stands for an image, an audio or a file that is not shown."""
    facts = [contents.media_of(part)]
    named = [part.get(field) for field in ("name", "filename", "title", "media_type")]
    facts += [name[: limits.NAME_BYTES] for name in named if isinstance(name, str) and name]
    if size := contents.media_bytes(part):
        facts.append(f"{size:,} bytes")
    return f"[{', '.join(facts)}, not shown here; in message {message.seq}]"


def fitted(bounds: Bounds, window: Window, count: Counter | None) -> Window:
    """Return a window, picked by estimate, whose objects are there now: counted again, and cut where it is too much."""
    room = _Room(bounds, count)
    costs = [room.cost(one) for one in window]
    if room.take(window.messages, costs):
        return msgspec.structs.replace(window, tokens=room.counted if room.counts else None)
    kept = [one for one in window if one.role in _SYSTEM]
    picker = Picker(bounds, kept, count)
    for one in reversed(window.messages):
        if one.role not in _SYSTEM:
            picker.offer(msgspec.structs.replace(one, kept=0), "done")
    by_seq = {one.seq: one for one in window}
    found = picker.window(more=True)
    return msgspec.structs.replace(found, messages=[by_seq[one.seq] for one in found])
