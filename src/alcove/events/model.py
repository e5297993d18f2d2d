"""An event, and the words for what can happen."""

from __future__ import annotations

from typing import Final

import msgspec

from alcove.clock import Micros
from alcove.values import Json

FINISHED: Final = "run.finished"  # always the last event of a run
GAP: Final = "gap"


class Event(msgspec.Struct, frozen=True):
    """One thing that happened in a run.

    Attributes:
        n: Its number, dense from 1 per run: what a stream resumes after.
        type: `run.queued run.started output message files run.finished`, or `gap` for events no longer kept.
        data: What happened; the shape follows from the type (docs/events.md).
        created_us: When, microseconds since the epoch.
    """

    n: int
    type: str
    data: dict[str, Json]
    created_us: Micros


class NewEvent(msgspec.Struct, frozen=True):
    """An event before it has a number."""

    type: str
    data: dict[str, Json]
