"""The hub: opens an installation, builds its services and closes them in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from alcove import ids
from alcove.agents.catalog import Catalog
from alcove.archive.service import Archive
from alcove.audit.keeping import Kept, KeyFile
from alcove.audit.model import Act
from alcove.audit.service import Audit
from alcove.clock import Clock, Micros, awake_s
from alcove.database.aside import AsideDatabase
from alcove.database.op import Database, Statement, Steps
from alcove.database.opening import open_database
from alcove.dialogs.service import Dialogs
from alcove.errors import ConfigurationError
from alcove.events.service import Events
from alcove.janitor.service import Janitor
from alcove.lifecycle.service import Lifecycle
from alcove.messages.service import Messages
from alcove.objects.service import Objects
from alcove.principals.service import Keys
from alcove.runs.reconciler import Reconciler
from alcove.runs.service import Runs
from alcove.runs.working import Workshop
from alcove.sandbox.limits import Limits
from alcove.sandbox.service import Sandbox
from alcove.sandbox.vector import DEFAULT_MINIMUM, GUARANTEES
from alcove.search.service import Search
from alcove.sessions.service import Sessions
from alcove.settings.loading import load
from alcove.settings.model import Settings
from alcove.state.service import State
from alcove.values import Json
from alcove.workspaces.base import installation as base_installation
from alcove.workspaces.changing import Quota
from alcove.workspaces.model import Usage
from alcove.workspaces.service import Workspaces

_PASSING = "memory-"  # begins the id of an installation in memory


class Alcove:
    """An open installation. The services are the truth; everything else is a client of them.

    Attributes:
        settings: The configuration in force.
        database: Where the rows are.
        installation: The id of this installation.
        sessions: Identity, hierarchy, listing, deletion.
        messages: Histories.
        dialogs: Declared state machines with slots, one in a session.
        audit: What was denied, and what was done with authority, keys and sessions.
        keys: Who may call the server, and as what.
        objects: The large parts of messages, by hash.
        state: Values by scope and key.
        search: Messages and titles by their words.
        events: What runs said.
        workspaces: Files of sessions; None when opened without.
        agents: Who can answer; `hub.agents.register` adds a function.
        runs: Executions of agents.
        janitor: Cleans up: what has expired, what the trash has kept for long enough, what belongs to nobody.
        archive: Exports sessions and imports them; brings in what other programs kept.
        workshop: What runs are prepared in; opens the sandbox.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        installation: str,
        workspaces: Workspaces | None,
        clock: Clock | None = None,
    ) -> None:
        self.settings: Settings = settings
        self.database = database
        self.installation = installation
        self.workspaces = workspaces
        self._required: frozenset[str] = frozenset()
        passing, folder = database.kind == "memory", _objects_path(settings)
        self.objects = Objects(database, folder / installation if passing else folder, passing=passing)
        self.messages = Messages(database, self.objects)
        self.dialogs = Dialogs(database, self.objects)
        self.state = State(database)
        self.search = _search(settings, database, self.objects)
        self.audit = Audit(database, installation, files=_audit_files(settings, passing=passing), clock=clock)
        if workspaces:
            workspaces.audit, workspaces.quota = self.audit, _quota(settings)
        self.keys = Keys(database, audit=self.audit)
        self.events = Events(database)
        self.agents = Catalog(settings.agents, secrets=settings.secrets, file=settings.file)
        self.workshop = Workshop(
            workspaces=workspaces,
            messages=self.messages,
            sandbox=self._open_sandbox,
            home=settings.home,
            hide=(*_hidden(settings), *self.agents.secrets.files),
            read=tuple(str(path) for path in settings.read),
            environ=os.environ,
            reconciler=Reconciler(database, workspaces=workspaces, home=settings.home),
            bounds=_limits(settings),
        )
        self.runs = self._open_runs()
        self.sessions = Lifecycle(
            database,
            messages=self.messages,
            runs=self.runs,
            dialogs=self.dialogs,
            workspaces=workspaces,
            forget=self._forget,
            ttl_s=settings.session_ttl_s,
            audit=self.audit,
        )
        self.janitor = Janitor(
            database,
            trash=self.sessions.trash,
            runs=self.runs,
            workspaces=workspaces,
            grace_s=settings.trash_grace_s,
            places=_places(settings) if workspaces else {},
            steady=clock.monotonic if clock else awake_s,
            audit=self.audit,
        )
        self.archive = Archive(database, self.sessions, self.messages, self.objects, workspaces, self.audit)

    def _open_runs(self) -> Runs:
        return Runs(
            self.database,
            sessions=Sessions(self.database),
            messages=self.messages,
            events=self.events,
            agents=self.agents,
            workshop=self.workshop,
            default_agent=self.settings.agent,
            audit=self.audit,
        )

    async def _forget(self, session_id: str) -> None:
        """Remove what is kept of a session besides its rows and folder."""
        await self.objects.release(session_id)
        await self.search.forget(session_id)

    async def probe(self) -> None:
        """Write a row and wait until it is durable: raises the DatabaseError that a real write would get."""
        await self.database.write(_installation, self.installation)

    def require(self, guarantee: str) -> None:
        """Add to the guarantees without which no program runs; before the first one does."""
        self._required |= {guarantee}

    async def _open_sandbox(self) -> Sandbox:
        minimum = self._required
        if self.settings.minimum is not None:
            minimum |= frozenset(self.settings.minimum)
        elif self.settings.rung != "none":
            minimum |= DEFAULT_MINIMUM
        if lacking := sorted(DEFAULT_MINIMUM - minimum):
            words: dict[str, Json] = {"rung": self.settings.rung, "not_required": ", ".join(lacking)}
            await self.audit.done(Act(act="sandbox.lowered", who="configuration", words=words))
        return await Sandbox.open(
            rung=self.settings.rung,
            minimum=minimum,
            canary=self.settings.base,
            installation=self.installation,
            cache=self.settings.home / "probes.json",
        )


@asynccontextmanager
async def open(  # noqa: A001 - `alcove.open` is the name that a newcomer guesses
    database: str | None = None,
    *,
    workspaces: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    clock: Clock | None = None,
    ttl_s: float | None = None,
    folders: bool | None = None,
) -> AsyncGenerator[Alcove]:
    """Open an installation; use it as `async with alcove.open() as hub`.

    Args:
        database: A URL: `sqlite:///path/to/file.db`, `memory://` or `postgresql://…`. Without it, the same default
            installation as `alcove serve` in this folder, with workspaces, as `alcove.toml` and `ALCOVE_*` say.
        workspaces: Folder of the workspaces, for a database named here; without it no folder is made.
        settings: The configuration, instead of the one found; then database, workspaces and ttl_s say nothing.
        clock: Gives `now` on SQLite.
        ttl_s: Idle time after which new sessions expire; the library's default is never.
        folders: Whether to open (and make) the workspaces; by default as said above.

    Raises:
        ConfigurationError: The configuration, the base folder or the database URL cannot be used.
        DatabaseError: The database cannot be opened.
        SchemaError: The database was written by a newer Alcove.
    """
    if settings is None:
        settings = _settings(database, workspaces, ttl_s)
    _check(settings)
    with_folders = (database is None or workspaces is not None) if folders is None else folders
    async with AsyncExitStack() as stack:
        if with_folders:
            _make_home(settings.home)
        opened = await open_database(settings.database, clock=clock)
        stack.push_async_callback(opened.close)
        installation = await opened.write(_installation, _fresh_id(opened, settings))
        places = None
        if with_folders:
            await _check_base(opened, settings, installation)
            places = Workspaces(
                opened,
                folder=settings.base,
                home=settings.home,
                installation=installation,
                leased_uids=os.geteuid() == 0,
            )
            stack.push_async_callback(places.close)
            await opened.write(_keep, "base", str(settings.base))
        hub = Alcove(settings, opened, installation, places, clock)
        for service in (hub.objects, hub.search, hub.audit, hub.runs):
            stack.push_async_callback(service.close)
        await hub.audit.checkpoint()
        await hub.runs.recover()
        if places:
            # Without the folders nothing could be moved: who opens only the rows leaves it as it is.
            await hub.sessions.trash.resume()
        for watch in _watches(hub):
            stack.callback(asyncio.create_task(watch()).cancel)
        yield hub


def _watches(hub: Alcove) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    """Return what goes on beside all else while it is open."""
    watches: list[Callable[[], Coroutine[Any, Any, None]]] = [hub.audit.watch, hub.runs.watch, hub.objects.watch]
    return [*watches, hub.search.follow] if hub.settings.search else watches


def _settings(database: str | None, workspaces: str | os.PathLike[str] | None, ttl_s: float | None) -> Settings:
    if database is None and workspaces is None:
        return load()
    overrides: dict[str, object] = {"session_ttl": f"{ttl_s}s" if ttl_s else "never"}
    if database is not None:
        overrides["database"] = database
    if workspaces is not None:
        overrides["base"] = os.fspath(workspaces)
    return load(overrides=overrides)


def _check(settings: Settings) -> None:
    """Refuse words of the configuration that only the services understand, before anything is made of them."""
    for name in settings.minimum or ():
        if name not in GUARANTEES:
            raise ConfigurationError(
                f"there is no guarantee {name!r}", field="sandbox.minimum", remedy=f"known: {', '.join(GUARANTEES)}"
            )
    _limits(settings)
    for path in settings.read:
        if not path.exists():
            raise ConfigurationError(
                f"{path}, which every run is to read, is not there",
                field="sandbox.read",
                remedy="make it, or take it out of [sandbox] read",
            )


def _limits(settings: Settings) -> Limits:
    return Limits().changed(settings.limits, where="sandbox.limits")


def _quota(settings: Settings) -> Quota:
    """Return what says how much a workspace may take, when files come from outside: as much as a run may fill."""
    bounds = _limits(settings)
    allowed = Usage(size_bytes=bounds.disk_bytes, files=bounds.disk_files)

    async def quota(session_id: str) -> Usage:
        del session_id
        return allowed

    return quota


def _fresh_id(database: Database, settings: Settings) -> str:
    """Return the id for a new installation. One whose rows are gone with the process may have its base again."""
    if database.kind != "memory":
        return ids.new_id()
    found = base_installation(str(settings.base)) or ""
    return found if found.startswith(_PASSING) else _PASSING + ids.new_id()


async def _check_base(database: Database, settings: Settings, installation: str) -> None:
    """Refuse a second base while the first one is there: its sessions' files would seem to be gone.

    A base that was moved, marker and all, is taken where it is now.
    """
    known = await database.read(_kept, "base")
    if known in {None, str(settings.base)} or base_installation(str(settings.base)) == installation:
        return
    if known and base_installation(known) == installation:
        raise ConfigurationError(
            f"the workspaces of this installation are in {known}, not in {settings.base}",
            field="base",
            remedy="set SESSIONS_BASE_DIR to that folder, or move it; for another installation set ALCOVE_HOME too",
        )


def _make_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"the folder {home} cannot be made: {error.strerror}",
            field="home",
            remedy="make it, for the user that runs Alcove, or name another with ALCOVE_HOME",
        ) from error


def _search(settings: Settings, database: Database, objects: Objects) -> Search:
    """Return the search; its index is beside a SQLite file, and on PostgreSQL in the database itself."""
    if database.kind == "postgres":
        return Search(database, database, objects)
    index = AsideDatabase(_index_path(settings) if database.kind == "sqlite" else ":memory:")
    return Search(database, index, objects, remove=index.remove)


def _index_path(settings: Settings) -> str:
    path = Path(settings.database.removeprefix("sqlite:///"))
    return str(path.with_name(f"{path.stem}.search{path.suffix}"))


def _objects_path(settings: Settings) -> Path:
    """Return the folder of objects: a SQLite file outside the home has its own beside it, whoever opens it where."""
    if settings.database.startswith("sqlite:///"):
        path = Path(settings.database.removeprefix("sqlite:///")).absolute()
        if not path.is_relative_to(settings.home.absolute()):
            return path.with_suffix(".objects")
    return settings.home / "objects"


def _audit_files(settings: Settings, *, passing: bool) -> KeyFile:
    """Return where the key of the audit is: in the home; of a SQLite file outside of it, beside that."""
    if passing:
        return KeyFile(None)
    if settings.database.startswith("sqlite:///"):
        path = Path(settings.database.removeprefix("sqlite:///")).absolute()
        if not path.is_relative_to(settings.home.absolute()):
            return KeyFile(path.parent, f"{path.stem}.audit")
    return KeyFile(settings.home)


def _hidden(settings: Settings) -> tuple[str, ...]:
    """Return what no run is ever granted."""
    paths = [settings.base, settings.home]
    if settings.database.startswith("sqlite:///"):
        paths += [
            Path(settings.database.removeprefix("sqlite:///")),
            Path(_index_path(settings)),
            _objects_path(settings),
        ]
        paths += Kept(_audit_files(settings, passing=False)).paths
    if settings.file is not None:
        paths.append(settings.file)
    return tuple(str(path) for path in paths)


def _places(settings: Settings) -> dict[str, Path]:
    """Return what lies where, for the report on disks."""
    places = {"base": settings.base, "home": settings.home}
    if settings.database.startswith("sqlite:///"):
        places["database"] = Path(settings.database.removeprefix("sqlite:///"))
    return places


def _kept(now: Micros, name: str) -> Steps[str | None]:
    """Return a fact about this installation."""
    rows = yield Statement("SELECT value FROM installation WHERE name = ?", (name,))
    return rows[0][0] if rows else None


def _keep(now: Micros, name: str, value: str) -> Steps[None]:
    """Remember a fact about this installation."""
    yield Statement(
        "INSERT INTO installation (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def _installation(now: Micros, fresh: str) -> Steps[str]:
    """Return the id of this installation, made on the first start."""
    rows = yield Statement(
        "INSERT INTO installation (name, value) VALUES ('id', ?) "
        "ON CONFLICT (name) DO UPDATE SET value = installation.value RETURNING value",
        (fresh,),
    )
    return rows[0][0]
