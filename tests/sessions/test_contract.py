"""Sessions keep their contract on every database."""

from __future__ import annotations

from alcove.testing.contract.listing import ListingContract
from alcove.testing.contract.sessions import SessionsContract
from alcove.testing.contract.trees import TreesContract


class TestSessions(SessionsContract):
    pass


class TestListing(ListingContract):
    pass


class TestTrees(TreesContract):
    pass
