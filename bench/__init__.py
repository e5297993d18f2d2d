"""How fast Alcove is, beside raw SQLite and the best complete peer, in one interleaved run: `make bench`."""

from __future__ import annotations
