"""Grants and hosted runs keep their contract on every database."""

from __future__ import annotations

from alcove.testing.contract.grants import GrantsContract
from alcove.testing.contract.hosted import HostedContract


class TestGrants(GrantsContract):
    pass


class TestHosted(HostedContract):
    pass
