"""Whether a program could call the server on loopback, where whoever calls is the administrator."""

from __future__ import annotations

from pathlib import Path

import pytest

import alcove.hub
from alcove.errors import ConfigurationError
from alcove.server.serving import check_reach
from alcove.settings.loading import load

LISTED = '[agents.cli]\ncommand = ["bash"]\nnetwork = {}\n'
HOST_AGENT = '[agents.cli]\ncommand = ["bash"]\nnetwork = "host"\n'


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (HOST_AGENT, "agents.cli.network"),
        (LISTED.format('["127.0.0.1:8080"]'), "agents.cli.network"),
        (LISTED.format('["x.org", "127.9.9.9"]'), "agents.cli.network"),
        (LISTED.format('["[::1]:8080"]'), "agents.cli.network"),
        (LISTED.format('["0.0.0.0:8080"]'), "agents.cli.network"),
        (LISTED.format('["[::ffff:127.0.0.1]:8080"]'), "agents.cli.network"),
        ('[sandbox]\nrung = "none"\n', "sandbox.rung"),
    ],
)
async def test_a_server_does_not_start_where_an_agent_could_administer_it(
    tmp_path: Path, text: str, field: str
) -> None:
    (tmp_path / "alcove.toml").write_text(text)
    async with alcove.hub.open(settings=load(tmp_path, {"ALCOVE_DATABASE": "memory://"}), folders=False) as hub:
        with pytest.raises(ConfigurationError, match="administrator") as caught:
            check_reach(hub)
    assert caught.value.field == field
    assert "ALCOVE_TRUST_HOST_AGENTS" in caught.value.remedy


@pytest.mark.parametrize("text", [HOST_AGENT, '[sandbox]\nrung = "none"\n'])
async def test_a_server_starts_there_when_its_operator_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "alcove.toml").write_text(text)
    environ = {"ALCOVE_DATABASE": "memory://", "ALCOVE_TRUST_HOST_AGENTS": "true"}
    async with alcove.hub.open(settings=load(tmp_path, environ), folders=False) as hub:
        assert check_reach(hub), "it is told which, so that it can be audited"


@pytest.mark.parametrize("hosts", ['["x.org", "localhost:8080"]', '["127.0.0.1:11434"]', '["10.0.0.1"]'])
async def test_a_list_without_the_servers_own_port_lets_it_start(tmp_path: Path, hosts: str) -> None:
    """What a name leads to on loopback is refused unless the address itself is listed."""
    (tmp_path / "alcove.toml").write_text(LISTED.format(hosts))
    async with alcove.hub.open(settings=load(tmp_path, {"ALCOVE_DATABASE": "memory://"}), folders=False) as hub:
        check_reach(hub)


async def test_a_server_runs_nothing_that_is_not_kept_off_the_network(tmp_path: Path) -> None:
    base = tmp_path / "sessions"
    base.mkdir()
    async with alcove.hub.open(settings=load(tmp_path, {"ALCOVE_DATABASE": "memory://"}), folders=False) as hub:
        check_reach(hub)
        assert "network" in (await hub.workshop.sandbox()).minimum
    async with alcove.hub.open(settings=load(tmp_path, {"ALCOVE_DATABASE": "memory://"}), folders=False) as hub:
        assert "network" not in (await hub.workshop.sandbox()).minimum
