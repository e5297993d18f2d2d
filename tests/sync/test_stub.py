"""The signatures of the blocking door are those of the async classes, whichever there are."""

from __future__ import annotations

from sync.stub import Stub, texts


def test_the_stub_is_up_to_date() -> None:
    stale = [path.name for path, text in texts().items() if path.read_text() != text]
    assert stale == [], "run `make stubs`"


def test_every_service_of_the_hub_is_in_it() -> None:
    text = Stub().write()
    for name in ("sessions", "messages", "runs", "workspaces", "events", "agents"):
        assert f"def {name}(self)" in text
    assert "async def" not in text
    assert "Coroutine" not in text
