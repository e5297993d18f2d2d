"""What every database must do, as classes of tests.

Subclass each in a test file of your own, and give a `database` fixture that opens an empty, migrated database.
They need pytest, pytest-asyncio (`asyncio_mode = "auto"`) and hypothesis.
"""

from __future__ import annotations
