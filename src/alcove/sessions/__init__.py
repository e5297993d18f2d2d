"""Sessions: identity, hierarchy, status, listing."""

from __future__ import annotations
