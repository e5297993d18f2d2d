"""Search keeps its contract on every database."""

from __future__ import annotations

from alcove.testing.contract.search import SearchContract


class TestSearch(SearchContract):
    pass
