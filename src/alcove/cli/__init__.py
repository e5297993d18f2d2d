"""The command line: one file per noun, each a client of the hub. Results on stdout, messages on stderr."""

from __future__ import annotations
