"""What is kept of a program's output for its answer: the head and the tail, in bounded memory."""

from __future__ import annotations

import codecs
from collections.abc import Container
from typing import Final, Literal, NamedTuple, TypeAlias, final

from alcove import limits

Stream: TypeAlias = Literal["stdout", "stderr"]

# Half for each end, less the note between them.
_END_BYTES: Final = limits.ANSWER_BYTES // 2 - limits.KIB


class Kept(NamedTuple):
    """The first text, the number of bytes left out after it, and the last text."""

    head: str
    left_out_bytes: int
    tail: str

    def note(self) -> str:
        """Return a sentence about what was left out, `''` when nothing was."""
        return f"[… {self.left_out_bytes:,} bytes of output left out …]" if self.left_out_bytes else ""


@final
class Transcript:
    """Collects output as it arrives; holds at most 1.5 times `limits.ANSWER_BYTES`."""

    def __init__(self, streams: Container[str] = ("stdout", "stderr")) -> None:
        self._streams = streams
        # One for each stream: a character may be cut in two by the end of a chunk, and the other stream come between.
        new_decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": new_decoder("replace"), "stderr": new_decoder("replace")}
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out_bytes = 0

    def feed(self, stream: Stream, chunk: bytes) -> None:
        """Add a chunk, in order of arrival. Bytes that are not UTF-8 become U+FFFD; other streams are passed over."""
        if stream in self._streams:
            self._add(self._decoders[stream].decode(chunk))

    def kept(self) -> Kept:
        """Return what there is so far; a character that is still incomplete counts as invalid."""
        for decoder in self._decoders.values():
            self._add(decoder.decode(b"", final=True))
        dropped = max(len(self._tail) - _END_BYTES, 0)
        head, tail = bytes(self._head), bytes(self._tail[dropped:])
        if not self._left_out_bytes and not dropped:
            return Kept((head + tail).decode(), 0, "")
        # Either end may have cut a character in two.
        return Kept(head.decode(errors="ignore"), self._left_out_bytes + dropped, tail.decode(errors="ignore"))

    def _add(self, text: str) -> None:
        data = text.encode()
        room = _END_BYTES - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        # Trimmed when twice too long, so that each byte is moved once.
        if len(self._tail) > 2 * _END_BYTES:
            dropped = len(self._tail) - _END_BYTES
            del self._tail[:dropped]
            self._left_out_bytes += dropped
