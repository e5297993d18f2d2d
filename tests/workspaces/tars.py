"""Archives that an attacker would send, made member by member."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

KINDS = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
}


def member(name: str, content: bytes = b"", kind: str = "file", target: str = "", **fields: Any) -> bytes:
    """Return one member, header and content, without the end of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = KINDS[kind], len(content), target
    form: Any = fields.pop("form", tarfile.PAX_FORMAT)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(form, "utf-8", "surrogateescape") + content + bytes(-len(content) % 512)


def tar(*members: bytes) -> bytes:
    """Return a whole archive."""
    return b"".join(members) + bytes(1024)


def gz(*members: bytes) -> bytes:
    """Return a whole archive, gzipped."""
    return gzip.compress(tar(*members), 1)


def naive(archive: bytes, folder: Path) -> None:
    """Unpack as programs do that believe an archive: the negative control."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(folder, filter="fully_trusted")


def names(archive: Iterable[bytes]) -> dict[str, tarfile.TarInfo]:
    """Return what the standard library finds in an archive, by name."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive)), errorlevel=2) as opened:
        return {info.name: info for info in opened}
