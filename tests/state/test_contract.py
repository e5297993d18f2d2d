"""State keeps its contract on every database."""

from __future__ import annotations

from alcove.testing.contract.state import StateContract


class TestState(StateContract):
    pass
