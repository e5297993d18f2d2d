"""From the bytes of an archive to those of a tar: bombs are found out while they go off."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, final

from alcove import limits
from alcove.errors import TooLargeError
from alcove.workspaces.tar import broken

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = 31  # what zlib calls a gzip header


@final
class Plain:
    """Takes gzip off an archive, where it is on, within limits of size and of ratio.

    Args:
        ratio: How many times larger it may become; None where a sender could as well send all of it.
    """

    def __init__(self, ratio: int | None = limits.ARCHIVE_RATIO) -> None:
        self._ratio = ratio
        self._zip = zlib.decompressobj(_GZIP)
        self._first = b""
        self._gzipped: bool | None = None
        self._in_bytes = self._out_bytes = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes stand for, in pieces that memory can hold.

        Raises:
            InvalidError: It is damaged.
            TooLargeError: It becomes more than `limits.ARCHIVE_BYTES`, or than `ratio` times itself.
        """
        self._in_bytes += len(data)
        if self._gzipped is None:
            self._first += data
            if len(self._first) < len(_GZIP_MAGIC):
                return
            data, self._gzipped = self._first, self._first.startswith(_GZIP_MAGIC)
        for piece in self._inflated(data) if self._gzipped else (data,):
            self._out_bytes += len(piece)
            self._check()
            yield piece

    def finish(self) -> None:
        """Say that no more comes. Raises InvalidError when something is missing."""
        if self._gzipped is None or (self._gzipped and not self._zip.eof):
            raise broken("it ends too early")

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._zip.eof:
                self._zip = zlib.decompressobj(_GZIP)  # one after the other is one archive (RFC 1952)
            try:
                yield self._zip.decompress(data, limits.SEND_BYTES)
            except zlib.error as error:
                raise broken("its gzip part is damaged") from error
            data = self._zip.unconsumed_tail or self._zip.unused_data

    def _check(self) -> None:
        if self._out_bytes > limits.ARCHIVE_BYTES:
            raise TooLargeError(
                f"the archive holds more than {limits.ARCHIVE_BYTES} bytes",
                field="archive",
                limit=limits.ARCHIVE_BYTES,
                remedy="send it in parts",
            )
        if self._ratio and self._out_bytes > limits.ARCHIVE_RATIO_FREE_BYTES + self._ratio * self._in_bytes:
            raise TooLargeError(
                f"the archive grows to more than {self._ratio} times its size",
                field="archive",
                limit=self._ratio,
                remedy="send it without compression",
            )
