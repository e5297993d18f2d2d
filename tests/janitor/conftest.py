"""The same installation as the tests of what the janitor uses."""

from __future__ import annotations

from lifecycle.conftest import folder, hub, place

__all__ = ["folder", "hub", "place"]
