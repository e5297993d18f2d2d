"""Parsers of settings: each takes what TOML gives and refuses every other type."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NamedTuple

from alcove.durations import duration_s
from alcove.errors import InvalidError

_PASSWORD = re.compile(r"(?<=:)[^:/@]+(?=@)|(?<=password=)[^&]*")


def _pairs(text: str) -> dict[str, str] | str:
    pairs = [word.partition("=") for word in text.split(",")]
    if any(not equals for _, equals, _ in pairs):
        return text
    return {name.strip(): value.strip() for name, _, value in pairs}


FROM_TEXT: Final[Mapping[type, Callable[[str], object]]] = {
    int: lambda text: int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text,
    bool: lambda text: {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text),
    list: lambda text: [word.strip() for word in text.split(",")],
    dict: _pairs,
}
KIND_NAMES: Final = {
    str: "text",
    int: "a whole number",
    bool: "true or false",
    list: "a list of words",
    dict: "a table",
}


class Place(NamedTuple):
    """What a relative path is relative to, and the variables that say where home is."""

    folder: Path
    environ: Mapping[str, str]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a remedy for an unknown word: the known one that looks like it, else all of them."""
    names = sorted(known)
    close = get_close_matches(word, names, 1)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(names)


def absolute(path: str, folder: Path, environ: Mapping[str, str]) -> Path:
    """Return `path` without `~`, `.` and `..`, relative ones under `folder`; symbolic links are not followed."""
    if path == "~" or path.startswith("~/"):
        path = environ.get("HOME", "~") + path[1:]
    return Path(os.path.abspath(folder / path))


def as_text(raw: str, place: Place) -> str:
    """Return a word or sentence, not empty and without control characters."""
    del place
    if not raw.strip() or not raw.isprintable():
        raise InvalidError(f"{raw!r} is empty or has a control character", remedy="give a word")
    return raw


def as_given(raw: bool, place: Place) -> bool:
    """Return a value of which only the type counts."""
    del place
    return raw


def as_port(raw: int, place: Place) -> int:
    """Return a TCP port, 0 for any free one."""
    del place
    if not 0 <= raw <= 65535:
        raise InvalidError(f"{raw} is not a port", limit=65535, remedy="use 1 to 65535, or 0 for any free port")
    return raw


def as_path(raw: str, place: Place) -> Path:
    """Return a path made absolute beside whoever named it."""
    return absolute(as_text(raw, place), place.folder, place.environ)


def as_paths(raw: list[object], place: Place) -> tuple[Path, ...]:
    """Return a list of such paths."""
    return tuple(as_path(path, place) for path in as_words(raw, place))


def as_url_or_path(raw: str, place: Place) -> str:
    """Return a URL as it is, and anything else as a path made absolute."""
    return as_text(raw, place) if "://" in raw else str(as_path(raw, place))


def as_words(raw: list[object], place: Place) -> tuple[str, ...]:
    """Return a list of words."""
    words = [word for word in raw if isinstance(word, str)]
    if len(words) != len(raw):
        raise InvalidError(f"{raw!r} has something other than text in it", remedy="put each word in quotes")
    return tuple(as_text(word, place) for word in words)


def as_minimum(raw: list[object], place: Place) -> tuple[str, ...]:
    """Return names of guarantees; none at all for the word `none`."""
    words = as_words(raw, place)
    if not words or ("none" in words and len(words) > 1):
        raise InvalidError(f"{raw!r} does not say what is the least", remedy="name guarantees, or 'none' alone")
    return () if words == ("none",) else words


def as_limits(raw: dict[object, object], place: Place) -> dict[str, str | int]:
    """Return limits by name, as written: what each means is the sandbox's business."""
    del place
    written: dict[str, str | int] = {}
    for name, value in raw.items():
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise InvalidError(f"{name} is {value!r}", remedy="write a whole number, or a text such as '2GiB' or '10m'")
        written[str(name)] = value
    return written


def as_database(raw: str, place: Place) -> str:
    """Return the URL of a database, with an absolute path."""
    if raw.startswith("sqlite:///"):
        return f"sqlite:///{as_path(raw.removeprefix('sqlite:///'), place)}"
    if raw.startswith(("memory://", "postgresql://", "postgres://")):
        return raw
    raise InvalidError(
        f"{masked(raw)!r} is not a database URL",
        remedy="use sqlite:///path/to/file.db, memory:// or postgresql://user@host/name",
    )


def as_idle(raw: str, place: Place) -> int | None:
    """Return seconds of idle life, None for never."""
    seconds = as_duration(raw, place)
    if seconds == 0:
        raise InvalidError("a session of no life at all", remedy="use at least 1s, or never")
    return seconds


def as_duration(raw: str, place: Place) -> int | None:
    """Return seconds, None for never."""
    del place
    return duration_s(raw)


def one_of(*words: str) -> Callable[[str, Place], str]:
    """Return a parser that takes one of `words`."""

    def parse(raw: str, place: Place) -> str:
        del place
        if raw not in words:
            raise InvalidError(f"{raw!r} is not one of {', '.join(words)}", remedy=nearest(raw, words))
        return raw

    return parse


def masked(url: object) -> str:
    """Return a URL without its password."""
    return _PASSWORD.sub("***", str(url))
