"""Dialogs: declared state machines with slots, one at a time in a session."""

from __future__ import annotations
