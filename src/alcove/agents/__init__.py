"""What answers a message: a description of a program, or a Python function. Nothing here starts a process."""

from __future__ import annotations
