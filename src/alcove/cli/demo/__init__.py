"""`alcove demo`: the story of the product, typed by a program in the place of a person, and checked line by line."""

from __future__ import annotations
