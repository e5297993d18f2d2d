"""Objects as records."""

from __future__ import annotations

import msgspec


class Ref(msgspec.Struct, frozen=True):
    """A message's claim to an object.

    Attributes:
        seq: The message.
        hash: SHA-256 of the bytes, in hex.
        file: The file that was found or written for it: what makes sure that it has not been removed since.
    """

    seq: int
    hash: str
    file: str


class Reserved(msgspec.Struct, frozen=True):
    """Where an object's bytes are, or are to be written.

    Attributes:
        file: The name of the file.
        written: Whether the bytes are known to be there.
    """

    file: str
    written: bool


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the store holds.

    Attributes:
        objects: How many.
        size_bytes: Of all of them.
        unused: Those that nothing refers to: on their way in, or waiting for a sweep.
    """

    objects: int
    size_bytes: int
    unused: int


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What a sweep removed.

    Attributes:
        objects: How many objects.
        size_bytes: Room given back to the disk.
    """

    objects: int
    size_bytes: int


class Released(msgspec.Struct, frozen=True):
    """What a step of a purge released.

    Attributes:
        refs: How many claims; 0 when there are no more.
        files: Files to which nothing refers any more: to be removed now.
    """

    refs: int
    files: tuple[str, ...]
