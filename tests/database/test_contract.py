"""What a driver promises, the same on every database."""

from __future__ import annotations

from alcove.testing.contract.drivers import DriverContract
from alcove.testing.contract.faults import FaultsContract


class TestDriver(DriverContract):
    pass


class TestFaults(FaultsContract):
    pass
