"""What a provider would refuse of a history, and what makes it acceptable: plain rules.

Histories are append-only. So what is wrong is hidden, as a pop hides, and what stands for it is appended with a mark
and the place where it is to be shown (`Detail.repair_after`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, cast, final

import msgspec

from alcove.messages.content import Part
from alcove.messages.model import REPAIRED, Draft, Message
from alcove.messages.neutral import parts_of, says_something

Kind: TypeAlias = Literal["orphan_call", "orphan_result", "bad_call", "empty_content", "wrong_order", "two_systems"]
Placed: TypeAlias = tuple[int, int, Draft]  # after which seq, in which turn, what
_SYSTEM = frozenset({"system", "developer"})
NO_RESULT = "[no result was recorded for this call: it was interrupted]"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a provider would refuse.

    Attributes:
        kind: `orphan_call` (no result), `orphan_result` (no call), `bad_call` (no id, no name, or an id that is
            taken), `empty_content`, `wrong_order` (a result not right after its call), `two_systems`.
        seq: The message.
        detail: A sentence for a person.
    """

    kind: Kind
    seq: int
    detail: str


@final
class Examiner:
    """Looks at a history, some whole rounds at a time, in order. Remembers the ids of calls.

    Attributes:
        faults: What was found in the last rounds.
        hide: Messages of them that are to be hidden.
        place: Messages that are to stand in them instead.
    """

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self.faults: list[Fault] = []
        self.hide: list[int] = []
        self.place: list[Placed] = []
        self._pending: dict[str, str] = {}  # calls without a result so far: id, name
        self._renamed: dict[str, str] = {}
        self._end = (0, 0)  # after which seq, and in which turn, a result of those would stand
        self._moved: set[tuple[int, str]] = set()
        self._answered = False  # whether there was a result since the last call

    def systems(self, found: Sequence[Message]) -> None:
        """Look at the system messages of the whole history, summaries excepted."""
        self._start()
        empty = [one for one in found if not one.text.strip()]
        for one in empty:
            self._say("empty_content", one, "a system message is empty")
            self.hide.append(one.seq)
        full = [one for one in found if one not in empty]
        if len(full) > 1:
            for one in full[1:]:
                self._say("two_systems", one, f"the history has {len(full)} system messages")
            self.hide += [one.seq for one in full]
            self.place.append((0, 0, Draft("system", "\n\n".join(one.text for one in full))))

    def rounds(self, found: Sequence[Message], *, last: bool) -> None:
        """Look at whole rounds.

        Args:
            found: What a window would show, in its order, system messages excepted.
            last: Whether the history ends here, so that calls still without a result will have none.
        """
        self._start()
        for at, message in enumerate(found):
            parts = parts_of(message.role, message.content, message.detail.tool_calls, message.detail.tool_call_id)
            if message.role == "assistant":
                calling = any(part["type"] == "tool_call" for part in parts)
                if (self._answered or not calling) and any(map(says_something, parts)):
                    # Who has called speaks on only after the results, all of them.
                    self._close(found[at + 1 :])
                self._assistant(message, parts)
                continue
            results = [part for part in parts if part["type"] == "tool_result"]
            others = [part for part in parts if part["type"] not in {"tool_result", "tool_call"}]
            if results and not any(map(says_something, others)):
                others = []
            if results and others and message.role == "user":
                self._mixed(message, results, others, found[at + 1 :])
            elif results:
                self._results(message, results)
            elif message.role == "user":
                self._close(found[at + 1 :])
                if not any(map(says_something, others)):
                    self._say("empty_content", message, "a user message is empty")
                    self.hide.append(message.seq)
        if last:
            self._close(())

    def _start(self) -> None:
        self.faults, self.hide, self.place, self._moved = [], [], [], set()

    def _say(self, kind: Kind, message: Message, detail: str) -> None:
        self.faults.append(Fault(kind=kind, seq=message.seq, detail=detail))

    def _assistant(self, message: Message, parts: list[Part]) -> None:
        changed = False
        said: list[Part] = []
        for part in parts:
            if part["type"] == "tool_result":
                self._say("orphan_result", message, "an assistant's message has the result of a tool")
                changed = True
            elif part["type"] == "tool_call":
                call = self._call(message, part)
                changed = changed or call is not part
                said.append(call)
            else:
                said.append(part)
        if not any(map(says_something, said)):
            self._say("empty_content", message, "an assistant's message is empty")
            self.hide.append(message.seq)
            return
        self._end = _position(message), message.turn
        if changed:
            self._replace(message, Draft("assistant", said))

    def _call(self, message: Message, part: Part) -> Part:
        """Note a call; return it with an id and a name of its own, where it lacks them."""
        given, name = part.get("id"), part.get("name")
        own = given if isinstance(given, str) else ""
        if own and own not in self._ids and isinstance(name, str) and name:
            self._ids.add(own)
            self._pending[own] = name
            return part
        what = "has no id" if not own else "has no name" if own not in self._ids else "has an id that is taken"
        self._say("bad_call", message, f"a tool call {own!r} {what}")
        fresh = own
        number = 1
        while not fresh or fresh in self._ids:
            fresh = f"{own or 'call'}_{message.seq}_{number}"
            number += 1
        self._ids.add(fresh)
        self._pending[fresh] = name if isinstance(name, str) and name else "unknown"
        self._renamed[own] = fresh
        return {**part, "id": fresh, "name": self._pending[fresh]}

    def _matched(self, message: Message, results: list[Part]) -> tuple[list[Part], bool]:
        """Return those results that answer a call, and whether that is another list than the message has."""
        kept: list[Part] = []
        changed = False
        for part in results:
            own = part.get("tool_call_id")
            own = own if isinstance(own, str) else ""
            # A renamed call has the result that comes first under its old id, unless another still waits under that.
            target = own if own in self._pending else self._renamed.pop(own, own)
            if target in self._pending:
                del self._pending[target]
                kept.append(part if target == own else {**part, "tool_call_id": target})
                changed = changed or target != own
            else:
                changed = True
                if (message.seq, own) not in self._moved:
                    self._say("orphan_result", message, f"a result answers no call {own!r}")
        if kept:
            self._answered = True
            self._end = _position(message), message.turn
        return kept, changed

    def _results(self, message: Message, results: list[Part]) -> None:
        kept, changed = self._matched(message, results)
        if changed and kept:
            self._replace(message, Draft("tool", kept))
        elif changed:
            self.hide.append(message.seq)

    def _mixed(self, message: Message, results: list[Part], others: list[Part], later: Sequence[Message]) -> None:
        """Look at a user message that has results of tools, and something to say."""
        kept, changed = self._matched(message, results)
        if not changed and not self._pending:
            self._close(later)
            return
        if kept:
            self._replace(message, Draft("tool", kept))
        else:
            self.hide.append(message.seq)
        self._close(later)
        self._replace(message, Draft("user", others))

    def _close(self, later: Iterable[Message]) -> None:
        """Give a result to each call that has none: its own one, when that comes too late."""
        if self._pending:
            late = _late(later)
            after, turn = self._end
            results: list[Part] = []
            for own, name in self._pending.items():
                old = next((was for was, now in self._renamed.items() if now == own), own)
                seq, part = late.get(old, (0, None))
                if part is not None and (seq, old) not in self._moved:
                    self._moved.add((seq, old))
                    self.faults.append(
                        Fault(kind="wrong_order", seq=seq, detail=f"the result of call {old!r} is not right after it")
                    )
                    results.append({**part, "tool_call_id": own})
                else:
                    self.faults.append(
                        Fault(kind="orphan_call", seq=after, detail=f"call {own!r} of {name!r} has no result")
                    )
                    results.append({"type": "tool_result", "tool_call_id": own, "content": NO_RESULT, "is_error": True})
            self.place.append((after, turn, Draft("tool", results)))
        self._pending = {}
        self._renamed = {}
        self._answered = False

    def _replace(self, message: Message, draft: Draft) -> None:
        """Put something else into the place of a message."""
        self.hide.append(message.seq)
        rest = Draft(draft.role, draft.content, name=message.detail.name, metadata=message.detail.metadata)
        self.place.append((_position(message), message.turn, rest))


def _position(message: Message) -> int:
    return (message.detail.repair_after or 0) if message.kept == REPAIRED else message.seq


def _late(messages: Iterable[Message]) -> dict[str, tuple[int, Part]]:
    """Return the results in later messages by the call that they answer: the first of each."""
    found: dict[str, tuple[int, Part]] = {}
    for message in messages:
        if message.role not in {"tool", "user"}:
            continue
        for part in parts_of(message.role, message.content, None, message.detail.tool_call_id):
            if part["type"] == "tool_result":
                found.setdefault(cast("str", part.get("tool_call_id") or ""), (message.seq, part))
    return found


def arranged(rows: Sequence[tuple[Message, str]], placed: Sequence[Message]) -> list[Message]:
    """Return rows in the order of a window, without system messages and what no window shows.

    Args:
        rows: Visible messages with the status of their turns, ascending.
        placed: Messages of earlier repairs that stand among them.
    """
    shown = [
        one
        for one, status in rows
        if status not in {"failed", "lost", "open"} and one.role not in _SYSTEM and one.kept != REPAIRED
    ]
    return sorted([*shown, *placed], key=lambda one: (_position(one), one.kept == REPAIRED, one.seq))
