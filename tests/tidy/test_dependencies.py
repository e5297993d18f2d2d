"""pyproject.toml, the locks and the page of reasons agree."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement

from tidy.house import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CORE: list[str] = PROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
GROUPS: dict[str, list[str]] = PROJECT["dependency-groups"]
LOCKS = {
    "run": CORE + EXTRAS["server"],
    "build": GROUPS["build"],
    "dev": CORE + EXTRAS["server"] + EXTRAS["postgres"] + GROUPS["test"] + GROUPS["check"],
    "bench": CORE + EXTRAS["server"] + GROUPS["bench"],
    "lock": GROUPS["lock"],
}


def _locked(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", text, re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_the_project_asks_for(lock: str) -> None:
    locked = _locked(lock)
    stale = [
        line
        for line in LOCKS[lock]
        if not Requirement(line).specifier.contains(locked.get(Requirement(line).name, "0"))
    ]
    assert stale == [], "run `make lock`"


@pytest.mark.parametrize("lock", ["build", "dev", "bench"])
def test_locks_agree_on_what_they_share(lock: str) -> None:
    run, other = _locked("run"), _locked(lock)
    assert {name for name in run.keys() & other.keys() if run[name] != other[name]} == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_a_hash_and_no_place(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    pins = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert [pin.split()[0] for pin in pins if "--hash=sha256:" not in pin] == []
    assert not re.search(r"://|^--", text, re.MULTILINE), "where packages come from is the installer's own matter"


def test_the_build_requirements_stand_in_one_place() -> None:
    assert PROJECT["build-system"]["requires"] == GROUPS["build"]


def test_every_dependency_has_its_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    asked = {Requirement(line).name for lines in LOCKS.values() for line in lines}
    assert {name for name in asked if f"**{name}**" not in page} == set()
