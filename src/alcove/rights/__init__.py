"""Rights: what may be done, and what is left of it within a bound."""

from __future__ import annotations
