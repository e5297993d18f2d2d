"""What tests Alcove, for us and for anyone who extends it: contract suites, clocks, faults and the state machine."""

from __future__ import annotations
