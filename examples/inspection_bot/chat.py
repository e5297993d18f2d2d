"""A terminal chat with the inspection bot. `photo FILE` sends a photo; every other line is what you say."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tomllib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import alcove
from alcove.dialogs.loading import load
from alcove.dialogs.model import Definition
from bot import DIALOG, DIALOG_FILE, Bot, Finding

_ALARMS = ("smoke", "water", "door")


async def analyse(photo: str, history: Sequence[alcove.Message]) -> Finding:
    """Stand in for a vision model: take the photo for what its name says. A model would be given `history` too."""
    alarm = next((alarm for alarm in _ALARMS if alarm in Path(photo).name.lower()), "none")
    return Finding("I see nothing unusual." if alarm == "none" else f"I see a {alarm} alarm.", alarm)


async def open_order(alarm: str, place: str) -> str:
    """Stand in for a ticket system: make a number of alarm and place."""
    return f"WO-{sum((alarm + place).encode()) % 10_000:04d}"


def definition(wait: str | None) -> Definition:
    """Return the dialog; with `wait` one that waits that long and no longer, to see what happens then."""
    if wait is None:
        return DIALOG
    document: dict[str, Any] = tomllib.loads(DIALOG_FILE.read_text())
    document["name"] = f"inspection-{wait}"
    for state in document["states"].values():
        if "timeout" in state:
            state["timeout"]["after"] = wait
    return load(document)


async def lines() -> AsyncIterator[str]:
    """Yield lines of standard input, without blocking the loop."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield line.strip()


async def main(user: str, wait: str | None) -> None:
    """Chat until the end of standard input."""
    async with alcove.open() as hub:
        bot = Bot(hub, analyse=analyse, open_order=open_order, definition=definition(wait))
        others = [
            asyncio.create_task(bot.tell(lambda who, text: print(f"bot to {who}: {text}", flush=True))),
            asyncio.create_task(bot.watch()),
        ]
        async for line in lines():
            word, _, photo = line.partition(" ")
            if word == "photo" and photo:
                print("bot:", await bot.hear(user, f"[photo {photo}]", photo=photo), flush=True)
            elif line:
                print("bot:", await bot.hear(user, line), flush=True)
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--user", default="ana", help="who is chatting")
    parser.add_argument("--wait", help="how long the bot waits for an answer, e.g. 5s")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.user, arguments.wait))
