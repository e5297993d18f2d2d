"""Archives as a stranger makes them: members changed, left out, doubled, put in."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alcove.hub import Alcove

Members = list[tuple[tarfile.TarInfo, bytes]]


def members(path: Path) -> Members:
    with tarfile.open(path) as tar:
        return [(info, tar.extractfile(info).read()) for info in tar.getmembers()]  # pyright: ignore[reportOptionalMemberAccess]


def save(path: Path, found: Members) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in found:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def added(found: Members, name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> Members:
    """Return the members with one more before the end."""
    info = tarfile.TarInfo(name)
    info.type = kind
    return [*found[:-1], (info, content), found[-1]]


def changed(found: Members, name: str, change: Callable[[list[dict[str, Any]]], object]) -> Members:
    """Return the members with the records of one of them changed in place."""
    result: Members = []
    for info, content in found:
        if info.name == name:
            records = [json.loads(line) for line in content.splitlines()]
            change(records)
            result.append((info, b"".join(json.dumps(record).encode() + b"\n" for record in records)))
        else:
            result.append((info, content))
    return result


def tar_gz(*entries: tuple[str, bytes, str]) -> bytes:
    """Return a tar.gz of entries: name, kind, and content or target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content.encode()))
            else:
                info.linkname = content
                tar.addfile(info)
    return out.getvalue()


class _Killed(BaseException):
    pass


def kill_at(hub: Alcove, step: int, patch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Let the process end before a write of the import, as far as what it would still do is concerned."""
    write = hub.database.write
    count = 0

    async def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count >= step:
            raise _Killed
        return await write(*args, **kwargs)

    patch.setattr(hub.database, "write", dying)
    return lambda: count >= step


async def attempt(hub: Alcove, archive: Path) -> None:
    """Import an archive, or be killed."""
    try:
        await hub.archive.import_archive(archive)
    except _Killed:
        return
