"""The HTTP door: one table of routes over the hub. Knows requests and answers, decides nothing about sessions."""

from __future__ import annotations
