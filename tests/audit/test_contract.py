"""The audit keeps its contract on every database."""

from __future__ import annotations

from alcove.testing.contract.audit import AuditContract
from alcove.testing.contract.denials import DenialsContract


class TestAudit(AuditContract):
    pass


class TestDenials(DenialsContract):
    pass
