"""Waiting on a condition, bounded, in place of sleeping for what is hoped to be long enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_STEP_S = 0.005


async def wait_until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: It did not in that time.
    """
    deadline = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not happen within {timeout_s} s")
        await asyncio.sleep(_STEP_S)
