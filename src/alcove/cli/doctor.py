"""`alcove doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import click
import msgspec

from alcove import __version__
from alcove.agents.base import AgentInfo
from alcove.agents.catalog import Catalog
from alcove.agents.secrets import SecretInfo
from alcove.cli import installation, options, output
from alcove.cli.histories import Histories, check_options
from alcove.clock import Micros
from alcove.database.migrating import migrations
from alcove.database.op import Statement, Steps
from alcove.errors import AgentUnavailableError, AlcoveError, ConfigurationError, DatabaseError, UnauthorizedError
from alcove.hub import Alcove, open as open_hub
from alcove.principals import oidc
from alcove.settings.model import Settings
from alcove.values import Json
from alcove.workspaces.base import Base, installation as installed

Section: TypeAlias = dict[str, Json]


@click.command(short_help="Say whether runs can start here, and what to do if not.")
@click.option("--histories", is_flag=True, help="Look at every history and every large part too.")
@click.option("--repair", is_flag=True, help="With --histories: make what a provider would refuse acceptable.")
@options.json
@installation.blocking
async def doctor(histories: bool, repair: bool, as_json: bool) -> None:
    """Say whether runs can start here, and what to do if not.

    Every rung is tried out, not looked up. Nothing is made: where there is no installation yet, the sandbox is tried
    in a temporary folder. The exit code is 0 when runs can start and 1 when not.

    With --histories it also looks for what a provider would refuse, in every session, and for lost large parts.
    """
    check_options(histories=histories, repair=repair)
    examination = Examination(installation.settings(), Histories() if histories else None, repair=repair)
    await examination.make()
    if as_json:
        output.write_json(examination.report())
    else:
        examination.write()
    if examination.problems:
        raise click.exceptions.Exit(output.ERROR)


class Examination:
    """What doctor finds about each part, and the problems that keep runs from starting."""

    def __init__(self, settings: Settings, histories: Histories | None = None, *, repair: bool = False) -> None:
        self.problems: list[AlcoveError] = []
        self._histories = histories
        self._repair = repair
        self._settings = settings
        self._installation: str | None = None
        self._keyed = False
        self._agents: list[AgentInfo] = []
        self._secrets: list[SecretInfo] = []
        self._sandbox: Section = {"asked": settings.rung}
        self._rungs: dict[str, str] = {}
        self._server: Section = {"state": "ok"}
        url = next(source.value for source in settings.origins() if source.name == "database")
        self._database: Section = {"url": str(url), "state": "failed"}
        self._folders: Section = {"base": str(settings.base), "home": str(settings.home), "state": "failed"}

    async def make(self) -> None:
        """Look at every part; what is wrong with one does not keep the others from being looked at."""
        parts = (
            self._examine_database,
            self._examine_folders,
            self._examine_sandbox,
            self._examine_agents,
            self._examine_server,
        )
        for part in parts:
            try:
                await part()
            except AlcoveError as error:
                self.problems.append(error)

    def report(self) -> Section:
        """Return everything as JSON."""
        return {
            "ok": not self.problems,
            "version": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()}",
            "sandbox": self._sandbox,
            "database": self._database,
            "folders": self._folders,
            "server": self._server,
            **({"histories": self._histories.report()} if self._histories else {}),
            "agents": [msgspec.to_builtins(agent) for agent in self._agents],
            "secrets": [msgspec.to_builtins(secret) for secret in self._secrets],
            "problems": [{"code": one.code, "error": one.message, "remedy": one.remedy} for one in self.problems],
        }

    def write(self) -> None:
        """Write everything for people; the problems go to stderr."""
        report = self.report()
        about = {name: str(report[name]) for name in ("version", "python", "system")}
        output.write_facts({**about, "runs": "cannot start" if self.problems else "can start"}, kind="alcove")
        output.write_facts(self._rungs, kind="sandbox")
        for kind, section in (("database", self._database), ("folders", self._folders)):
            output.write_facts(dict(_fact(name, value) for name, value in section.items()), kind=kind)
        if self._histories:
            self._histories.write()
        output.write_facts({name: str(value) for name, value in self._server.items()}, kind="server")
        agents = {one.name: _reaching(one) if one.available else f"unavailable: {one.reason}" for one in self._agents}
        output.write_facts(agents, kind="agents")
        output.write_facts({one.name: _told(one) for one in self._secrets}, kind="secrets")
        for problem in self.problems:
            output.complain(problem.message, problem.remedy)

    async def _examine_database(self) -> None:
        if not installation.exists(self._settings):
            memory = self._settings.database.startswith("memory:")
            self._database["state"] = "in memory" if memory else "none yet; `alcove serve` or `alcove create` makes one"
            return
        bare = msgspec.structs.replace(self._settings, agents={}, secrets={})
        async with open_hub(settings=bare, folders=False) as hub:
            self._installation = hub.installation
            self._keyed = await hub.keys.exist()
            self._database["schema"] = migrations()[-1].version
            self._database["durability"] = await hub.database.durability()
            if hub.database.kind == "sqlite":
                self._database["integrity"] = found = await hub.database.read(_quick_check)
                if found != "ok":
                    raise DatabaseError(f"the database is damaged: {found}", remedy="restore it from a backup")
            if self._histories:
                await self._histories.examine(hub, repair=self._repair)
                self.problems += self._histories.problems
        self._database["state"] = "ok"

    async def _examine_folders(self) -> None:
        base, home = self._settings.base, self._settings.home
        self._folders["free_bytes"] = shutil.disk_usage(_nearest(base)).free
        self._folders["home_free_bytes"] = shutil.disk_usage(_nearest(home)).free
        for place in (base, home):
            if not _writable(nearest := _nearest(place)):
                raise ConfigurationError(
                    f"{nearest} is not writable", remedy="give it to the user that runs Alcove, or choose another"
                )
        self._folders["installation"] = found = installed(str(base))
        if found:
            # What a start looks at; the id has to be the database's, where there is one.
            Base.open(str(base), self._installation or found, create=False).close()
        self._folders["state"] = "ok" if _nearest(base) == base else "none yet"

    async def _examine_sandbox(self) -> None:
        async with _probing(self._settings) as hub:
            sandbox = await hub.workshop.sandbox()
            self._sandbox["rung"] = sandbox.rung
            self._sandbox["minimum"] = [*sorted(sandbox.minimum)]
            self._sandbox["rungs"] = [msgspec.to_builtins(tried) for tried in sandbox.report()]
            self._sandbox["limits"] = {**sandbox.means}
            self._rungs["rung"] = f"{sandbox.rung} (asked for: {self._settings.rung})"
            for tried in sandbox.report():
                held = " ".join(name for name, holds in msgspec.structs.asdict(tried.vector).items() if holds)
                failed = "; ".join(f"not {name}: {', '.join(how)}" for name, how in tried.holes.items())
                said = "; ".join(part for part in (held and f"guarantees {held}", failed) if part)
                self._rungs[tried.rung] = said if tried.available else f"unavailable: {tried.failure}"
                self._rungs[f"{tried.rung} remedy"] = tried.remedy
            kept = {**sandbox.means}
            self._rungs["end of a run"] = f"by {kept.pop('end')}"
            self._rungs |= {f"limit {name}": f"kept by {means}" for name, means in kept.items()}
            sandbox.require()

    async def _examine_agents(self) -> None:
        catalog = Catalog(self._settings.agents, secrets=self._settings.secrets, file=self._settings.file)
        self._secrets = catalog.describe_secrets()
        async with _probing(self._settings) as hub:
            self._agents = [await hub.workshop.check(catalog.get(info.name)) for info in catalog.describe()]
        catalog.get(self._settings.agent)
        [default] = [info for info in self._agents if info.name == self._settings.agent]
        if not default.available:
            raise AgentUnavailableError(
                f"agent {default.name!r}, the default, cannot run: {default.reason}",
                field="agent",
                remedy="install its program, or name another with ALCOVE_AGENT",
            )

    async def _examine_server(self) -> None:
        """Say whether `serve` would take this configuration; runs from the command line do not depend on it."""
        try:
            from alcove.server.serving import check_default, check_reach
        except ModuleNotFoundError:
            self._server = {"state": "not installed", "remedy": "pip install 'alcove[server]'"}
            return
        trial = msgspec.structs.replace(self._settings, database="memory://")
        try:
            async with open_hub(settings=trial, folders=False) as hub:
                check_default(hub)
                provider = oidc.configured(self._settings)
                if not (provider or self._keyed):  # where nobody is trusted for being here
                    check_reach(hub)
            if provider:
                self._server["sign-ins"] = f"{await provider.check()} keys of {self._settings.oidc_issuer}"
        except ConfigurationError as error:
            self._server = {"state": f"would not start: {error.message}", "remedy": error.remedy}
        except UnauthorizedError:
            # It starts, and takes keys of its own meanwhile.
            self._server["sign-ins"] = f"the keys at {self._settings.oidc_jwks} cannot be read"
            self._server["remedy"] = "see that the address is right, and reachable from here"


@asynccontextmanager
async def _probing(settings: Settings) -> AsyncGenerator[Alcove]:
    """Open a hub that can only try the sandbox: in the real base, so far as there is one."""
    with tempfile.TemporaryDirectory(prefix="alcove-doctor-") as folder:
        # A uid of a session has to get through.
        os.chmod(folder, 0o711)
        real = _nearest(settings.base) == settings.base and _writable(settings.base)
        if real:
            # A doctor looks for himself; what he finds is what the next start goes by.
            (settings.home / "probes.json").unlink(missing_ok=True)
        trial = msgspec.structs.replace(
            settings,
            base=settings.base if real else Path(folder),
            home=settings.home if real else Path(folder),
            database="memory://",
            agents={},
        )
        async with open_hub(settings=trial, folders=False) as hub:
            yield hub


def _quick_check(now: Micros) -> Steps[str]:
    rows = yield Statement("PRAGMA quick_check(1)")
    return "; ".join(str(row[0]) for row in rows)


def _nearest(path: Path) -> Path:
    """Return the first folder that is there, on the way up."""
    return next(folder for folder in (path, *path.parents) if os.path.isdir(folder))


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _reaching(agent: AgentInfo) -> str:
    """Return an agent's program, and what it may reach when that is anything."""
    listed = isinstance(agent.network, tuple)
    network = f"the hosts {' '.join(agent.network)}" if listed else f"the {agent.network}'s"
    return agent.program if agent.network == "none" else f"{agent.program} (network: {network})"


def _told(secret: SecretInfo) -> str:
    return f"{secret.source}: ok" if secret.available else f"{secret.source}: {secret.reason}; {secret.remedy}"


def _fact(name: str, value: Json) -> tuple[str, str]:
    if isinstance(value, int) and name.endswith("_bytes"):
        return name.removesuffix("_bytes").replace("_", " "), output.size(value)
    return name, "" if value is None else str(value)
