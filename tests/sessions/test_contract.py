"""Sessions keep their contract on every database."""

from __future__ import annotations

from alcove.testing.contract.sessions import SessionsContract


class TestSessions(SessionsContract):
    pass
