"""What was denied and what was done with authority: rows that are added, chained, sealed, and never changed."""

from __future__ import annotations
