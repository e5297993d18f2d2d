"""Files of a session's workspace."""

from __future__ import annotations

import os
import tempfile
from typing import Final, Literal
from urllib.parse import quote_from_bytes

import msgspec
from starlette.responses import Response

from alcove import limits
from alcove.clock import seconds
from alcove.errors import (
    ConfigurationError,
    ConflictError,
    FileMissingError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    StorageError,
    TooLargeError,
)
from alcove.server.call import Call
from alcove.server.route import Route
from alcove.server.streaming import Download
from alcove.workspaces.model import File, Usage
from alcove.workspaces.paths import check_path
from alcove.workspaces.service import Workspaces


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """A file.

    Attributes:
        name: The last part of the path.
        path: Relative to the workspace; where bytes are not UTF-8 they show as U+FFFD, and `raw_path` is exact.
        size: Bytes.
        modified_time: Epoch seconds.
        kind: Only a `file` can be read.
        raw_path: The exact path, percent-encoded, when `path` is not.
    """

    name: str
    path: str
    size: int
    modified_time: float
    kind: str
    raw_path: str | msgspec.UnsetType = msgspec.UNSET


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a workspace, recursively, by path.

    Attributes:
        session_id: Whose workspace.
        work_directory: The workspace's name below the base.
        absolute_work_directory: Where it is on the server; only an administrator is told.
        files: Those of all folders, by path.
        file_count: How many `files` has.
        truncated: Whether there are more than are listed.
    """

    session_id: str
    work_directory: str
    absolute_work_directory: str | msgspec.UnsetType = msgspec.UNSET
    files: list[FileView]
    file_count: int
    truncated: bool


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What to make.

    Attributes:
        type: A `file` from the body, or a `folder`, which takes none.
    """

    type: Literal["file", "folder"] = "file"


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    """How much to delete.

    Attributes:
        recursive: Whether a folder goes with everything in it.
    """

    recursive: bool = False


async def list_files(call: Call) -> FileList:
    """List the files of a session's workspace, those of all its folders."""
    session, folders = await call.session(), _workspaces(call)
    listing = await folders.list_files(session.id)
    return FileList(
        session_id=session.id,
        work_directory=session.id,
        absolute_work_directory=str(folders.path(session.id)) if call.is_admin else msgspec.UNSET,
        files=[_view(file) for file in listing.files],
        file_count=len(listing.files),
        truncated=listing.truncated,
    )


async def usage(call: Call) -> Usage:
    """Show what a session's workspace takes, as last measured; of one in the trash as well."""
    session = await call.hub.sessions.find(call.session_id)
    if session is None:
        raise SessionNotFoundError(f"there is no session {call.session_id}", field="session_id")
    return await _workspaces(call).usage(session.id)


async def read(call: Call) -> Download:
    """Download a file. Browsers keep it and never run it."""
    await call.session()
    fd, file = await _workspaces(call).open_read(call.session_id, call.path["path"])
    etag = f'"{file.modified_at:x}-{file.size_bytes:x}"'
    if etag.encode() in [tag.strip() for tag in call.head.get(b"if-none-match", b"").split(b",")]:
        os.close(fd)
        return Response(status_code=304, headers={"etag": etag})  # type: ignore[return-value]
    return Download(fd, file, etag)


async def write(call: Call, query: Kind) -> FileView:
    """Make or replace a file, atomically and durably; missing folders are made. `type=folder` makes a folder."""
    session, folders, path = await call.session(), _workspaces(call), call.path["path"]
    check_path(path)
    existed = await _exists(folders, session.id, path)
    call.status = 200 if existed else 201
    if query.type == "folder":
        await folders.mkdir(session.id, path)
        return _view(await folders.stat(session.id, path))
    # First here, then into the workspace: a slow sender must not hold the session's lease.
    with tempfile.SpooledTemporaryFile(max_size=limits.MIB) as spool:
        async for chunk in call.chunks(limits.FILE_BYTES, patient=True):
            spool.write(chunk)
        spool.seek(0)
        return _view(await folders.write(session.id, path, iter(lambda: spool.read(limits.MIB), b"")))


async def delete(call: Call, query: Deletion) -> None:
    """Delete a file, or a folder: an empty one, or with `recursive` any."""
    await call.session()
    await _workspaces(call).delete(call.session_id, call.path["path"], recursive=query.recursive)


async def _exists(folders: Workspaces, session_id: str, path: str) -> bool:
    try:
        await folders.stat(session_id, path)
    except FileMissingError:
        return False
    return True


def _workspaces(call: Call) -> Workspaces:
    if call.hub.workspaces is None:
        raise ConfigurationError("this server keeps no files", remedy="start it with a base folder")
    return call.hub.workspaces


def _view(file: File) -> FileView:
    raw = file.path.encode("utf-8", "surrogateescape")
    path = raw.decode("utf-8", "replace")
    return FileView(
        name=path.rpartition("/")[2],
        path=path,
        size=file.size_bytes,
        modified_time=seconds(file.modified_at),
        kind=file.kind,
        raw_path=msgspec.UNSET if path == file.path else quote_from_bytes(raw),
    )


_ONE: Final = "/api/v1/sessions/{session_id}/files/{path...}"
_GONE: Final = (SessionNotFoundError, FileMissingError)
_CHANGE: Final = (SessionBusyError, SessionExpiredError, ConflictError, StorageError)

ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/sessions/{session_id}/files",
        list_files,
        permission="files.read",
        errors=(SessionNotFoundError,),
        run=True,
    ),
    Route(
        "GET",
        "/api/v1/sessions/{session_id}/usage",
        usage,
        permission="files.read",
        errors=(SessionNotFoundError,),
    ),
    Route(
        "GET",
        _ONE,
        read,
        permission="files.read",
        others=(304,),
        errors=(*_GONE, ConflictError),
        run=True,
        headers={"If-None-Match": "The ETag of the state that is known."},
    ),
    Route(
        "PUT",
        _ONE,
        write,
        permission="files.write",
        status=201,
        others=(200,),
        errors=(SessionNotFoundError, TooLargeError, *_CHANGE),
        upload=True,
    ),
    Route("DELETE", _ONE, delete, permission="files.delete", status=204, errors=(*_GONE, *_CHANGE)),
)
