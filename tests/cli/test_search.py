"""`alcove search` and `alcove doctor --histories`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import alcove
from alcove.messages.content import Part
from alcove.messages.model import Draft
from cli.conftest import Run, either, loaded


@pytest.fixture
def filled(run: Run, place: Path) -> str:
    """A session with something to find and something to repair."""
    run("create", "--id", "a", "--user", "ana", "--title", "Harbour")

    async def fill() -> None:
        async with alcove.open() as hub:
            call: Part = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            drafts = [
                Draft("user", "the pump is 坏了"),
                Draft("assistant", "", tool_calls=[call]),
                Draft("user", "well?"),
            ]
            await hub.messages.append("a", drafts)
            await hub.search.catch_up()

    asyncio.run(fill())
    return "a"


@either
@pytest.mark.usefixtures("filled")
def test_messages_and_titles_are_found(run: Run) -> None:
    for words in (["pump"], ["the", "PUMP"], ["坏了"], ["harb*"]):
        [hit] = loaded(run("search", *words, "--user", "ana", "--json"))["hits"]
        assert hit["session_id"] == "a"
        assert hit["seq"] == (0 if words == ["harb*"] else 1)
    assert run("search", "pump").stdout.split("\t")[:4] == ["a", "1", "user", "the pump is 坏了"]
    assert run("search", "pump", "--user", "ben").stdout == ""
    assert "nothing was found" in run("search", "elsewhere").stderr
    run("search", "!!", exit_code=2)
    run("search", exit_code=2)


@pytest.mark.usefixtures("filled")
def test_doctor_finds_and_repairs_histories(run: Run) -> None:
    found = loaded(run("doctor", "--histories", "--json", exit_code=1))
    assert found["histories"]["kinds"] == {"orphan_call": 1}
    assert "--repair" in found["problems"][0]["remedy"]
    repaired = loaded(run("doctor", "--histories", "--repair", "--json"))
    assert repaired["histories"]["damaged"] == 1
    assert loaded(run("doctor", "--histories", "--json"))["histories"]["damaged"] == 0
    assert "with faults" in run("doctor", "--histories").stdout
    run("doctor", "--repair", exit_code=2)
