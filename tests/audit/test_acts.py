"""The acts that the code audits are those that the page tells of."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORM = re.compile(r"[a-z_]+\.[a-z_]+")


def _told() -> set[str]:
    """Acts in the table of docs/audit.md."""
    page = (ROOT / "docs" / "audit.md").read_text()
    [table] = re.findall(r"^\| act \| when \|\n(.*?)\n\n", page, re.DOTALL | re.MULTILINE)
    first_cells = [line.split("|")[1] for line in table.splitlines()]
    return {act for cell in first_cells for act in re.findall(r"`([a-z_]+\.[a-z_]+)`", cell)}


def _audited() -> set[str]:
    """Acts that stand in a call of `denied`, `record`, `_record`, `_audited` or `Act`, or in a table of acts."""
    found: set[str] = set()
    for path in (ROOT / "src" / "alcove").rglob("*.py"):
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node) in {"denied", "record", "_record", "_audited", "Act"}:
                given = [*node.args, *(one.value for one in node.keywords if one.arg == "act")]
                found |= {text for one in given for text in _texts(one)}
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_WITHDRAWN":
                found |= set(_texts(node.value))
    return {one for one in found if FORM.fullmatch(one)}


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _texts(node: ast.AST) -> list[str]:
    return [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]


def test_the_page_tells_of_every_act_and_of_no_other() -> None:
    assert len(_audited()) > 20
    assert _audited() == _told()
