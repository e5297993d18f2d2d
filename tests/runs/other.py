"""A process of its own on an installation: it does what lines of JSON on its standard input say."""

from __future__ import annotations

import asyncio
import json
import sys

import msgspec

from alcove import limits


def _limit(lease_s: int, renew_s: float) -> None:
    vars(limits).update(LEASE_S=lease_s, LEASE_RENEW_S=renew_s)


async def _lines(folder: str) -> None:
    from alcove import hub as door
    from alcove.errors import AlcoveError

    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with door.open(workspaces=folder) as hub:
        commands = {
            "create": hub.sessions.create,
            "start": hub.runs.start,
            "get": hub.runs.get,
            "cancel": hub.runs.cancel,
            "reply": hub.runs.reply,
            "write": hub.workspaces.write if hub.workspaces else None,
        }
        print(json.dumps("ready"), flush=True)
        while line := await lines.readline():
            name, *arguments = json.loads(line)
            command = commands[name]
            assert command
            try:
                answer = msgspec.to_builtins(await command(*arguments)) if name != "create" else await _id(command())
            except AlcoveError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            print(json.dumps(answer), flush=True)


async def _id(creating: object) -> str:
    session = await creating  # pyright: ignore[reportGeneralTypeIssues]
    return session.id


if __name__ == "__main__":
    _limit(int(sys.argv[2]), float(sys.argv[3]))
    asyncio.run(_lines(sys.argv[1]))
