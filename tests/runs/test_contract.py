"""Grants keep their contract on every database."""

from __future__ import annotations

from alcove.testing.contract.grants import GrantsContract


class TestGrants(GrantsContract):
    pass
