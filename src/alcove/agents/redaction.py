"""Takes the values of secrets out of what a program said, wherever its output happens to be cut into chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import final

from alcove.agents.transcript import Stream


@final
class Redactor:
    """Puts `[secret NAME]` in the place of each value.

    Args:
        names: The name of each value; no value may be empty. Without any, everything passes as it is.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._marks = {value.encode(): b"[secret %b]" % name.encode() for value, name in names.items()}
        self._longest = max(map(len, self._marks), default=0)

    def text(self, text: str) -> str:
        """Return a whole text without the values. Lone surrogates stay as they are."""
        if not self._marks:
            return text
        redaction = Redaction(self)
        cleaned = redaction.feed(text.encode(errors="surrogatepass")) + redaction.end()
        return cleaned.decode(errors="surrogatepass")

    async def stream(self, output: AsyncIterator[tuple[Stream, bytes]]) -> AsyncIterator[tuple[Stream, bytes]]:
        """Pass on a program's output without the values.

        What could be the beginning of a value waits for the next chunk of its stream, and at most for the end.
        """
        redactions: dict[Stream, Redaction] = {}
        async for name, chunk in output:
            redaction = redactions.setdefault(name, Redaction(self))
            if passed := redaction.feed(chunk) if self._marks else chunk:
                yield name, passed
        for name, redaction in redactions.items():
            if rest := redaction.end():
                yield name, rest

    def found(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return where values are, also those that overlap: from, to and what goes in their place, in order."""
        places: list[tuple[int, int, bytes]] = []
        for value, mark in self._marks.items():
            start = data.find(value)
            while start >= 0:
                places.append((start, start + len(value), mark))
                start = data.find(value, start + 1)
        return sorted(places, key=lambda place: (place[0], -place[1]))

    def settled(self, data: bytes) -> int:
        """Return how much of the beginning is settled: no value can begin there and go on in what is to come."""
        least = max(len(data) - self._longest + 1, 0)
        starts = [len(data)]
        for value in self._marks:
            start = data.find(value[:1], least)
            while start >= 0 and not value.startswith(data[start:]):
                start = data.find(value[:1], start + 1)
            if start >= 0:
                starts.append(start)
        return min(starts)


@final
class Redaction:
    """One stream on its way through a `Redactor`; holds back less than the longest value."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""
        # How much of what is held belongs to a value whose mark has been passed on.
        self._covered = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk and return what can be passed on."""
        data = self._held + chunk
        return self._pass(data, self._redactor.settled(data))

    def end(self) -> bytes:
        """Return what was held back; nothing more comes."""
        return self._pass(self._held, len(self._held))

    def _pass(self, data: bytes, until: int) -> bytes:
        parts: list[bytes] = []
        done = self._covered
        for start, end, mark in self._redactor.found(data):
            if start >= until:
                break
            if start >= done:
                parts += (data[done:start], mark)
            done = max(done, end)
        parts.append(data[done:until])
        self._held, self._covered = data[until:], max(done - until, 0)
        return b"".join(parts)
