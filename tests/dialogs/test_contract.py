"""Dialogs keep their contract on every database."""

from __future__ import annotations

from alcove.testing.contract.dialogs import DialogsContract


class TestDialogs(DialogsContract):
    pass
