"""The files of one session in the hands of its run: what an agent in this process uses."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import final

from alcove.sessions.heads import Fence
from alcove.workspaces.files import Files
from alcove.workspaces.model import Condition, Extracted, File, Listing
from alcove.workspaces.streams import Content


@final
class RunFiles:
    """`Files` for one session, under the lease of the run that holds it. Raises what `Files` raises.

    Every change looks first whether the run still holds the session: `StaleEpochError` when it does not.

    Args:
        files: The files of all sessions.
        session_id: Whose these are.
        fence: Of the run.
    """

    def __init__(self, files: Files, session_id: str, fence: Fence) -> None:
        self._files, self._session_id, self._fence = files, session_id, fence

    async def list(self, path: str = "") -> Listing:
        """Return every file of the workspace or of one folder, recursively."""
        return await self._files.list_files(self._session_id, path)

    async def stat(self, path: str) -> File:
        """Return what is at a path."""
        return await self._files.stat(self._session_id, path)

    async def read(self, path: str) -> bytes:
        """Return the content of a file: see `Files.read`."""
        return await self._files.read(self._session_id, path)

    def iter_read(self, path: str, *, start: int = 0) -> AsyncGenerator[bytes]:
        """Yield a file of any length: see `Files.iter_read`."""
        return self._files.iter_read(self._session_id, path, start=start)

    async def write(self, path: str, data: bytes, *, condition: Condition | None = None) -> File:
        """Make or replace a file: see `Files.write`."""
        return await self._files.write(self._session_id, path, data, condition=condition, fence=self._fence)

    async def stream_write(self, path: str, data: Content, *, condition: Condition | None = None) -> File:
        """Make or replace a file of any length: see `Files.stream_write`."""
        return await self._files.stream_write(self._session_id, path, data, condition=condition, fence=self._fence)

    async def mkdir(self, path: str) -> None:
        """Make a folder, and those above it."""
        await self._files.mkdir(self._session_id, path, fence=self._fence)

    async def delete(self, path: str, *, recursive: bool = False, condition: Condition | None = None) -> None:
        """Delete a file or folder: see `Files.delete`."""
        await self._files.delete(self._session_id, path, recursive=recursive, condition=condition, fence=self._fence)

    async def move(self, path: str, to: str, *, replace: bool = False) -> File:
        """Give something another path: see `Files.move`."""
        return await self._files.move(self._session_id, path, to, replace=replace, fence=self._fence)

    def archive(self, path: str = "") -> AsyncGenerator[bytes]:
        """Yield a tar.gz of the workspace or of one folder: see `Files.archive`."""
        return self._files.archive(self._session_id, path)

    async def extract(self, data: Content, path: str = "", *, replace: bool = False, skip: bool = False) -> Extracted:
        """Put what is in an archive into the workspace: see `Files.extract`."""
        return await self._files.extract(self._session_id, data, path, replace=replace, skip=skip, fence=self._fence)
