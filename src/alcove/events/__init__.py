"""What happened in a run, in order: append, read, subscribe, resume."""

from __future__ import annotations
