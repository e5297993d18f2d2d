"""The trash keeps its contract on every database."""

from __future__ import annotations

from alcove.testing.contract.trash import TrashContract


class TestTrash(TrashContract):
    pass
