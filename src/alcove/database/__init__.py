"""Where rows live: transactions as generators, and the drivers that run them."""

from __future__ import annotations
