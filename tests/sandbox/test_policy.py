"""What may be granted at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from alcove.errors import ConfigurationError, InvalidError
from alcove.sandbox.policy import Policy
from alcove.sandbox.system import SYSTEM


def policy(**changes: Any) -> Policy:
    settings: dict[str, Any] = {"argv": ("true",), "env": {}, "cwd": "/srv", "write": (), **changes}
    return Policy(**settings)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """A base with a workspace, a home folder of Alcove, and tools beside them."""
    for name in ("base/own", "base/other", "alcove/db", "tools"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "alias").symlink_to(tmp_path / "base")
    return {name: str(tmp_path / name) for name in ("base", "base/own", "base/other", "alcove", "tools", "alias")} | {
        "above": str(tmp_path)
    }


def hidden(places: dict[str, str]) -> tuple[str, ...]:
    return (places["base"], places["alcove"])


def test_a_run_gets_its_own_trees_and_further_tools(places: dict[str, str]) -> None:
    own = places["base/own"]
    policy(write=(own,), read=(places["tools"], f"{own}/.venv"), hide=hidden(places)).check()


@pytest.mark.parametrize("path", ["base", "base/other", "alcove", "above", "alias"])
def test_nothing_hidden_is_granted_for_reading(places: dict[str, str], path: str) -> None:
    with pytest.raises(ConfigurationError, match="would show") as refused:
        policy(write=(places["base/own"],), read=(places[path],), hide=hidden(places)).check()
    assert refused.value.remedy


@pytest.mark.parametrize("path", ["base", "alcove", "above", "alias"])
def test_a_tree_of_its_own_may_lie_in_the_base_but_not_be_or_hold_it(places: dict[str, str], path: str) -> None:
    with pytest.raises(ConfigurationError, match="would show"):
        policy(write=(places[path],), hide=hidden(places)).check()


@pytest.mark.parametrize("folder", [path for path in SYSTEM if os.path.exists(path)])
def test_a_base_that_every_run_could_read_is_refused(folder: str) -> None:
    with pytest.raises(ConfigurationError, match="would show"):
        policy(hide=(f"{folder}/alcove/sessions",)).check()


@pytest.mark.parametrize(
    "path", ["relative", "/", "/srv/../etc", "/srv/", "/srv//x", "", "/proc", "/proc/1", "/dev/sda"]
)
def test_a_path_has_to_be_absolute_and_plain(path: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be granted"):
        policy(read=(path,)).check()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("argv", ()),
        ("argv", ("",)),
        ("argv", ("a", "b\0")),
        ("env", {"A": "\0"}),
        ("env", {"A=": ""}),
        ("env", {"": ""}),
    ],
)
def test_what_no_program_can_be_given_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidError):
        policy(**{field: value}).check()


def test_a_tree_that_a_leased_uid_cannot_get_to_is_refused_with_the_remedy(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "own").mkdir(parents=True)
    closed.chmod(0o700)
    tree = str(closed / "own")
    with pytest.raises(ConfigurationError, match="lets only its owner pass") as refused:
        policy(write=(tree,), uid=1_879_047_001).check_reach("landlock")
    assert "chmod o+x" in refused.value.remedy
    policy(write=(tree,), uid=1_879_047_001).check_reach("userns")
    policy(write=(tree,)).check_reach("landlock")


def test_a_view_has_no_accounts_but_the_runs_own(tmp_path: Path) -> None:
    plan = policy(write=(str(tmp_path),), env={"HOME": "/a:b\nroot::0:0"}, uid=1234).plan("userns")
    users = [one.split(":") for one in plan["files"]["/etc/passwd"].splitlines()]
    assert [(user[0], user[2], len(user)) for user in users] == [
        ("root", "0", 7),
        ("alcove", "1234", 7),
        ("nobody", "65534", 7),
    ]


def test_names_and_words_that_are_not_utf_8_survive(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    plan = policy(argv=("echo", odd), env={"ODD": odd}).plan("userns")
    assert plan["argv"] == ["echo", odd]
