"""Settings: where each comes from, and what it may be."""

from __future__ import annotations
