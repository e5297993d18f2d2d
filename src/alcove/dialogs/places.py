"""On which line of a TOML or JSON text each key and item stands, so that an error can point at it.

The parsers of the standard library do not say. These walk over text that those have accepted, so they need not find
faults themselves.
"""

from __future__ import annotations

import re
from typing import Final

from alcove.dialogs.document import Path

Places = dict[Path, int]

_TOML_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_TOML_KEY: Final = re.compile(r'[ \t]*(?:"((?:[^"\\\n]|\\.)*)"|\'([^\'\n]*)\'|([A-Za-z0-9_-]+))[ \t]*(\.?)')
_TOML_TEXT: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:\'{0,2})|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)
_TOML_SCALAR: Final = re.compile(r"[^,\]}\n#]*")
_JSON_BLANK: Final = re.compile(r"[ \t\r\n]*")
_JSON_TEXT: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_JSON_SCALAR: Final = re.compile(r"[^,\]} \t\r\n]*")


def toml_places(text: str) -> Places:
    """Return the line of each key and item of valid TOML, from 1."""
    return _Toml(text).walk()


def json_places(text: str) -> Places:
    """Return the line of each key and item of valid JSON, from 1."""
    return _Json(text).walk()


def line_of(places: Places, path: Path) -> int | None:
    """Return the line of the nearest place at or above a path; None when nothing is known."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return None


class _Walk:
    """Goes over a text from left to right and notes where things are."""

    blank: re.Pattern[str]

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: Places = {}
        self._line, self._counted = 1, 0

    def note(self, path: Path) -> None:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        self.places.setdefault(path, self._line)

    def skip(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def here(self, token: str) -> bool:
        """Skip blanks, and the token if it is next."""
        self.skip(self.blank)
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def items(self, path: Path) -> None:
        """Walk over a list, after its opening bracket."""
        index = 0
        while not self.here("]"):
            self.note((*path, index))
            self.value((*path, index))
            self.here(",")
            index += 1

    def value(self, path: Path) -> None:
        raise NotImplementedError


class _Toml(_Walk):
    blank = _TOML_BLANK

    def walk(self) -> Places:
        table: Path = ()
        counts: dict[Path, int] = {}
        while True:
            self.skip(_TOML_BLANK)
            if self.at >= len(self.text):
                return self.places
            if self.here("[["):
                path = self._within(self.key(), counts)
                counts[path] = counts.get(path, 0) + 1
                table = (*path, counts[path] - 1)
                self.note(path)
                self.note(table)
                self.here("]]")
            elif self.here("["):
                table = self._within(self.key(), counts)
                self.note(table)
                self.here("]")
            else:
                self.pair(table)

    def _within(self, key: Path, counts: dict[Path, int]) -> Path:
        """Return the path of a table: an array of tables above it means its last one."""
        path: Path = ()
        for part in key[:-1]:
            path = (*path, part)
            if path in counts:
                path = (*path, counts[path] - 1)
        return (*path, key[-1])

    def key(self) -> Path:
        parts: list[str] = []
        while found := self.skip(_TOML_KEY):
            basic, literal, bare, dot = found.groups()
            parts.append(_unescaped(basic) if basic is not None else literal if literal is not None else bare)
            if not dot:
                break
        return tuple(parts)

    def pair(self, table: Path) -> None:
        self.skip(_TOML_BLANK)
        begin = self.at
        key = self.key()
        end, self.at = self.at, begin
        for length in range(1, len(key) + 1):
            self.note((*table, *key[:length]))
        self.at = end
        self.here("=")
        self.value((*table, *key))

    def value(self, path: Path) -> None:
        if self.here("["):
            self.items(path)
        elif self.here("{"):
            while not self.here("}"):
                self.pair(path)
                self.here(",")
        elif not self.skip(_TOML_TEXT):
            self.skip(_TOML_SCALAR)


class _Json(_Walk):
    blank = _JSON_BLANK

    def walk(self) -> Places:
        self.value(())
        return self.places

    def value(self, path: Path) -> None:
        if self.here("["):
            self.items(path)
        elif self.here("{"):
            while not self.here("}"):
                self.skip(_JSON_BLANK)
                begin = self.at
                found = self.skip(_JSON_TEXT)
                key = (*path, _unescaped(found[1]) if found else "")
                end, self.at = self.at, begin
                self.note(key)
                self.at = end
                self.here(":")
                self.value(key)
                self.here(",")
        elif not self.skip(_JSON_TEXT):
            self.skip(_JSON_SCALAR)


_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(
        lambda found: chr(int(found[1] or found[2], 16)) if found[1] or found[2] else _ESCAPED.get(found[3], found[3]),
        text,
    )
