"""Habits of the code that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys

from tidy.house import ROOT, modules, nodes, texts

FILE_LINES = 400
FUNCTION_LINES = 60
PURE_NAMES_OF_CLOCK = {"SECOND", "Micros", "instant", "micros", "seconds"}


def test_no_file_is_longer_than_its_budget() -> None:
    lengths = {name: len(texts()[name].splitlines()) for name in modules()}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}, "which noun is hiding?"


def test_no_function_is_longer_than_its_budget() -> None:
    functions = [*nodes(ast.FunctionDef), *nodes(ast.AsyncFunctionDef)]
    lengths = {f"{place} {node.name}": (node.end_lineno or 0) - node.lineno + 1 for place, node in functions}
    assert {name: lines for name, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_no_error_is_swallowed_whole() -> None:
    handlers = [place for place, node in nodes(ast.ExceptHandler) if _is_broad(node.type) and _is_idle(node.body)]
    suppressed = [
        place
        for place, node in nodes(ast.Call)
        if ast.unparse(node.func).endswith("suppress") and any(_is_broad(argument) for argument in node.args)
    ]
    assert handlers + suppressed == []


def _is_broad(kind: ast.expr | None) -> bool:
    caught = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(one is None or ast.unparse(one) in {"Exception", "BaseException"} for one in caught)


def _is_idle(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(statement, ast.Pass | ast.Continue | ast.Break)
        or (isinstance(statement, ast.Expr | ast.Return) and isinstance(statement.value, ast.Constant | None))
        for statement in body
    )


def test_rules_are_given_the_time() -> None:
    taken = [
        f"{place} {alias.name}"
        for place, node in nodes(ast.ImportFrom)
        if "/rules.py:" in place and node.module == "alcove.clock"
        for alias in node.names
        if alias.name not in PURE_NAMES_OF_CLOCK
    ]
    assert taken == []


def test_importing_alcove_loads_nothing_but_alcove_and_the_standard_library() -> None:
    program = (
        "import sys; bare = set(sys.modules); import alcove; print(*{n.split('.')[0] for n in set(sys.modules) - bare})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "src", capture_output=True, text=True, check=True, timeout=30
    )
    assert set(done.stdout.split()) - sys.stdlib_module_names == {"alcove"}
