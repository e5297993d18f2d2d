"""Who in this process waits for what happens in dialogs. What happens elsewhere is found by looking now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from typing import Final, final

from alcove import limits
from alcove.dialogs.model import Step

_TIMEOUTS: Final = ""  # what listeners to all sessions' time-outs wait under


@final
class Ear:
    """Hears that something has happened."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def forget(self) -> None:
        """Forget what was heard: what has happened until now is about to be read."""
        self._event.clear()

    def hear(self) -> None:
        """Hear something."""
        self._event.set()

    async def wait(self) -> None:
        """Wait for something to be heard, or `limits.EVENT_POLL_S`: other processes are not heard."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.EVENT_POLL_S):
                await self._event.wait()


@final
class Listeners:
    """All ears of one service."""

    def __init__(self) -> None:
        self._ears: dict[str, set[Ear]] = {}

    @contextlib.contextmanager
    def to(self, session_id: str) -> Generator[Ear]:
        """Listen to the dialog of a session for a while."""
        ear = Ear()
        self._ears.setdefault(session_id, set()).add(ear)
        try:
            yield ear
        finally:
            ears = self._ears[session_id]
            ears.discard(ear)
            if not ears:
                del self._ears[session_id]

    def to_timeouts(self) -> contextlib.AbstractContextManager[Ear]:
        """Listen to the time-outs of all sessions for a while."""
        return self.to(_TIMEOUTS)

    def tell(self, step: Step | None) -> None:
        """Let those hear who listen to a step; to nothing nobody listens."""
        if step is None or not self._ears:
            return
        for what in (step.session_id, *([_TIMEOUTS] if step.cause == "timeout" else [])):
            for ear in self._ears.get(what, ()):
                ear.hear()
