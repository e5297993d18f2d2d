"""What touches several nouns at once: create with a folder, delete with processes, files and rows."""

from __future__ import annotations
