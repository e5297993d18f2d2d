"""Files of a workspace: what it costs that no path leads out of it."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable

from alcove.workspaces.base import Base

Numbers = dict[str, float]
_FILES, _FOLDERS, _READS, _ROUNDS = 10_000, 100, 2000, 15


def files() -> Numbers:
    """One small file read by path over `open` and `read`; a listing of 10,000 files in 100 folders, milliseconds."""
    with tempfile.TemporaryDirectory() as folder, Base.open(f"{folder}/base", "bench") as base:
        base.create("session")
        root = f"{folder}/base/session"
        for number in range(_FILES):
            at = f"{root}/folder{number % _FOLDERS}"
            os.makedirs(at, exist_ok=True)
            with open(f"{at}/file{number}.txt", "wb") as file:
                file.write(b"x" * 1000)
        with base.tree("session") as tree:

            def bare() -> None:
                with open(f"{root}/folder7/file7.txt", "rb") as file:
                    assert len(file.read()) == 1000

            def ours() -> None:
                assert len(tree.read("folder7/file7.txt")) == 1000

            def listing() -> None:
                assert len(tree.list().files) == _FILES

            ratios = [_timed(ours, _READS) / _timed(bare, _READS) for _ in range(_ROUNDS)]
            listings = [_timed(listing, 1) for _ in range(_ROUNDS)]
    return {"read_ratio": statistics.median(ratios), "listing_ms": statistics.median(listings) * 1000}


def _timed(act: Callable[[], None], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        act()
    return time.perf_counter() - started
