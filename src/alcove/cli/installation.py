"""How commands find what they work on, open it, and find sessions in it: an installation here, or a server."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeAlias, final

from alcove.cli import options, output
from alcove.errors import AgentNotFoundError, DatabaseError, InvalidError, NotFoundError, SessionNotFoundError
from alcove.sessions.model import Session
from alcove.sessions.service import Sessions
from alcove.settings.loading import load
from alcove.settings.model import Settings
from alcove.settings.parsing import nearest

if TYPE_CHECKING:
    from alcove.cli.remote import Remote, RemoteWorkspaces
    from alcove.hub import Alcove
    from alcove.workspaces.service import Workspaces

P = ParamSpec("P")
Hub: TypeAlias = "Alcove | Remote"

_SQLITE: Final = "sqlite:///"
_OURS: Final = frozenset({"ALCOVE_DEBUG", "ALCOVE_URL", "ALCOVE_KEY"})


def blocking(command: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a command of a coroutine function. Ctrl-C cancels it, and what it opened is closed in order."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(command(*args, **kwargs))

    return run


def configuration(**flags: str | int | None) -> Settings:
    """Return the configuration that is in force here, under the flags given."""
    environ = {name: value for name, value in os.environ.items() if name not in _OURS}
    return load(environ=environ, overrides=flags)


def settings() -> Settings:
    """Return the configuration that is in force here, and say what of it was ignored."""
    found = configuration()
    for warning in found.warnings:
        output.warn(warning)
    return found


def exists(found: Settings) -> bool:
    """Return whether there is an installation; nothing is made.

    It is where its SQLite file is. Where another server keeps the rows, the base folder tells.

    Raises:
        DatabaseError: This user may not look.
    """
    if found.database.startswith("memory:"):
        return False
    if not found.database.startswith(_SQLITE):
        from alcove.workspaces.base import installation

        return installation(str(found.base)) is not None
    path = found.database.removeprefix(_SQLITE)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DatabaseError(
            f"the database {path} cannot be looked at: {error.strerror}", remedy="be the user that serves it"
        ) from error
    return True


@final
class Rows:
    """An installation of which only sessions' rows are read: open in half the time that the whole of it takes.

    Attributes:
        settings: The configuration in force.
        sessions: Their service.
    """

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.settings: Settings = settings
        self.sessions = sessions


@asynccontextmanager
async def opened(*, start: bool = False, folders: bool = True) -> AsyncGenerator[Hub]:
    """Open the server that was named, else the installation here.

    Args:
        start: Make an installation where there is none.
        folders: Open the workspaces too; a command that only reads rows needs none.

    Raises:
        NotFoundError: There is none, and `start` is false; nothing was made.
    """
    if found := server():
        yield found
        return
    async with opened_here(start=start, folders=folders) as hub:
        yield hub


@asynccontextmanager
async def opened_rows() -> AsyncGenerator[Rows | Remote]:
    """Open the server that was named, else the rows of the installation here. Raises what `opened` does."""
    if found := server():
        yield found
        return
    from alcove.database.opening import open_database

    here = _here(start=False)
    database = await open_database(here.database)
    try:
        yield Rows(here, Sessions(database))
    finally:
        await database.close()


@asynccontextmanager
async def opened_here(*, start: bool = False, folders: bool = True) -> AsyncGenerator[Alcove]:
    """Open the installation here: see `opened`."""
    found = _here(start=start)
    from alcove.hub import open as open_hub

    async with open_hub(settings=found, folders=folders) as hub:
        hub.runs.adopts = False  # a command is over soon, and would cancel what it has begun
        yield hub


def server() -> Remote | None:
    """Return the server that was named."""
    url, key = options.server_named()
    if not url:
        return None
    from alcove.cli.remote import Remote
    from alcove.cli.wire import Wire

    return Remote(Wire(url, key))


def _here(*, start: bool) -> Settings:
    found = settings()
    if not start and not exists(found):
        raise NotFoundError(
            f"there is no installation here: {_place(found)} is missing",
            remedy="`alcove serve` or `alcove create` starts one; ALCOVE_HOME, SESSIONS_BASE_DIR and ALCOVE_DATABASE "
            "name another (`alcove config` shows them)",
        )
    if not output.debugging():
        # What goes wrong is said once, by the command.
        logging.getLogger("alcove").addHandler(logging.NullHandler())
    return found


def workspaces(hub: Hub) -> Workspaces | RemoteWorkspaces:
    """Return what reaches the files of an installation that was opened with its folders."""
    assert hub.workspaces is not None
    return hub.workspaces


def folder(hub: Hub | Rows, session_id: str) -> Path | None:
    """Return where a session's workspace is; None where a server does not tell."""
    if hub.settings is None:
        told = hub.sessions.folders.get(session_id)
        return Path(told) if told else None
    return hub.settings.base / session_id


async def check_agent(hub: Hub, name: str) -> None:
    """Make sure that there is an agent of that name.

    Raises:
        AgentNotFoundError: There is none; the remedy names one that looks like it.
    """
    if hub.settings is not None:
        hub.agents.get(name)
    elif name not in (names := await hub.agents()):
        raise AgentNotFoundError(f"there is no agent {name!r}", field="agent", remedy=nearest(name, names))


async def find_session(hub: Hub | Rows, prefix: str, *, trashed: bool = False) -> Session:
    """Return the session whose id is `prefix`, or the only one whose id begins so.

    Args:
        hub: Where to look.
        prefix: What the caller typed.
        trashed: One in the trash will do, when there is none outside.

    Raises:
        SessionNotFoundError: There is none.
        InvalidError: There are several; the remedy names them.
    """
    candidates = await hub.sessions.find_prefix(prefix)
    if not candidates:
        candidates = await hub.sessions.find_prefix(prefix, trashed=True)
        if candidates and not trashed:
            raise SessionNotFoundError(
                f"session {candidates[0].id} is in the trash",
                remedy="`alcove restore` brings it back, `alcove rm --purge` removes it for good",
            )
    if not candidates:
        raise SessionNotFoundError(f"there is no session {prefix!r}", remedy="`alcove list` shows those there are")
    return _only(prefix, candidates)


async def find_trashed(hub: Hub, prefix: str) -> Session:
    """Return the session in the trash whose id is `prefix`, or the only one there whose id begins so.

    Raises:
        SessionNotFoundError: There is none in the trash.
        InvalidError: There are several; the remedy names them.
    """
    candidates = await hub.sessions.find_prefix(prefix, trashed=True)
    if not candidates:
        raise SessionNotFoundError(
            f"there is no session {prefix!r} in the trash", remedy="`alcove list --status trashed` shows what is"
        )
    return _only(prefix, candidates)


def _only(prefix: str, candidates: list[Session]) -> Session:
    if candidates[0].id != prefix and len(candidates) > 1:
        names = ", ".join(one.id for one in candidates)
        raise InvalidError(f"{prefix!r} begins several ids", field="session_id", remedy=f"give more of one: {names}")
    return candidates[0]


def _place(found: Settings) -> str:
    if found.database.startswith(_SQLITE):
        return found.database.removeprefix(_SQLITE)
    return found.database if found.database.startswith("memory:") else f"{found.base}/.alcove"
