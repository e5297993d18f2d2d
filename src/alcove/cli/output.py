"""How commands speak: tables for people, tab-separated lines for pipes, JSON for programs, messages on stderr."""

from __future__ import annotations

import os
import re
import signal
import sys
import unicodedata
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import click

from alcove.errors import AlcoveError, ConflictError, InvalidError, NotFoundError

OK: Final = 0
ERROR: Final = 1
USAGE: Final = 2
CONFLICT: Final = 3
UNAUTHORIZED: Final = 4
NOT_FOUND: Final = 5
INTERRUPTED: Final = 130

_CODES: Final = ((InvalidError, USAGE), (ConflictError, CONFLICT), (NotFoundError, NOT_FOUND))
_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINER: Final = "\u200d"  # holds the parts of an emoji together
# What JSON leaves as it is and a terminal would obey.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Whole sequences first (CSI, OSC), then every other control character but newline and tab.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LEAST_COLUMNS: Final = 6  # a column is not made narrower than this
_IDS: Final = frozenset({"ID", "SESSION"})
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORT_ID: Final = 13  # the characters of a UUIDv7 that say the millisecond
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))

# -- words and numbers -----------------------------------------------------------------------------------------------


def visible(text: str) -> str:
    """Return `text` with every character escaped that a terminal would obey or not show."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _HIDDEN and character != _JOINER
        else character
        for character in text
    )


def size(size_bytes: int) -> str:
    """Return a number of bytes as a person reads it."""
    value, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


def duration(us: int) -> str:
    """Return microseconds in the largest unit that they fill."""
    whole_s = max(us, 0) // 1_000_000
    length, unit = next((length, unit) for length, unit in _UNITS if whole_s >= length or length == 1)
    return f"{whole_s // length}{unit}"


def counted(number: int, noun: str) -> str:
    """Return a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def harmless(text: str) -> str:
    """Return what a program or a file says without what would steer the terminal of whoever reads it."""
    return _CONTROL.sub("", text)


# -- results ---------------------------------------------------------------------------------------------------------


def terminal_columns() -> int | None:
    """Return how wide the terminal on stdout is; None when stdout is something else."""
    return _columns() if sys.stdout.isatty() else None


def _columns() -> int:
    import shutil  # compression and all: more than half of what --help takes besides click

    return shutil.get_terminal_size().columns


def write_text(text: str, *, raw: bool = False, err: bool = False) -> None:
    """Write what a program says: byte by byte into a pipe, as harmless text on a terminal unless `raw` is asked for."""
    stream = sys.stderr if err else sys.stdout
    shown = text if raw or not (stream.isatty() if err else terminal_columns()) else harmless(text)
    click.echo(shown.encode("utf-8", "surrogateescape"), nl=False, err=err)


def write_json(value: object) -> None:
    """Write a value as JSON: indented on a terminal, one line in a pipe."""
    _write_json(value, indent=2 if terminal_columns() else None)


def write_json_line(value: object) -> None:
    """Write a value as one line of JSON, for those that come one after the other."""
    _write_json(value, indent=None)


def _write_json(value: object, indent: int | None) -> None:
    import json

    text = json.dumps(value, ensure_ascii=False, indent=indent)
    click.echo(_UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def write_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "") -> None:
    """Write rows: aligned and cut to the terminal's width, or as tab-separated lines without header.

    Args:
        header: A name for each column; those called `ID` and `SESSION` are cut to what tells their ids apart.
        rows: Cells, as they came: they are made visible here.
        kind: First cell of each line in a pipe, for commands that write several tables.
    """
    cells = [[visible(cell) for cell in row] for row in rows]
    columns = terminal_columns()
    if columns is None:
        for row in cells:
            click.echo("\t".join([kind, *row] if kind else row))
        return
    for name in _IDS & {*header}:
        _shorten_ids(cells, header.index(name))
    widths = [max(map(_width, column)) for column in zip(header, *cells, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > columns and max(widths) > _LEAST_COLUMNS:
        # An id that was cut anywhere is of no use, so it goes last.
        widest = max(range(len(widths)), key=lambda i: (widths[i] > _LEAST_COLUMNS, header[i] not in _IDS, widths[i]))
        widths[widest] -= 1
    for number, row in enumerate([header, *cells]):
        line = "  ".join(_fitted(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        click.echo(line if number else click.style(line, bold=True))


def write_facts(facts: Mapping[str, str], *, kind: str) -> None:
    """Write names and values, a line each, the empty ones left out; `kind` is the heading, or the first cell."""
    shown = {name: visible(value) for name, value in facts.items() if value}
    if terminal_columns() is None:
        for name, value in shown.items():
            click.echo(f"{kind}\t{name}\t{value}")
        return
    heading(kind)
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        click.echo(f"  {name:{width}}  {value}")


def heading(text: str) -> None:
    """Write a heading, where people read."""
    if terminal_columns():
        click.echo(click.style(text, bold=True))


def _shorten_ids(rows: list[list[str]], column: int) -> None:
    """Cut UUIDs to beginnings that tell them apart; other ids stay whole, because people chose them."""
    found = [row[column] for row in rows]
    length = _SHORT_ID
    while len({one[:length] for one in found}) < len(set(found)):
        length += 1
    for row in rows:
        if _UUID.fullmatch(row[column]):
            row[column] = row[column][:length]


def _width(text: str) -> int:
    """Return how many columns a text takes: Chinese, Japanese and Korean characters take two, accents none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def _fitted(text: str, width: int) -> str:
    if _width(text) > width:
        while _width(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _width(text))


def draw(root: str, below: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write a tree, a line for each member, cut to the terminal's width.

    Args:
        root: The key whose members are the first level.
        below: For each key its members: their keys and texts.
    """
    columns = terminal_columns()
    open_: list[tuple[str, str, str]] = [(key, text, "") for key, text in reversed(below.get(root, ()))]
    while open_:
        key, text, prefix = open_.pop()
        last = not open_ or open_[-1][2] != prefix
        line = prefix + ("└── " if last else "├── ") + visible(text)
        click.echo(_fitted(line, columns).rstrip() if columns else line)
        deeper = prefix + ("    " if last else "│   ")
        open_ += [(one, said, deeper) for one, said in reversed(below.get(key, ()))]


# -- messages --------------------------------------------------------------------------------------------------------


@contextmanager
def progress(label: str, total: int, *, shown: bool = True) -> Generator[Callable[[int], None]]:
    """Show how far a long work has come, on a terminal only; what is given is called with the steps made."""
    if not shown or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=total, label=visible(label)[:30], file=sys.stderr) as bar:
        yield bar.update


@contextmanager
def progress_of(label: str) -> Generator[Callable[[int, int], None]]:
    """The same for a work that says itself how much is done, and of how much."""
    if not sys.stderr.isatty():
        yield lambda _, __: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def show(done: int, of: int) -> None:
            bar.length = max(of, 1)
            bar.update(max(done, 1 if not of else 0) - bar.pos)

        yield show


def note(text: str) -> None:
    """Say something beside the result."""
    click.echo(visible(text), err=True)


def warn(text: str) -> None:
    """Say that something may not be as meant."""
    click.echo(f"{click.style('warning:', fg='yellow')} {visible(text)}", err=True)


def complain(message: str, hint: str = "") -> None:
    """Say what went wrong and what to do about it."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {visible(message)}", err=True)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {visible(hint)}", err=True)


def exit_code(error: AlcoveError) -> int:
    """Return the exit code of an error."""
    if error.code in {"unauthorized", "forbidden", "not_permitted"}:
        return UNAUTHORIZED
    return next((code for kind, code in _CODES if isinstance(error, kind)), ERROR)


def can_ask() -> bool:
    """Return whether somebody sits at standard input."""
    return sys.stdin.isatty()


def agreed(question: str) -> bool:
    """Ask somebody, and return whether the answer was yes."""
    # The event loop would only note a Ctrl-C here, and go on waiting for an answer.
    noted = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return click.confirm(question, err=True)
    finally:
        signal.signal(signal.SIGINT, noted)


def debugging() -> bool:
    """Return whether the developer wants to see where errors come from."""
    return bool(os.environ.get("ALCOVE_DEBUG"))
