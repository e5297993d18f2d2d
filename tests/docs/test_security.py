"""What the pages on security name is there: each risk, each test, each file."""

from __future__ import annotations

import ast
import re

import pytest

from docs.pages import ROOT

PAGES = (ROOT / "SECURITY.md", *sorted((ROOT / "docs" / "security").glob("*.md")), ROOT / "docs" / "audit.md")
NAMED = re.compile(r"`((?:tests|src)/[\w/.]+\.py)::(\w+)`")
FILES = re.compile(r"`((?:tests|src)/[\w/.]+\.py)`")
OWASP = (ROOT / "docs" / "security" / "owasp-agentic.md").read_text()
ATTACKS = (ROOT / "docs" / "security" / "attacks.md").read_text()
RISKS = [f"ASI{number:02}" for number in range(1, 11)]


def _functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_test_that_a_page_names_exists() -> None:
    named = {found for page in PAGES for found in NAMED.findall(page.read_text())}
    assert len(named) > 40
    assert [one for one in sorted(named) if one[1] not in _functions(one[0])] == []
    assert "test_that_nobody_wrote" not in _functions("tests/docs/test_security.py"), "the control"


def test_every_file_that_a_page_names_exists() -> None:
    assert [path for page in PAGES for path in FILES.findall(page.read_text()) if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("risk", RISKS)
def test_every_risk_has_a_section_and_tests(risk: str) -> None:
    [section] = re.findall(rf"^## {risk}: .*?(?=^## |\Z)", OWASP, re.DOTALL | re.MULTILINE)
    assert len(NAMED.findall(section)) >= 3


def test_every_case_of_an_attack_is_in_the_page_with_its_tests() -> None:
    rows = re.findall(r"^\| (\d+)(?: to (\d+))? \|.*\| (.*) \|$", ATTACKS, re.MULTILINE)
    cases = [number for first, last, _ in rows for number in range(int(first), int(last or first) + 1)]
    assert cases == list(range(1, 57))
    assert [first for first, last, where in rows if not (last or NAMED.search(where) or "in the table" in where)] == []


def test_a_contract_that_a_page_names_is_run_on_every_database() -> None:
    """A contract is a class in the package: naming one of its tests says nothing unless a test file subclasses it."""
    named = {path for page in PAGES for path, _ in NAMED.findall(page.read_text()) if path.startswith("src/")}
    assert named
    taken = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for path in named:
        module = path.removeprefix("src/").removesuffix(".py").replace("/", ".")
        assert f"from {module} import" in taken, path
