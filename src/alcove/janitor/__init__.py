"""What goes by itself: sweeps, their preview, and what is found that nobody knows of."""

from __future__ import annotations
