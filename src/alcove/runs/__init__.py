"""Runs: one execution of an agent in a session, with its authority, its lease, its journal and its end."""

from __future__ import annotations
