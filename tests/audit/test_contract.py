"""The audit keeps its contract on every database."""

from __future__ import annotations

from alcove.testing.contract.audit import AuditContract


class TestAudit(AuditContract):
    pass
