"""Writes `src/alcove/sync/__init__.pyi` from the async classes: `make stubs`.

It opens a hub and goes through what that has, so that a new service, method or record needs no hand-work here. A class
with something to wait for becomes a class of the same name whose methods do not have to be awaited; every other type
stays what it is.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

import alcove
from alcove.hub import Alcove, open as open_hub
from alcove.sync.doors import Hub, is_async, public_methods

FOLDER = Path(inspect.getfile(alcove)).parent / "sync"
INTERNAL = {"database", "workshop"}  # attributes of the hub that are no part of the public surface
_HEAD = '''# Generated from the async classes by `make stubs`; tests/sync/test_stub.py says when it is out of date.
"""The blocking door: the hub for threads without an event loop (Flask, scripts, notebooks)."""
'''


class Stub:
    """The text of the stub, as it grows."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.names: dict[type, str] = {}
        self.waiting: list[type] = []
        self.classes: list[str] = []

    def write(self) -> str:
        """Return the whole text, unformatted."""
        self.names[Alcove] = "Alcove"
        self.classes.append(self._hub())
        while self.waiting:
            self.classes.append(self._class(self.waiting.pop(0)))
        opening = self._function("open", open_hub, method=False, returned="Alcove")
        parts = [_HEAD, "\n".join(sorted(self.imports)), '__all__ = ["open"]', *self.classes, opening]
        return "\n\n".join(parts) + "\n"

    # -- classes ---------------------------------------------------------------------------------------------------

    def _hub(self) -> str:
        lines = [_doc(Alcove)]
        for name, (kind, optional) in sorted(asyncio.run(_attributes()).items()):
            lines += _property(name, self._of(kind) + (" | None" if optional else ""))
        lines += [self._function(name, method) for name, method in public_methods(Alcove)]
        lines += [self._function(name, getattr(Hub, name)) for name in ("close", "__enter__", "__exit__")]
        return _class("Alcove", lines)

    def _class(self, kind: type) -> str:
        lines = [_doc(kind)]
        for name, place, text in _fields(kind):
            lines += _property(name, self._type(text, place, kind))
        for name, found in inspect.getmembers(kind, lambda member: isinstance(member, property)):
            if name[0] != "_":
                getter: Callable[..., Any] = found.fget
                lines += _property(name, self._type(getter.__annotations__["return"], getter, kind))
        lines += [self._function(name, method, kind) for name, method in public_methods(kind)]
        return _class(self._of(kind), lines)

    def _of(self, kind: type) -> str:
        """Return how a class is named in the stub; one that needs a door gets one."""
        if not is_async(kind):
            return self._imported(kind.__module__, kind.__qualname__)
        if kind not in self.names:
            taken = set(self.names.values())
            self.names[kind] = kind.__name__ if kind.__name__ not in taken else f"{_noun(kind)}{kind.__name__}"
            self.waiting.append(kind)
        return self.names[kind]

    # -- functions -------------------------------------------------------------------------------------------------

    def _function(
        self,
        name: str,
        function: Callable[..., Any],
        kind: type | None = None,
        *,
        method: bool = True,
        returned: str = "",
    ) -> str:
        signature = inspect.signature(function)
        parts: list[str] = []
        before = inspect.Parameter.POSITIONAL_OR_KEYWORD
        for number, parameter in enumerate(signature.parameters.values()):
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and before not in {
                inspect.Parameter.KEYWORD_ONLY,
                inspect.Parameter.VAR_POSITIONAL,
            }:
                parts.append("*")
            before = parameter.kind
            star = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
            text = star + parameter.name
            if not (method and number == 0):
                text += f": {self._type(parameter.annotation, function, kind, inward=True)}"
            if parameter.default is not inspect.Parameter.empty:
                text += f" = {_default(parameter.default)}"
            parts.append(text)
        returned = returned or self._type(signature.return_annotation, function, kind)
        return f"def {name}({', '.join(parts)}) -> {returned}:\n{textwrap.indent(_doc(function), '    ')}\n"

    def _type(self, text: str, function: object, kind: type | None, *, inward: bool = False) -> str:
        """Return an annotation as it is for the caller of a door."""
        tree = ast.parse(text, mode="eval").body
        blocking = _Blocking(self, function, {name for name, _ in public_methods(kind)} if kind else set(), inward)
        return ast.unparse(blocking.visit(tree))

    def _imported(self, module: str, name: str) -> str:
        if module == "builtins":
            return name
        above, _, last = module.rpartition(".")
        alias = module.replace(".", "_") if above else f"_{module}"
        alias = alias if alias[0] == "_" else f"_{alias}"
        self.imports.add(f"from {above} import {last} as {alias}" if above else f"import {module} as {alias}")
        return f"{alias}.{name}"


class _Blocking(ast.NodeTransformer):
    """Turns the names of an annotation into names of the stub."""

    def __init__(self, stub: Stub, function: object, shadowed: set[str], inward: bool) -> None:
        self._stub = stub
        self._names = _names(function)
        self._shadowed = shadowed
        self._inward = inward

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name = node.id
        if name not in self._names:
            if name in self._shadowed:
                self._stub.imports.add("import builtins as _builtins")
                return _expression(f"_builtins.{name}")
            return node
        module, known = self._names[name]
        if not self._inward:
            if (module, known) == ("collections.abc", "AsyncIterator"):
                module, known = "alcove.sync.doors", "BlockingIterator"
            elif (module, known) == ("collections.abc", "AsyncGenerator"):
                module, known = "contextlib", "AbstractContextManager"
        value = getattr(sys.modules.get(module) or __import__(module, fromlist=["_"]), known, None)
        if isinstance(value, type) and (value in self._stub.names or is_async(value)) and not self._inward:
            return _expression(self._stub._of(value))
        return _expression(self._stub._imported(module, known))

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        text = ast.unparse(node)
        root, _, rest = text.partition(".")
        module, known = self._names[root]
        full = f"{module}.{known}" if known else module
        return _expression(self._stub._imported(full, rest))


async def _attributes() -> dict[str, tuple[type, bool]]:
    """Return the public attributes of a hub: their classes, and whether some hubs have None there."""
    with tempfile.TemporaryDirectory() as folder:
        async with open_hub("memory://", workspaces=f"{folder}/base") as full, open_hub("memory://") as bare:
            return {
                name: (type(value), getattr(bare, name) is None)
                for name, value in vars(full).items()
                if name[0] != "_" and name not in INTERNAL
            }


def _fields(kind: type) -> Iterator[tuple[str, object, str]]:
    """Yield the fields of a record: name, the class that has it, and its annotation."""
    if issubclass(kind, msgspec.Struct):
        for name in kind.__struct_fields__:
            place = next(one for one in kind.__mro__ if name in vars(one).get("__annotations__", {}))
            yield name, place, vars(place)["__annotations__"][name]


def _names(place: object) -> dict[str, tuple[str, str]]:
    """Return what the names mean where a function or class was written: module, and name in it."""
    module = inspect.getmodule(inspect.unwrap(place) if callable(place) else place)
    assert module
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: (alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.TypeAlias if sys.version_info >= (3, 12) else ast.ClassDef):
            found[getattr(node.name, "id", node.name)] = (module.__name__, getattr(node.name, "id", node.name))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name) and target.col_offset == 0:
                    found[target.id] = (module.__name__, target.id)
    return found


def _noun(kind: type) -> str:
    return kind.__module__.split(".")[1].title()


def _default(value: object) -> str:
    return repr(value) if value is None or isinstance(value, bool | int | float | str) else "..."


def _doc(what: object) -> str:
    """Return the first line of a docstring: the rest is for who reads the async class, and changes often."""
    lines = (inspect.getdoc(what) or "").splitlines()
    return f'"""{lines[0]}"""' if lines else "..."


def _property(name: str, kind: str) -> list[str]:
    return [f"@property\ndef {name}(self) -> {kind}: ...\n"]


def _class(name: str, lines: list[str]) -> str:
    return f"class {name}:\n" + textwrap.indent("\n".join(lines), "    ")


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def texts() -> dict[Path, str]:
    """Return what `make stubs` writes: the stub, and where each of its names is at run time."""
    stub = Stub()
    text = stub.write()
    places = {name: f"{kind.__module__}:{kind.__qualname__}" for kind, name in stub.names.items()}
    names = f'''"""Generated by `make stubs`: the async class behind each class of `__init__.pyi`."""

from __future__ import annotations

from typing import Final

NAMES: Final = {dict(sorted(places.items()))}
'''
    return {
        path: _formatted(path, text)
        for path, text in {FOLDER / "__init__.pyi": text, FOLDER / "names.py": names}.items()
    }


def _formatted(path: Path, text: str) -> str:
    """Return the text as `make format` leaves it."""
    ruff = Path(sys.executable).with_name("ruff")
    for arguments in (["check", "--fix-only", "--quiet"], ["format"]):
        command = [ruff, *arguments, "--stdin-filename", path, "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text)
