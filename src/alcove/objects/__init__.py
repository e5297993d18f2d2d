"""Objects: bytes by their SHA-256, each kept once, for as long as something refers to it."""

from __future__ import annotations
