"""Who is calling: keys, roles, and what each role may do."""

from __future__ import annotations
