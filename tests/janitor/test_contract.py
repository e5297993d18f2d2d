"""The janitor keeps its contract on every database."""

from __future__ import annotations

from alcove.testing.contract.janitor import JanitorContract


class TestJanitor(JanitorContract):
    pass
