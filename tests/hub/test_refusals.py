"""Configurations that an installation refuses at its start, before anything is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import alcove.hub
from alcove.errors import ConfigurationError
from alcove.settings.loading import load


async def refusal(folder: Path, environ: dict[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        async with alcove.hub.open(settings=load(folder, environ)):
            pass
    assert caught.value.remedy
    return caught.value


async def test_a_base_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    base = tmp_path / "documents"
    base.mkdir()
    (base / "letter.txt").write_text("mine")
    error = await refusal(tmp_path, {"SESSIONS_BASE_DIR": str(base), "ALCOVE_HOME": str(tmp_path / "home")})
    assert "letter.txt" in error.message
    assert [file.name for file in base.iterdir()] == ["letter.txt"]


async def test_a_second_base_is_refused_while_the_first_is_there_and_taken_when_it_was_moved(tmp_path: Path) -> None:
    first, second, moved = tmp_path / "first", tmp_path / "second", tmp_path / "moved"
    home = {"ALCOVE_HOME": str(tmp_path / "home")}
    async with alcove.hub.open(settings=load(tmp_path, {**home, "SESSIONS_BASE_DIR": str(first)})) as hub:
        session = await hub.sessions.create()
    error = await refusal(tmp_path, {**home, "SESSIONS_BASE_DIR": str(second)})
    assert str(first) in error.message
    assert not second.exists()
    first.rename(moved)
    async with alcove.hub.open(settings=load(tmp_path, {**home, "SESSIONS_BASE_DIR": str(moved)})) as hub:
        assert (await hub.sessions.get(session.id)).id == session.id


async def test_an_installation_in_memory_may_have_its_base_again_but_no_other_one_s(tmp_path: Path) -> None:
    memory = load(tmp_path, {"ALCOVE_DATABASE": "memory://"})
    for _ in range(2):
        async with alcove.hub.open(settings=memory):
            pass
    await refusal(tmp_path, {})


@pytest.mark.parametrize(
    ("environ", "word"),
    [({"ALCOVE_SANDBOX_MINIMUM": "bogus"}, "bogus"), ({"ALCOVE_SANDBOX_READ": "/no/such/tools"}, "/no/such/tools")],
)
async def test_a_word_that_nobody_understands_is_refused_by_name(
    tmp_path: Path, environ: dict[str, str], word: str
) -> None:
    assert word in (await refusal(tmp_path, environ)).message
    assert list(tmp_path.iterdir()) == []
