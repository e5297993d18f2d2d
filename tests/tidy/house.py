"""The project's own files, as the guards see them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "alcove"

Node = TypeVar("Node", bound=ast.AST)


@cache
def texts() -> dict[str, str]:
    """Return every text file that is or may be committed, by its path.

    Goes by the plain patterns of .gitignore rather than by git, so that a copy without git is guarded too.
    """
    lines = (ROOT / ".gitignore").read_text().splitlines()
    ignored = [".git", *(line.rstrip("/") for line in lines if line and not line.startswith("#"))]
    return dict(_texts(ROOT, ignored))


def _texts(folder: Path, ignored: list[str]) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        name = str(path.relative_to(ROOT))
        if path.is_symlink() or any(fnmatch(f"/{name}" if "/" in rule else path.name, rule) for rule in ignored):
            continue
        if path.is_dir():
            yield from _texts(path, ignored)
        else:
            try:
                yield name, path.read_text()
            except UnicodeDecodeError:
                continue


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of each module of the package, by its path below the root."""
    return {name: ast.parse(text) for name, text in texts().items() if name.startswith("src/") and name.endswith(".py")}


def nodes(kind: type[Node]) -> Iterator[tuple[str, Node]]:
    """Yield every node of a kind in the package, with `file:line` to find it by."""
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield f"{name}:{getattr(node, 'lineno', 1)}", node
