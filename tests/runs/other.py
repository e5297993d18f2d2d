"""A process of its own on an installation: it does what lines of JSON on its standard input say."""

# ruff: noqa: T201 - printing is how it answers

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from typing import Any

import msgspec

from alcove import limits
from alcove.agents.base import AgentContext
from alcove.errors import AlcoveError


async def _serve(folder: str) -> None:
    from alcove import hub as door

    lines = asyncio.StreamReader(limit=2**24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with door.open(workspaces=folder) as hub:
        print(json.dumps("ready"), flush=True)
        while line := await lines.readline():
            try:
                answer = await _obey(hub, *json.loads(line))
            except AlcoveError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            print(json.dumps(answer), flush=True)


async def _obey(hub: Any, name: str, *arguments: str) -> Any:
    if name == "create":
        return (await hub.sessions.create()).id
    if name == "delete":
        return msgspec.to_builtins(await hub.sessions.delete(*arguments, purge=True))
    if name in {"queue", "interrupt"}:
        session_id, *messages = arguments
        started = [await hub.runs.start(session_id, message, busy=name) for message in messages]
        return [run.id for run in started]
    if name == "wait_in":
        hub.agents.register("careful", _careful)
        return {"run_id": (await hub.runs.start(*arguments, "x", agent="careful")).id}
    answer = getattr(hub.runs, name)(*arguments)
    return msgspec.to_builtins(await answer if inspect.isawaitable(answer) else answer)


async def _careful(context: AgentContext) -> str:
    return (await context.ask("tool", "rm")).status


if __name__ == "__main__":
    setattr(limits, "LEASE_S", int(sys.argv[2]))  # noqa: B010 - a constant, and not here
    setattr(limits, "LEASE_RENEW_S", float(sys.argv[3]))  # noqa: B010
    asyncio.run(_serve(sys.argv[1]))
