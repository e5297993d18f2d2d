"""A document that somebody wrote by hand: looked at piece by piece, all its faults collected with where they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeAlias, cast

from alcove import ids, limits
from alcove.errors import InvalidError

Path: TypeAlias = tuple[str | int, ...]
Table: TypeAlias = dict[str, Any]


class Fault(NamedTuple):
    """One thing that is wrong with a definition: where, and what."""

    path: Path
    text: str


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what somebody may have meant, as the end of a sentence."""
    known = list(known)
    close = get_close_matches(name, known, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(known)}" if 0 < len(known) <= 12 else ""


class Document:
    """Collects faults while it hands out pieces in the form that they should have, or an empty one in its place."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def bad(self, path: Path, text: str) -> None:
        """Note a fault."""
        self.faults.append(Fault(path, text))

    def hint(self, name: str, known: Iterable[str]) -> str:
        """Return a suggestion, while there are few faults: to look for one takes long."""
        return suggestion(name, known) if len(self.faults) < limits.DIALOG_HINTS else ""

    def table(self, value: object, path: Path, known: Sequence[str] = ()) -> Table:
        """Return a table with text for keys; with `known`, no other keys."""
        if not isinstance(value, dict):
            self.bad(path, "has to be a table")
            return {}
        table = cast("Table", value)
        for key in table:
            if known and key not in known:
                self.bad((*path, key), f"is not known here{self.hint(key, known)}")
        return table

    def text(self, value: object, path: Path) -> str:
        """Return a text that is not empty."""
        if isinstance(value, str) and value:
            return value
        self.bad(path, "has to be a text that is not empty")
        return ""

    def flag(self, value: object, path: Path) -> bool:
        """Return a boolean."""
        if not isinstance(value, bool):
            self.bad(path, "has to be true or false")
        return value is True

    def name(self, value: object, path: Path, what: str) -> str:
        """Return a name that somebody chose."""
        text = self.text(value, path)
        try:
            ids.name(text or "x", field=what)
        except InvalidError as error:
            self.bad(path, error.message)
        if len(text) > limits.DIALOG_NAME_CHARS:
            self.bad(path, f"{what} has {len(text)} characters; at most {limits.DIALOG_NAME_CHARS}")
        return text

    def names(self, value: object, path: Path, known: Iterable[str], what: str) -> tuple[str, ...]:
        """Return a list of names, each of which is known."""
        if not isinstance(value, list | tuple):
            self.bad(path, f"has to be a list of {what}s")
            return ()
        entries = cast("Sequence[object]", value)
        return tuple(self.one_of(entry, (*path, i), known, what) for i, entry in enumerate(entries))

    def one_of(self, value: object, path: Path, known: Iterable[str], what: str) -> str:
        """Return a name that is known."""
        text = self.text(value, path)
        known = list(known)
        if text and text not in known:
            self.bad(path, f"there is no {what} {text!r}{self.hint(text, known)}")
        return text

    def tables(self, value: object, path: Path, what: str, most: int) -> dict[str, object]:
        """Return a table of named things."""
        table = {self.name(key, (*path, key), what): entry for key, entry in self.table(value or {}, path).items()}
        if len(table) > most:
            self.bad(path, f"there are {len(table)}; at most {most}")
        return table
