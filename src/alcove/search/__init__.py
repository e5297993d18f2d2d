"""Search: texts of messages and titles of sessions, found by their words, in an index that can be made again."""

from __future__ import annotations
