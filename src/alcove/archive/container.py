"""Reading the members of an archive, one after the other, from a file that a stranger may have made."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar, final

from alcove import limits
from alcove.archive.lines import damaged
from alcove.errors import InvalidError, TooLargeError
from alcove.workspaces.tar import Headers, Need, Source

T = TypeVar("T")


@contextmanager
def opened(path: str | Path) -> Generator[IO[bytes]]:
    """Open an archive; a pipe is not waited for, because it is read twice.

    Raises:
        InvalidError: There is no such file, or it is no regular one.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else "") or "not a path"
        raise InvalidError(
            f"{str(path)[:160]!r} cannot be read: {reason}", field="archive", remedy="name another file"
        ) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidError(f"{str(path)[:160]!r} is no regular file", field="archive", remedy="save it as one first")
    with os.fdopen(fd, "rb") as file:
        yield file


@final
class Members:
    """The members of an archive: `next` gives a name, and then `pieces` or `lines` its content, or part of it."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        self._file = file
        self._source = Source()
        self._headers = Headers(self._source, limits.ARCHIVE_MEMBERS)
        self._left_bytes = self._padding = 0

    @property
    def read_bytes(self) -> int:
        """How much of the file has been read."""
        return self._file.tell()

    @property
    def place(self) -> tuple[int, int]:
        """Where what is left of the content of this member lies in the file, and how many bytes it is."""
        return self._file.tell() - self._source.waiting_bytes, self._left_bytes

    def next(self) -> str | None:
        """Return the name of the next member; None at the end.

        Raises:
            InvalidError: This is no archive, or a damaged one.
        """
        for _ in self.pieces():
            pass
        self._now(self._headers.padding(self._padding))
        member = self._now(self._headers.next())
        if member is None:
            return None
        if member.kind != "file":
            raise damaged(f"{member.path[:160]!r} is a {member.kind}")
        self._left_bytes = self._padding = member.size_bytes
        return member.path.decode("ascii", "backslashreplace")

    def pieces(self) -> Iterator[bytes]:
        """Yield what is left of the content of this member."""
        while self._left_bytes:
            piece = self._now(self._source.some(min(self._left_bytes, limits.SEND_BYTES)))
            self._left_bytes -= len(piece)
            yield piece

    def lines(self) -> Iterator[bytes]:
        """Yield what is left of the content, line by line.

        Raises:
            TooLargeError: One is longer than `limits.ARCHIVE_LINE_BYTES`.
        """
        rest = bytearray()
        for piece in self.pieces():
            *whole, last = piece.split(b"\n")
            for line in whole:
                yield bytes(rest + line)
                rest.clear()
            rest += last
            if len(rest) > limits.ARCHIVE_LINE_BYTES:
                raise TooLargeError(
                    f"the archive has a line of more than {limits.ARCHIVE_LINE_BYTES} bytes",
                    field="archive",
                    limit=limits.ARCHIVE_LINE_BYTES,
                )
        if rest:
            raise damaged("a line of it has no end")

    def _now(self, need: Need[T]) -> T:
        """Return what is needed, reading on for it."""
        while True:
            try:
                next(need)
            except StopIteration as end:
                return end.value
            if chunk := self._file.read(limits.SEND_BYTES):
                self._source.add(chunk)
            else:
                self._source.ended = True
