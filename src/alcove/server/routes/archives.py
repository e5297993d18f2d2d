"""Workspaces as tar archives."""

from __future__ import annotations

from typing import Final

import msgspec

from alcove import limits
from alcove.errors import (
    AlreadyExistsError,
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
from alcove.server.routes.files import Place, begun, exact, workspaces
from alcove.server.streaming import Made


class Into(Place, frozen=True, kw_only=True):
    """How to put an archive into a workspace.

    Attributes:
        replace: Replace files of the same path; without, one of them refuses the archive.
        skip: Leave out what may not be in a workspace and say so, instead of refusing the archive for it.
    """

    replace: bool = False
    skip: bool = False


class ExtractedView(msgspec.Struct, frozen=True, kw_only=True):
    """What came out of an archive.

    Attributes:
        files: Files and links.
        folders: Folders that it names, or that its files needed.
        size: Bytes in the files.
        skipped: What was left out, each with its reason; the first of them.
        skipped_count: How many were left out.
    """

    files: int
    folders: int
    size: int
    skipped: list[str]
    skipped_count: int


async def download(call: Call, query: Place) -> Made:
    """Download the workspace, or one folder of it, as tar.gz. FIFOs, sockets and devices are left out.

    It is made while it is sent. When a file cannot be read, the connection ends before the archive does.
    """
    await call.session()
    path = exact("path", query.path, query.raw_path)
    pieces = workspaces(call).archive(call.session_id, path)
    if call.scope["method"] == "HEAD":
        await workspaces(call).list_files(call.session_id, path)
    else:
        pieces = await begun(pieces)
    return Made(f"{path.rpartition('/')[2] or call.session_id}.tar.gz", "application/gzip", pieces)


async def upload(call: Call, query: Into) -> ExtractedView:
    """Put what is in a tar or tar.gz archive into the workspace, or one folder of it: all of it or nothing.

    Absolute paths, `..`, links that lead out, devices, FIFOs and members that come twice refuse the archive, or are
    left out with `skip`. Owners and setuid bits are dropped.
    """
    await call.session()
    extracted = await workspaces(call).extract(
        call.session_id,
        call.chunks(limits.UPLOAD_BYTES, patient=True),
        exact("path", query.path, query.raw_path),
        replace=query.replace,
        skip=query.skip,
    )
    return ExtractedView(
        files=extracted.files,
        folders=extracted.folders,
        size=extracted.size_bytes,
        skipped=list(extracted.skipped),
        skipped_count=extracted.skipped_count,
    )


_PATH: Final = "/api/v1/sessions/{session_id}/archive"

ROUTES: Final = (
    Route(
        "GET",
        _PATH,
        download,
        permission="files.read",
        errors=(SessionNotFoundError, FileMissingError, ConflictError, TooLargeError),
        media="application/gzip",
    ),
    Route(
        "POST",
        _PATH,
        upload,
        permission="files.write",
        errors=(
            SessionNotFoundError,
            SessionBusyError,
            SessionExpiredError,
            AlreadyExistsError,
            ConflictError,
            StorageError,
            TooLargeError,
        ),
        upload=True,
    ),
)
