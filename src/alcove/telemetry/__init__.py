"""What the server tells whoever operates it: log lines and metrics. Nothing leaves the machine by itself."""

from __future__ import annotations
