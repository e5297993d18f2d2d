"""Alcove as a peer of a wider session-store benchmark: `BENCH_PEERS=bench/yardstick.py`.

That benchmark gives each peer a `place` with a `folder`, and calls the coroutines below; this file needs nothing of
it but the names.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench.stores import Message, Ours, OursKeyed


class Alcove(Ours):
    """The library with its defaults."""

    packages = ("alcove", "apsw", "msgspec")
    needs_pg = False
    persistent = True
    lists_by_user = True
    reads_history = True
    inflight = 64
    limit = "one transaction per turn, group commit; a head, a turn and two message rows, and their indexes"

    def __init__(self, place: Any) -> None:
        super().__init__(place.folder)
        self.place = place

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {name: metadata.version(name) for name in cls.packages}

    async def release(self, handle: str) -> None:
        """Nothing is held."""

    async def last(self, handle: str, n: int) -> list[Message]:
        found: list[Message] = []
        before: int | None = None
        while len(found) < n:
            page = await self.messages.page(handle, before=before or 2**62, limit=min(n - len(found), 1000))
            found = [(message.role, message.text) for message in page.messages] + found
            before = page.next_before
            if before is None:
                break
        return found

    async def load(self, rows: Any) -> None:
        for user, sid, messages in rows:
            handle = await self.session(user, sid)
            for (_, said), (_, reply) in zip(messages[::2], messages[1::2], strict=True):
                await self.append(handle, said, reply)


class AlcoveKeyed(OursKeyed, Alcove):
    """The same, each turn with an idempotency key."""


Alcove.name, AlcoveKeyed.name = "alcove", "alcove-keyed"
PEERS = [Alcove, AlcoveKeyed]
