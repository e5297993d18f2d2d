"""Keys keep their contract on every database."""

from __future__ import annotations

from alcove.testing.contract.keys import KeysContract


class TestKeys(KeysContract):
    pass
