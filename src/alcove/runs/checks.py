"""Whether agents' programs work: each one's own check, such as `q --version`, run confined like a run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec

from alcove import ids, limits
from alcove.agents.base import AgentInfo, Invocation
from alcove.agents.catalog import Agent
from alcove.agents.command import CommandAgent
from alcove.errors import AlcoveError
from alcove.runs.place import RunFolder, environment
from alcove.sandbox.policy import Policy
from alcove.sandbox.service import Sandbox


async def check(
    agent: Agent,
    sandbox: Sandbox,
    *,
    home: Path,
    environ: Mapping[str, str],
    hide: tuple[str, ...],
    read: tuple[str, ...],
) -> AgentInfo:
    """Return an agent, available only when its program was found and its check, where it declares one, succeeded.

    The check belongs to no session: it gets a folder that is gone afterwards, and no network but its agent's.
    """
    info = agent.info()
    if not isinstance(agent, CommandAgent) or not info.available:
        return info
    try:
        sandbox.require(network=agent.network)
        invocation = agent.check_invocation()
        if invocation is None:
            return info
        reason = await _run(invocation, sandbox, home=home, environ=environ, hide=hide, read=read)
    except AlcoveError as error:
        reason = str(error)
    return msgspec.structs.replace(info, available=not reason, reason=reason)


async def _run(
    invocation: Invocation,
    sandbox: Sandbox,
    *,
    home: Path,
    environ: Mapping[str, str],
    hide: tuple[str, ...],
    read: tuple[str, ...],
) -> str:
    """Run a check and return why it failed, `''` when it succeeded."""
    name = ids.new_id()
    folder = RunFolder(home, name)
    readable = (*read, *invocation.read, *invocation.needs)
    env = environment(
        environ, invocation.env, session_id=name, run_id=name, home=folder.tmp, folder=folder, readable=readable
    )
    with sandbox.spare_uid() as uid:
        await asyncio.to_thread(folder.make, owner=uid)
        try:
            policy = Policy(
                argv=invocation.argv,
                env=env,
                cwd=str(folder.tmp),
                write=(str(folder.path),),
                read=readable,
                network=invocation.network,
                nest=invocation.nest,
                uid=uid,
                hide=hide,
            )
            process = await sandbox.spawn(policy, stdin=invocation.stdin)
            said = bytearray()
            try:
                async with asyncio.timeout(invocation.timeout_s):
                    async for _, chunk in process.output():
                        said += chunk[: limits.KIB - len(said)]
                    ended = await process.wait()
            except TimeoutError:
                return f"{Path(invocation.argv[0]).name}: no answer to its check within {invocation.timeout_s} s"
            finally:
                await process.kill()
        finally:
            await asyncio.to_thread(folder.remove)
    if ended.code == 0:
        return ""
    first = said.decode(errors="replace").strip().partition("\n")[0]
    how = f"code {ended.code}" if ended.code is not None else f"signal {ended.signal}"
    return f"{Path(invocation.argv[0]).name}: its check ended with {how}" + (f": {first}" if first else "")
