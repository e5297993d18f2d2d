"""Messages and turns: the append-only history of a session, and the part of it that a model is shown."""

from __future__ import annotations
