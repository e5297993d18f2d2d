from __future__ import annotations

from pathlib import Path

import pytest

from alcove.agents.base import AgentContext, Prompt
from alcove.agents.catalog import Catalog
from alcove.agents.command import CommandAgent
from alcove.errors import AgentNotFoundError, AlreadyExistsError, ConfigurationError


def upper(context: AgentContext) -> str:
    return context.message.upper()


def test_the_shell_is_there_without_a_file(environ: dict[str, str]) -> None:
    catalog = Catalog(environ=environ)
    (info,) = catalog.describe()
    assert (info.name, info.kind, info.available, info.network) == ("shell", "command", True, "none")
    assert info.program.endswith("/bash")
    assert info.description


def test_an_unknown_agent_names_the_nearest_one(environ: dict[str, str]) -> None:
    catalog = Catalog({"claude": {"command": ["claude"]}}, environ=environ)
    with pytest.raises(AgentNotFoundError, match="did you mean 'claude'"):
        catalog.get("cluade")
    with pytest.raises(AgentNotFoundError, match="known: claude, shell"):
        catalog.get("\x00" * 1000)


def test_a_table_with_the_name_of_a_preset_changes_only_its_own_keys(environ: dict[str, str]) -> None:
    agent = Catalog({"shell": {"timeout": "1h"}}, environ=environ).get("shell")
    assert isinstance(agent, CommandAgent)
    assert agent.timeout_s == 3600
    assert agent.invocation(Prompt(message="x")).argv[0].endswith("/bash")


def test_paths_are_relative_to_the_file(environ: dict[str, str], tmp_path: Path) -> None:
    table = {"command": ["fakes/q"], "read": ["data"]}
    agent = Catalog({"q": table}, file=tmp_path / "alcove.toml", environ=environ).get("q")
    assert isinstance(agent, CommandAgent)
    invocation = agent.invocation(Prompt(message="x"))
    assert (invocation.argv[0], invocation.read[0]) == (str(tmp_path / "fakes/q"), str(tmp_path / "data"))


@pytest.mark.parametrize(
    ("table", "field", "words"),
    [
        ({"comand": ["q"]}, "agents.it.comand", "did you mean 'command'"),
        ({}, "agents.it", "missing required field `command`"),
        ({"command": 1}, "agents.it.command", "Expected"),
        ({"command": ["q", 1]}, "agents.it.command[1]", "Expected"),
        ({"command": ["q"], "message": "argv"}, "agents.it.message", "argv"),
        ({"command": ["q"], "history": "3"}, "agents.it.history", "Expected"),
        ({"command": ["q"], "ansi": 1}, "agents.it.ansi", "Expected"),
        ({"command": ["q"], "network": "all"}, "agents.it.network", "all"),
        ({"command": ["q"], "explain": {"x": "y"}}, "agents.it.explain", "explain"),
        ({"command": ["q"], "strip": ["("]}, "agents.it.strip[0]", "position 0"),
    ],
)
def test_a_bad_table_names_file_table_and_key(
    environ: dict[str, str], table: dict[str, object], field: str, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Catalog({"it": table}, file=Path("/x/alcove.toml"), environ=environ)
    assert caught.value.message.startswith("/x/alcove.toml: [agents.it]")
    assert caught.value.field.startswith(field)
    assert words in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "x" * 65, "a b", "é"])
def test_a_name_that_cannot_be_one_is_refused(environ: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a name"):
        Catalog({name: {"command": ["q"]}}, environ=environ)
    with pytest.raises(ConfigurationError, match="not a name"):
        Catalog(environ=environ).register(name, upper)


def test_a_function_is_registered_once_and_described(environ: dict[str, str]) -> None:
    catalog = Catalog(environ=environ)
    catalog.register("upper", upper, description="Shouts")
    info = catalog.describe()[-1]
    assert (info.name, info.kind, info.program, info.description) == ("upper", "function", "", "Shouts")
    for taken in ("upper", "shell"):
        with pytest.raises(AlreadyExistsError):
            catalog.register(taken, upper)
