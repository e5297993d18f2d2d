"""The janitor keeps its contract on every database."""

from __future__ import annotations

from alcove.testing.contract.janitor import JanitorContract
from alcove.testing.contract.previews import PreviewContract


class TestJanitor(JanitorContract):
    pass


class TestPreviews(PreviewContract):
    pass
