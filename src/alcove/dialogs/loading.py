"""From what somebody wrote (TOML, JSON, or a dict in Python) to a checked definition; an error points at the line."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from alcove import limits
from alcove.dialogs.checking import check
from alcove.dialogs.document import Fault
from alcove.dialogs.model import Definition
from alcove.dialogs.parsing import parse
from alcove.dialogs.places import Places, json_places, line_of, toml_places
from alcove.errors import DefinitionError

_LINE = re.compile(r"at line (\d+)")


def load(source: str | os.PathLike[str] | Mapping[str, Any]) -> Definition:
    """Return a definition, checked.

    Args:
        source: The path of a `.toml` or `.json` file, or the document itself as a dict. A text with a line break in it
            is the document too: JSON when it begins with a brace, else TOML.

    Raises:
        DefinitionError: It cannot be read, or something is wrong with it. The message has the first faults, each on a
            line of its own: file, line, name, what is wrong.
    """
    definition, faults = examine(source)
    if definition is None or faults:
        raise refusal(faults)
    return definition


def examine(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Definition | None, list[str]]:
    """Return the definition, None when its form has faults, and every fault as a line of text."""
    if isinstance(source, Mapping):
        return _examined(dict(source), {}, "")
    text, name = _read(source)
    is_json = name.endswith(".json") if name else text.lstrip().startswith("{")
    label = name or "the definition"
    try:
        if is_json:
            document = json.loads(text, object_pairs_hook=_once)
            places = json_places(text)
        else:
            document = tomllib.loads(text)
            places = toml_places(text)
    except json.JSONDecodeError as error:
        return None, [f"{label}:{error.lineno}: not JSON: {error.msg}"]
    except tomllib.TOMLDecodeError as error:
        found = _LINE.search(str(error))
        return None, [f"{label}:{found[1] if found else 1}: not TOML: {error}"]
    except _TwiceError as error:
        return None, [f"{label}:{_line_of_second(text, str(error))}: the key {str(error)!r} stands twice in one object"]
    except RecursionError:
        return None, [f"{label}: is nested too deep"]
    return _examined(document, places, label)


def decoded(source: str) -> Definition:
    """Return a definition from its JSON, as it was stored."""
    definition, faults = parse(msgspec.json.decode(source))
    if definition is None:
        raise refusal([_told(fault, {}, "a stored definition") for fault in faults])
    return definition


def refusal(faults: Sequence[str]) -> DefinitionError:
    """Return the error for faults."""
    shown = faults[: limits.DIALOG_FAULTS]
    more = len(faults) - len(shown)
    return DefinitionError(
        "\n".join([*shown, *([f"and {more} more"] if more else [])]),
        field="definition",
        remedy="`alcove dialog check FILE` shows them all" if more else "",
        faults=len(faults),
    )


def _examined(document: object, places: Places, label: str) -> tuple[Definition | None, list[str]]:
    definition, faults = parse(document)
    if definition is not None:
        faults = check(definition)
    order = sorted(faults, key=lambda fault: line_of(places, fault.path) or 0)
    return definition, [_told(fault, places, label) for fault in order]


def _told(fault: Fault, places: Places, label: str) -> str:
    line = line_of(places, fault.path)
    where = f"{label}:{line}: " if line else f"{label}: " if label else ""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.path).lstrip(".")
    return f"{where}{path or 'the definition'}: {fault.text}"


def _read(source: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the text and its name; a text is its own."""
    if isinstance(source, str) and "\n" in source:
        text, name = source, ""
    else:
        name = os.fspath(source)
        try:
            with Path(name).open("rb") as file:
                data = file.read(limits.DIALOG_BYTES + 1)
            text = data.decode()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DefinitionError(
                f"{name[:200]} cannot be read: {reason}", field="definition", remedy="name a .toml or .json file"
            ) from error
    if len(text) > limits.DIALOG_BYTES:
        raise DefinitionError(
            f"{name or 'the definition'} is longer than {limits.DIALOG_BYTES} bytes",
            field="definition",
            limit=limits.DIALOG_BYTES,
            remedy="split the dialog",
        )
    return text, name


class _TwiceError(ValueError):
    """A key stands twice."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _TwiceError(key)
        found[key] = value
    return found


def _line_of_second(text: str, key: str) -> int:
    """Return the line on which a key comes for the last time."""
    written = json.dumps(key, ensure_ascii=False)
    return text.count("\n", 0, max(text.rfind(written), 0)) + 1
