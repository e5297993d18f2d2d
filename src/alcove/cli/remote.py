"""A server at an address, in the words of the hub: what commands call on either is the same.

Each method has the name, the arguments, the answer and the errors of the hub's. Type checkers hold that, because
what a command works on is `Alcove | Remote`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Iterable
from http import HTTPStatus
from typing import Final, final
from urllib.parse import quote_from_bytes

import msgspec

from alcove import limits
from alcove.cli import answers
from alcove.cli.finding import RemoteSearch
from alcove.cli.remote_audit import RemoteAudit
from alcove.cli.remote_keys import RemoteKeys
from alcove.cli.remote_runs import RemoteEvents, RemoteRuns, stream_events
from alcove.cli.remote_state import RemoteState
from alcove.cli.sweeping import RemoteJanitor
from alcove.cli.wire import Wire, at
from alcove.dialogs.loading import decoded
from alcove.dialogs.model import Definition, Dialog, Step
from alcove.durations import ttl_us
from alcove.events.model import Event
from alcove.lifecycle.model import Receipt, Restored
from alcove.messages.model import Message
from alcove.sessions import rules
from alcove.sessions.model import Page, Session
from alcove.values import Metadata
from alcove.workspaces.model import Extracted, File, Listing, Usage

_END: Final = 2**62  # above every seq


@final
class Remote:
    """A server.

    Args:
        wire: How it is called.
    """

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.settings: None = None  # they are the server's own business
        self.sessions = RemoteSessions(wire)
        self.messages = RemoteMessages(wire)
        self.dialogs = RemoteDialogs(wire)
        self.state = RemoteState(wire)
        self.search = RemoteSearch(wire)
        self.runs = RemoteRuns(wire)
        self.events = RemoteEvents(wire)
        self.workspaces = RemoteWorkspaces(wire)
        self.audit = RemoteAudit(wire)
        self.keys = RemoteKeys(wire)
        self.janitor = RemoteJanitor(wire)

    async def agents(self) -> list[str]:
        """Return the names of those who can answer."""
        answer = await self.wire.ask("GET", at("agents"))
        return [agent.name for agent in answer.read(answers.AgentsAnswer).agents]


@final
class RemoteSessions:
    """`hub.sessions` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.folders: dict[str, str] = {}
        """Where workspaces are, of the sessions seen; a server tells its administrator only."""

    async def create(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        app: str | None = None,
        key: str | None = None,
        parent_id: str | None = None,
        title: str = "",
        agent: str | None = None,
        metadata: Metadata | None = None,
        ttl_s: float | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> Session:
        """Create a session and its folder: see `Lifecycle.create`."""
        # Said here in the hub's words, so that a person reads the same wherever the installation is.
        rules.check_title(title)
        body: dict[str, object] = {
            "session_id": session_id,
            "user_id": user_id,
            "app": app,
            "key": key,
            "parent_id": parent_id,
            "title": title,
            "agent": agent,
            "metadata": metadata,
        }
        if not isinstance(ttl_s, msgspec.UnsetType):
            ttl_us(ttl_s)
            body["ttl_s"] = ttl_s
        return self._record((await self._wire.ask("POST", at("sessions"), body=body)).read(answers.SessionAnswer))

    async def live(self, user_id: str) -> tuple[Session, bool]:
        """Find or make the user's live session: see `Sessions.live`."""
        answer = await self._wire.ask("PUT", at("users", user_id, "session"), body={})
        return self._record(answer.read(answers.SessionAnswer)), answer.status == HTTPStatus.CREATED

    async def find_prefix(self, prefix: str, *, trashed: bool = False) -> list[Session]:
        """Return sessions whose id begins so: see `Sessions.find_prefix`."""
        query = {"prefix": prefix, "status": "trashed" if trashed else None}
        return self._page(
            (await self._wire.ask("GET", at("sessions"), query=query)).read(answers.SessionsAnswer)
        ).sessions

    async def list(
        self,
        *,
        user_id: str | None = None,
        app: str | None = None,
        parent_id: str | None = None,
        root_id: str | None = None,
        status: str | None = None,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
    ) -> Page:
        """List sessions, newest first: see `Sessions.list`."""
        query = {"user_id": user_id, "app": app, "parent_id": parent_id, "root_id": root_id, "status": status}
        answer = await self._wire.ask("GET", at("sessions"), query={**query, "limit": limit, "cursor": cursor})
        return self._page(answer.read(answers.SessionsAnswer))

    async def tree(self, session_id: str) -> list[Session]:
        """Return a session and its descendants, nearest first: see `Sessions.tree`."""
        answer = await self._wire.ask("GET", at("sessions", session_id, "tree"))
        return self._page(answer.read(answers.SessionsAnswer)).sessions

    async def delete(self, session_id: str, *, purge: bool = False) -> Receipt:
        """Move a session and its descendants to the trash, or remove them for good: see `Lifecycle.delete`."""
        query = {"receipt": True, "purge": purge}
        return (await self._wire.ask("DELETE", at("sessions", session_id), query=query)).read(Receipt)

    async def restore(self, session_id: str, *, without_keys: bool = False, as_root: bool = False) -> Restored:
        """Bring back what went to the trash together: see `Lifecycle.restore`."""
        how = {"without_keys": without_keys, "as_root": as_root}
        return (await self._wire.ask("POST", at("sessions", session_id, "restore"), body=how)).read(Restored)

    def _record(self, answer: answers.SessionAnswer) -> Session:
        if answer.absolute_work_directory:
            self.folders[answer.session_id] = answer.absolute_work_directory
        return answer.record()

    def _page(self, answer: answers.SessionsAnswer) -> Page:
        return Page([self._record(one) for one in answer.sessions], answer.next_cursor)


@final
class RemoteMessages:
    """`hub.messages` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def last(self, session_id: str, count: int = 20) -> list[Message]:
        """Return the last visible messages, oldest first: see `Messages.last`."""
        query = {"before": _END, "limit": count}
        answer = await self._wire.ask("GET", at("sessions", session_id, "messages"), query=query)
        return [one.record() for one in answer.read(answers.MessagesAnswer).messages]


@final
class RemoteDialogs:
    """`hub.dialogs` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def get(self, session_id: str) -> Dialog:
        """Return the dialog of a session: see `Dialogs.get`."""
        answer = await self._wire.ask("GET", at("sessions", session_id, "dialog"))
        return answer.read(answers.DialogAnswer).record()

    async def steps(self, session_id: str, *, after: int = 0, limit: int = limits.PAGE_DEFAULT) -> list[Step]:
        """Return what happened after a version, in order: see `Dialogs.steps`."""
        query = {"after": after, "limit": limit}
        answer = await self._wire.ask("GET", at("sessions", session_id, "dialog", "events"), query=query)
        return [one.record() for one in answer.read(answers.StepsAnswer).steps]

    async def followed(self, session_id: str) -> Definition:
        """Return the definition that a session follows: see `Dialogs.followed`."""
        answer = await self._wire.ask("GET", at("sessions", session_id, "dialog", "definition"))
        return decoded(bytes(answer.read(answers.DefinitionAnswer).definition).decode())


@final
class RemoteWorkspaces:
    """`hub.workspaces` of a server."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def list_files(self, session_id: str) -> Listing:
        """Return every file of a workspace: see `Workspaces.list_files`."""
        return (await self._wire.ask("GET", at("sessions", session_id, "files"))).read(answers.FilesAnswer).record()

    def watch(self, session_id: str) -> AsyncGenerator[Event]:
        """Yield what changes in the files of a session: see `Workspaces.watch`."""
        return stream_events(self._wire, at("sessions", session_id, "watch"))

    async def usage(self, session_id: str) -> Usage:
        """Return what a workspace takes: see `Workspaces.usage`."""
        return (await self._wire.ask("GET", at("sessions", session_id, "usage"))).read(Usage)

    async def open_read(self, session_id: str, path: str) -> tuple[int, File]:
        """Fetch a file, and open what was fetched; the caller closes the descriptor."""
        with tempfile.TemporaryFile() as file:
            async with self._wire.stream(_file(session_id, path)) as response:
                async for piece in self._wire.pieces(response):
                    file.write(piece)
            file.flush()
            fd = os.dup(file.fileno())
        return fd, File(path=path, kind="file", size_bytes=os.fstat(fd).st_size, modified_at=0)

    async def write(self, session_id: str, path: str, data: bytes | Iterable[bytes]) -> File:
        """Make or replace a file: see `Workspaces.write`."""
        answer = await self._wire.ask("PUT", _file(session_id, path), content=data)
        return answer.read(answers.FileAnswer).record()

    async def archive(self, session_id: str, path: str = "") -> AsyncGenerator[bytes]:
        """Yield a tar.gz of a workspace, or of one folder of it: see `Workspaces.archive`."""
        async with self._wire.stream(at("sessions", session_id, "archive"), query=_place(path)) as response:
            async for piece in self._wire.pieces(response):
                yield piece

    async def extract(
        self, session_id: str, data: Iterable[bytes], path: str = "", *, replace: bool = False
    ) -> Extracted:
        """Put what is in an archive into a workspace: see `Workspaces.extract`."""
        query = {**_place(path), "replace": replace}
        answer = await self._wire.ask("POST", at("sessions", session_id, "archive"), query=query, content=data)
        return answer.read(answers.ExtractedAnswer).record()

    async def mkdir(self, session_id: str, path: str) -> None:
        """Make a folder: see `Workspaces.mkdir`."""
        await self._wire.ask("PUT", _file(session_id, path), query={"type": "folder"})


def _file(session_id: str, path: str) -> str:
    return at("sessions", session_id, "files", *path.split("/"))


def _place(path: str) -> dict[str, str | bool | None]:
    return {"raw_path": quote_from_bytes(os.fsencode(path)) if path else None}
