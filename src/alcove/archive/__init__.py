"""Bringing in what other programs kept."""

from __future__ import annotations
