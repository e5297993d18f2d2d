"""Grants, hosted runs, approvals, queues and steering keep their contract on every database."""

from __future__ import annotations

from alcove.testing.contract.approvals import ApprovalsContract
from alcove.testing.contract.busy import QueueContract, SteeringContract
from alcove.testing.contract.grants import GrantsContract
from alcove.testing.contract.hosted import HostedContract


class TestGrants(GrantsContract):
    pass


class TestHosted(HostedContract):
    pass


class TestApprovals(ApprovalsContract):
    pass


class TestQueue(QueueContract):
    pass


class TestSteering(SteeringContract):
    pass
