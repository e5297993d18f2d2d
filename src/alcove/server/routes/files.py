"""Files of a session's workspace."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Final, Literal, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec
from starlette.responses import Response

from alcove import limits
from alcove.clock import seconds
from alcove.errors import (
    AlcoveError,
    AlreadyExistsError,
    ConfigurationError,
    ConflictError,
    FileMissingError,
    InvalidError,
    SessionBusyError,
    SessionExpiredError,
    SessionNotFoundError,
    StorageError,
    TooLargeError,
    VersionMismatchError,
)
from alcove.server.call import Call
from alcove.server.conditions import check_whole, condition, etag, span
from alcove.server.problems import RangeError
from alcove.server.route import Route
from alcove.server.routes.views import given
from alcove.server.streaming import FRESH, Download, EventStream, resumes_after
from alcove.workspaces.model import Condition, File, Usage
from alcove.workspaces.paths import check_path, decode
from alcove.workspaces.service import Workspaces

T = TypeVar("T")


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """A file.

    Attributes:
        name: The last part of the path.
        path: Relative to the workspace; where bytes are not UTF-8 they show as U+FFFD, and `raw_path` is exact.
        size: Bytes.
        modified_time: Epoch seconds.
        kind: Only a `file` can be read.
        raw_path: The exact path, percent-encoded, when `path` is not.
        etag: Names this state of it, for If-Match; only a `file` has one.
    """

    name: str
    path: str
    size: int
    modified_time: float
    kind: str
    raw_path: str | msgspec.UnsetType = msgspec.UNSET
    etag: str | msgspec.UnsetType = msgspec.UNSET


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a workspace, recursively, by path.

    Attributes:
        session_id: Whose workspace.
        work_directory: The workspace's name below the base.
        absolute_work_directory: Where it is on the server; only an administrator is told.
        files: Those of all folders, by path.
        file_count: How many `files` has.
        truncated: Whether there are more than can be listed.
        next_cursor: Goes into `cursor` for the next page; null on the last, and where no `limit` was given.
    """

    session_id: str
    work_directory: str
    absolute_work_directory: str | msgspec.UnsetType = msgspec.UNSET
    files: list[FileView]
    file_count: int
    truncated: bool
    next_cursor: str | None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of the workspace.

    Attributes:
        path: Relative to the workspace; the whole workspace without.
        raw_path: The same, percent-encoded, for a name that is not UTF-8.
    """

    path: str | msgspec.UnsetType = msgspec.UNSET
    raw_path: str | msgspec.UnsetType = msgspec.UNSET


class FilePaging(Place, frozen=True, kw_only=True):
    """What to list.

    Attributes:
        limit: How many at most; all without.
        cursor: The `next_cursor` of the page before.
    """

    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.LISTING_FILES)] | msgspec.UnsetType = msgspec.UNSET
    cursor: str | msgspec.UnsetType = msgspec.UNSET


class Move(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to move it.

    Attributes:
        to: The whole new path; folders missing on the way are made.
        raw_to: The same, percent-encoded, for a name that is not UTF-8.
        replace: Replace what is not a folder there, or an empty folder by a folder.
    """

    to: str | msgspec.UnsetType = msgspec.UNSET
    raw_to: str | msgspec.UnsetType = msgspec.UNSET
    replace: bool = False


class WatchFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go on.

    Attributes:
        after: The last number that was heard; 0 for from now on.
    """

    after: Annotated[int, msgspec.Meta(ge=0)] = 0


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


async def list_files(call: Call, query: FilePaging) -> FileList:
    """List the files of a session's workspace, those of all its folders, or of one folder and those below it."""
    session, folders = await call.session(), workspaces(call)
    listing = await folders.list_files(session.id, exact("path", query.path, query.raw_path))
    files, cursor = _page(listing.files, given(query.limit), given(query.cursor))
    return FileList(
        session_id=session.id,
        work_directory=session.id,
        absolute_work_directory=str(folders.path(session.id)) if call.is_admin else msgspec.UNSET,
        files=[_view(file) for file in files],
        file_count=len(files),
        truncated=listing.truncated,
        next_cursor=cursor,
    )


async def usage(call: Call) -> Usage:
    """Show what a session's workspace takes, as last measured; of one in the trash as well."""
    session = await call.hub.sessions.find(call.session_id)
    if session is None:
        raise SessionNotFoundError(f"there is no session {call.session_id}", field="session_id")
    return await workspaces(call).usage(session.id)


async def read(call: Call) -> Download:
    """Download a file, or with Range a part of it. Browsers keep it and never run it."""
    await call.session()
    asked, path = condition(call.head), call.path["path"]
    fd, file = await workspaces(call).open_read(call.session_id, path)
    try:
        if asked:
            Condition(match=asked.match).check(path, file)
            if asked.none_match and ("*" in asked.none_match or file.version in asked.none_match):
                os.close(fd)
                kept = {"etag": etag(file), "cache-control": FRESH}
                return Response(status_code=304, headers=kept)  # type: ignore[return-value]
        part = span(call.head, file) if call.scope["method"] == "GET" else None
    except AlcoveError:
        os.close(fd)
        raise
    return Download(fd, file, etag(file), part)


async def write(call: Call, query: Kind) -> FileView:
    """Make or replace a file, atomically and durably; missing folders are made. `type=folder` makes a folder."""
    session, folders, path = await call.session(), workspaces(call), call.path["path"]
    check_path(path)
    check_whole(call.head)
    asked, found = condition(call.head), await _find(folders, session.id, path)
    if asked:  # before the body: it need not come for nothing. Looked at again when it is there
        asked.check(path, found)
    call.status = 200 if found else 201
    if query.type == "folder":
        await folders.mkdir(session.id, path)
        return _view(await folders.stat(session.id, path))
    content = call.chunks(limits.UPLOAD_BYTES, patient=True)
    file = await folders.stream_write(session.id, path, content, condition=asked)
    call.headers.append((b"etag", etag(file).encode()))
    return _view(file)


async def move(call: Call, body: Move) -> FileView:
    """Move or rename a file, link or folder in one step. Nothing is replaced unless that is asked for."""
    await call.session()
    to = exact("to", body.to, body.raw_to)
    if not to:
        raise InvalidError("it is not said where to", field="to", remedy="give the whole new path in to")
    asked = condition(call.head)
    moved = await workspaces(call).move(call.session_id, call.path["path"], to, replace=body.replace, condition=asked)
    return _view(moved)


async def delete(call: Call, query: Deletion) -> None:
    """Delete a file, or a folder: an empty one, or with `recursive` any."""
    await call.session()
    await workspaces(call).delete(
        call.session_id,
        call.path["path"],
        recursive=query.recursive,
        condition=condition(call.head),
        by=call.principal.name,
    )


async def watch(call: Call, query: WatchFrom) -> EventStream:
    """Follow what changes in the files: `files` events with the paths that are `changed` and those that are `removed`.

    The first is empty and says that the watch has begun. After a `gap` list the files anew: what happened since the
    number that was given is not known any more.
    """
    await call.session()
    # 0 is before every event that there can be, so that it stands for none.
    events = workspaces(call).watch(call.session_id, resumes_after(call, query.after) or None)
    return EventStream(call.site, events if call.scope["method"] == "HEAD" else await begun(events))


async def begun(steps: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Wait for the first of what a generator yields, so that what can be refused is refused now; return all of it."""
    try:
        first = await anext(steps)
    except StopAsyncIteration:
        return steps
    return _again(first, steps)


async def _again(first: T, steps: AsyncGenerator[T]) -> AsyncGenerator[T]:
    async with aclosing(steps) as rest:
        yield first
        async for step in rest:
            yield step


def exact(field: str, text: str | msgspec.UnsetType, raw: str | msgspec.UnsetType) -> str:
    """Return a path that was given as text or percent-encoded, `''` when it was not given.

    Raises:
        InvalidError: It was given as both.
    """
    if raw is msgspec.UNSET:
        return given(text) or ""
    if text is not msgspec.UNSET:
        raise InvalidError(f"{field} is given twice", field=field, remedy=f"leave out {field} or raw_{field}")
    return decode(unquote_to_bytes(raw))


def workspaces(call: Call) -> Workspaces:
    """Return the files of this server.

    Raises:
        ConfigurationError: It keeps none.
    """
    if call.hub.workspaces is None:
        raise ConfigurationError("this server keeps no files", remedy="start it with a base folder")
    return call.hub.workspaces


def _page(files: tuple[File, ...], limit: int | None, cursor: str | None) -> tuple[tuple[File, ...], str | None]:
    """Return the files after the one that a cursor names, whether that is still there or not."""
    first = 0
    if cursor is not None:
        first = bisect_right(files, unquote_to_bytes(cursor), key=_raw)
    page = files[first : first + limit] if limit else files[first:]
    return page, quote_from_bytes(_raw(page[-1])) if first + len(page) < len(files) else None


def _raw(file: File) -> bytes:
    return file.path.encode("utf-8", "surrogateescape")


async def _find(folders: Workspaces, session_id: str, path: str) -> File | None:
    try:
        return await folders.stat(session_id, path)
    except FileMissingError:
        return None


def _view(file: File) -> FileView:
    raw = _raw(file)
    path = raw.decode("utf-8", "replace")
    return FileView(
        name=path.rpartition("/")[2],
        path=path,
        size=file.size_bytes,
        modified_time=seconds(file.modified_at),
        kind=file.kind,
        raw_path=msgspec.UNSET if path == file.path else quote_from_bytes(raw),
        etag=etag(file) if file.kind == "file" else msgspec.UNSET,
    )


_ONE: Final = "/api/v1/sessions/{session_id}/files/{path...}"
_GONE: Final = (SessionNotFoundError, FileMissingError)
_CHANGE: Final = (SessionBusyError, SessionExpiredError, ConflictError, StorageError)

_IF_MATCH: Final = {"If-Match": "Only while the file has one of these ETags; `*` for only if it is there."}

ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/sessions/{session_id}/files",
        list_files,
        permission="files.read",
        errors=_GONE,
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
        others=(206, 304),
        errors=(*_GONE, ConflictError, RangeError, VersionMismatchError),
        run=True,
        headers={
            **_IF_MATCH,
            "If-None-Match": "The ETag of the state that is known.",
            "Range": "One range of bytes, such as `bytes=0-99` or `bytes=-100`.",
            "If-Range": "The whole instead of the range, when the file has another ETag by now.",
        },
    ),
    Route(
        "PUT",
        _ONE,
        write,
        permission="files.write",
        status=201,
        others=(200,),
        errors=(SessionNotFoundError, TooLargeError, VersionMismatchError, *_CHANGE),
        upload=True,
        headers={**_IF_MATCH, "If-None-Match": "`*` for only if there is nothing."},
    ),
    Route(
        "POST",
        _ONE,
        move,
        permission="files.write",
        errors=(*_GONE, AlreadyExistsError, VersionMismatchError, *_CHANGE),
        headers=_IF_MATCH,
    ),
    Route(
        "DELETE",
        _ONE,
        delete,
        permission="files.delete",
        status=204,
        errors=(*_GONE, VersionMismatchError, *_CHANGE),
        headers=_IF_MATCH,
    ),
    Route(
        "GET",
        "/api/v1/sessions/{session_id}/watch",
        watch,
        permission="files.read",
        errors=(SessionNotFoundError, ConflictError, TooLargeError),
        headers={"Last-Event-ID": "The last number that was heard; wins over `after`."},
    ),
)
