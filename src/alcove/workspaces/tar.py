"""A strict reader of tar archives: reads forward only, in bounded memory, and knows nothing of a disk.

Our own, because the standard library's follows what an archive says about itself too far for archives of strangers:
CVE-2019-20907, CVE-2024-6232 and CVE-2025-8194 were in its parser, CVE-2025-4517 and its kin in its filters. This one
knows ustar, GNU long names and the pax records that matter, and refuses what it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import Final, NamedTuple, TypeAlias, TypeVar, final

from alcove import limits
from alcove.errors import InvalidError, TooLargeError

T = TypeVar("T")
Need: TypeAlias = Generator[None, None, T]
"""Pauses where more bytes are needed."""

BLOCK: Final = 512
_MAGIC: Final = {b"ustar\x0000": True, b"ustar  \x00": False, bytes(8): False}  # whether it has a prefix field
_FOLLOWS_NAME: Final = (b"L", b"K")
_KINDS: Final = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "fifo",
}
_SECONDS: Final = re.compile(rb"(\d{1,12})(?:\.(\d{0,9})\d{0,20})?")


class Packed(NamedTuple):
    """One thing in an archive, as it says of itself: nothing here is to be believed.

    Attributes:
        path: Whatever bytes it gives.
        kind: `file folder link fifo device` or `hard link`.
        size_bytes: Of the content that follows; 0 for all but files.
        mode: Its permission bits, whichever there are.
        modified_ns: Nanoseconds since the epoch; None when it says nothing sensible.
        target: Of a link or hard link.
    """

    path: bytes
    kind: str
    size_bytes: int
    mode: int
    modified_ns: int | None
    target: bytes


@final
class Source:
    """The bytes of an archive, as they come.

    Attributes:
        ended: Whether no more will come.
    """

    def __init__(self) -> None:
        self.ended = False
        self._buffer = bytearray()

    @property
    def waiting_bytes(self) -> int:
        """How much came and was not taken yet."""
        return len(self._buffer)

    def add(self, data: bytes) -> None:
        """Append what came."""
        self._buffer += data

    def take(self, size: int) -> Need[bytes]:
        """Return exactly so many bytes."""
        while len(self._buffer) < size:
            if self.ended:
                raise broken("it ends too early")
            yield
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def some(self, most: int) -> Need[bytes]:
        """Return what there is, at least one byte."""
        yield from self._one()
        return (yield from self.take(min(most, len(self._buffer))))

    def rest(self) -> Need[None]:
        """Take the padding at the end of an archive, to the last byte."""
        while not (self.ended and not self._buffer):
            if self._buffer.strip(b"\0"):
                raise broken("something follows its end")
            self._buffer.clear()
            if not self.ended:
                yield

    def _one(self) -> Need[None]:
        while not self._buffer:
            if self.ended:
                raise broken("it ends too early")
            yield


@final
class Headers:
    """The members of an archive, one after the other; whoever asks for the next has taken the content of the last.

    Args:
        source: Where they come from.
        most: So many headers at most; `limits.ARCHIVE_NAMES` by default.
    """

    def __init__(self, source: Source, most: int | None = None) -> None:
        self._source = source
        self._most = limits.ARCHIVE_NAMES if most is None else most
        self._count = 0

    def next(self) -> Need[Packed | None]:
        """Return the next member, None at the end of the archive.

        Raises:
            InvalidError: This is no archive, a damaged one, or of a kind that is not known.
            TooLargeError: It has more than `most` headers, or one that is too long.
        """
        records: dict[bytes, bytes] = {}
        names: dict[bytes, bytes] = {}
        while True:
            block = yield from self._source.take(BLOCK)
            if not block.strip(b"\0"):
                yield from self._source.rest()
                return None
            self._count += 1
            if self._count > self._most:
                raise TooLargeError(
                    f"the archive has more than {self._most} members",
                    field="archive",
                    limit=self._most,
                    remedy="send it in parts",
                )
            kind = _check(block)
            if kind == b"x":
                records |= _records((yield from self._text(block)))
            elif kind == b"g":
                _check_global(_records((yield from self._text(block))))
            elif kind in _FOLLOWS_NAME:
                names[kind] = (yield from self._text(block)).rstrip(b"\0")
            else:
                return _member(block, kind, records, names)

    def padding(self, size: int) -> Need[None]:
        """Take what fills the last block of content of a size."""
        yield from self._source.take(-size % BLOCK)

    def _text(self, block: bytes) -> Need[bytes]:
        size = _number(block[124:136])
        if size > limits.ARCHIVE_HEADER_BYTES:
            raise TooLargeError(
                f"the archive has a header of {size} bytes",
                field="archive",
                limit=limits.ARCHIVE_HEADER_BYTES,
                remedy="leave long extended attributes out of it",
            )
        text = yield from self._source.take(size)
        yield from self.padding(size)
        return text


def members(read: Callable[[int], bytes]) -> Iterator[tuple[Packed, Iterator[bytes]]]:
    """Yield what is in a tar that is there already, each member with the pieces of its content. Blocks.

    What of a member's content was not taken when the next is asked for is passed over.

    Args:
        read: Returns at most so many next bytes of it, none at its end.

    Raises:
        InvalidError, TooLargeError: As `Headers.next`.
    """
    source = Source()

    def had(need: Need[T]) -> T:
        while True:
            try:
                next(need)
            except StopIteration as done:
                return done.value
            data = read(limits.SEND_BYTES)
            source.ended = not data
            source.add(data)

    def content(left: int) -> Iterator[bytes]:
        while left:
            piece = had(source.some(left))
            left -= len(piece)
            yield piece

    headers = Headers(source)
    while (one := had(headers.next())) is not None:
        pieces = content(one.size_bytes)
        yield one, pieces
        for _ in pieces:
            pass
        had(headers.padding(one.size_bytes))


def broken(what: str) -> InvalidError:
    """Return the error for an archive that cannot be read."""
    return InvalidError(f"the archive cannot be read: {what}", field="archive", remedy="send a tar or tar.gz archive")


def _check(block: bytes) -> bytes:
    """Return the type of a header; refuse what is none."""
    if _number(block[148:156]) != sum(block[:148]) + 8 * 0x20 + sum(block[156:]):
        raise broken("a header has a wrong checksum, or this is no tar archive")
    if block[257:265] not in _MAGIC:
        raise broken("its format is not known")
    return block[156:157]


def _member(block: bytes, kind: bytes, records: dict[bytes, bytes], names: dict[bytes, bytes]) -> Packed:
    what = _KINDS.get(kind)
    if what is None or any(name.startswith(b"GNU.sparse.") for name in records):
        raise broken("it has a sparse file, or a member of a kind that is not known")
    name, target = (field.partition(b"\0")[0] for field in (block[:100], block[157:257]))
    if _MAGIC[block[257:265]] and (prefix := block[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    path = records.get(b"path", names.get(b"L", name))
    size = _number(block[124:136])
    if b"size" in records:
        if not records[b"size"].isdigit() or len(records[b"size"]) > 18:
            raise broken("a size is no number")
        size = int(records[b"size"])
    if what == "file" and path.endswith(b"/"):  # as archives of before 1988 mark a folder
        what = "folder"
    if size and what != "file":
        raise broken(f"a {what} has content")
    modified = _time(records[b"mtime"]) if b"mtime" in records else _number(block[136:148]) * 1_000_000_000
    return Packed(
        path=path,
        kind=what,
        size_bytes=size,
        mode=_number(block[100:108]),
        modified_ns=modified if modified is not None and 0 <= modified < 1 << 62 else None,
        target=records.get(b"linkpath", names.get(b"K", target)),
    )


def _number(field: bytes) -> int:
    """Return a number in octal digits, or in GNU's form for large ones."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:
        return 0  # negative: a time before 1970, or nonsense
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise broken("a number is none")
    return int(digits or b"0", 8)


def _time(text: bytes) -> int | None:
    found = _SECONDS.fullmatch(text)
    return None if found is None else int(found[1]) * 1_000_000_000 + int((found[2] or b"").ljust(9, b"0"))


def _records(text: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax header: lines of `<length> <name>=<value>`, the length being the whole line's."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        digits = text[at : at + 8].partition(b" ")[0]
        if not digits.isdigit():
            raise broken("an extended header is damaged")
        record = text[at : at + int(digits)]
        name, equals, value = record[len(digits) + 1 :].partition(b"=")
        if len(record) != int(digits) or not equals or not value.endswith(b"\n"):
            raise broken("an extended header is damaged")
        found[name] = value[:-1]
        at += int(digits)
    return found


def _check_global(records: dict[bytes, bytes]) -> None:
    """Refuse what would change every member that follows; a comment is what `git archive` writes."""
    if records.keys() & {b"path", b"linkpath", b"size"} or any(name.startswith(b"GNU.sparse.") for name in records):
        raise broken("a global header renames its members")
