"""Dialogs keep their contract on every database."""

from __future__ import annotations

from alcove.testing.contract.dialogs import DialogsContract
from alcove.testing.contract.timeouts import TimeoutsContract


class TestDialogs(DialogsContract):
    pass


class TestTimeouts(TimeoutsContract):
    pass
