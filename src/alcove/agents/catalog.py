"""The agents of an installation, by name: those that come with Alcove, those of `alcove.toml`, those of code."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from alcove.agents.base import AgentInfo
from alcove.agents.command import CommandAgent
from alcove.agents.function import Function, FunctionAgent
from alcove.agents.secrets import SecretInfo, Secrets
from alcove.agents.table import CommandTable
from alcove.errors import AgentNotFoundError, AlreadyExistsError, ConfigurationError
from alcove.rights.model import Rights
from alcove.settings.model import Table
from alcove.settings.parsing import nearest

Agent: TypeAlias = CommandAgent | FunctionAgent

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PRESETS: Final = Path(__file__).with_name("presets")


class Catalog:
    """Finds agents by name. Reading tables is all or nothing: one that cannot work refuses the whole.

    Attributes:
        secrets: Where the values are that agents are given by name.
    """

    def __init__(
        self,
        tables: Mapping[str, Table] | None = None,
        *,
        secrets: Mapping[str, Table] | None = None,
        file: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Build the agents of `tables` and of the presets.

        Args:
            tables: `[agents.NAME]` as written (`Settings.agents`). One with the name of a preset changes only the keys
                that it has.
            secrets: `[secrets]` as written (`Settings.secrets`).
            file: Where they were written (`Settings.file`): relative paths in them are relative to its folder.
            environ: The server's environment; the process's own when None.

        Raises:
            ConfigurationError: A table has an unknown key or a value that cannot work; `field` names it.
        """
        self._folder = file.parent if file else Path.cwd()
        self._environ = os.environ if environ is None else environ
        self._agents: dict[str, Agent] = {}
        try:
            self.secrets = Secrets(secrets or {}, folder=self._folder, environ=self._environ)
        except ConfigurationError as error:
            raise _located(error, file) from error
        written = {path.stem: tomllib.loads(path.read_text("utf-8")) for path in _PRESETS.glob("*.toml")}
        for name, table in (tables or {}).items():
            written[name] = {**written.get(name, {}), **table}
        for name, table in written.items():
            try:
                self._agents[_checked(name)] = self._command_agent(name, table)
            except ConfigurationError as error:
                raise _located(error, file) from error

    def __contains__(self, name: str) -> bool:
        return name in self._agents

    def get(self, name: str) -> Agent:
        """Return the agent called `name`.

        Raises:
            AgentNotFoundError: There is none; the remedy names those there are.
        """
        agent = self._agents.get(name)
        if agent is None:
            raise AgentNotFoundError(
                f"there is no agent {name[:64]!r}", field="agent", remedy=nearest(name[:64], self._agents)
            )
        return agent

    def register(self, name: str, function: Function, *, description: str = "", declared: Rights | None = None) -> None:
        """Add a function agent. It is trusted code in this process, and runs there.

        Args:
            name: What it is called.
            function: What answers.
            description: One sentence.
            declared: What its runs may be granted at most (`alcove.bound`); by default the network of this process,
                and whatever else a caller asks for.

        Raises:
            AlreadyExistsError: An agent has that name.
            ConfigurationError: It is no name of an agent.
        """
        if _checked(name) in self._agents:
            raise AlreadyExistsError(f"there is an agent {name!r} already", field="name", remedy="choose another name")
        self._agents[name] = FunctionAgent(name, function, description=description, declared=declared)

    def describe(self) -> list[AgentInfo]:
        """Return every agent, by name; programs are looked for, not run."""
        return [agent.info() for _, agent in sorted(self._agents.items())]

    def describe_secrets(self) -> list[SecretInfo]:
        """Return every secret that is declared or that an agent names, by name; no value is shown."""
        return self.secrets.describe(
            name for agent in self._agents.values() if isinstance(agent, CommandAgent) for name in agent.secrets
        )

    def _command_agent(self, name: str, table: Table) -> CommandAgent:
        known = CommandTable.__struct_fields__
        for key in table:
            if key not in known:
                raise ConfigurationError(
                    f"[agents.{name}]: unknown key {key!r}", field=f"agents.{name}.{key}", remedy=nearest(key, known)
                )
        try:
            decoded = msgspec.convert(table, CommandTable, str_keys=True)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at ")
            key = where.rpartition("$")[2].rstrip("`")
            raise ConfigurationError(
                f"[agents.{name}]{key}: {problem}", field=f"agents.{name}{key}", remedy="see docs/agents.md"
            ) from error
        return CommandAgent(name, decoded, folder=self._folder, environ=self._environ, secrets=self.secrets)


def _located(error: ConfigurationError, file: Path | None) -> ConfigurationError:
    return ConfigurationError(
        f"{file}: {error.message}" if file else error.message, field=error.field, remedy=error.remedy
    )


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name[:64]!r} is not a name of an agent",
            field=f"agents.{name[:64]}",
            remedy="use 1 to 64 letters, digits, '-' and '_', the first a letter or digit",
        )
    return name
