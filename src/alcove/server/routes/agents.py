"""Who can answer."""

from __future__ import annotations

from typing import Final

import msgspec

from alcove.server.call import Call
from alcove.server.route import Route


class AgentView(msgspec.Struct, frozen=True, kw_only=True):
    """An agent.

    Attributes:
        name: Its name.
        kind: `command` or `function`.
        description: One sentence.
        program: What would be run, empty for a function.
        network: What it may reach: `none`, `host`, or a list of hosts.
        available: Whether a run could start; the program itself was not run.
        reason: Why not.
        default: Whether it answers when nobody is named.
    """

    name: str
    kind: str
    description: str
    program: str
    network: str | tuple[str, ...]
    available: bool
    reason: str
    default: bool


class AgentList(msgspec.Struct, frozen=True, kw_only=True):
    """All agents, by name.

    Attributes:
        agents: Each of them.
    """

    agents: list[AgentView]


class AgentQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How closely to look.

    Attributes:
        check: Run each agent's own check as well (`check` in its table), which may take some seconds.
    """

    check: bool = False


async def list_agents(call: Call, query: AgentQuery) -> AgentList:
    """List the agents of this installation; programs are looked for, and with `check` their own checks are run."""
    hub = call.hub
    infos = hub.agents.describe()
    if query.check:
        infos = [await hub.workshop.check(hub.agents.get(info.name)) for info in infos]
    default = hub.settings.agent
    return AgentList(agents=[AgentView(**msgspec.structs.asdict(info), default=info.name == default) for info in infos])


ROUTES: Final = (Route("GET", "/api/v1/agents", list_agents, permission="agents.read"),)
