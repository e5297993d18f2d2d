"""Messages keep their contract on every database."""

from __future__ import annotations

from alcove.testing.contract.content import ContentContract
from alcove.testing.contract.messages import MessagesContract
from alcove.testing.contract.windows import WindowsContract


class TestMessages(MessagesContract):
    pass


class TestWindows(WindowsContract):
    pass


class TestContent(ContentContract):
    pass
