"""From what a program wrote to a terminal to the text that a person would have read there."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Final

from alcove import limits

# ECMA-48. Bodies of strings end at the first control character, so that each introducer is scanned once and one
# without an end does not take the answer with it.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)([0-?]*+)[ -/]*+([@-~])"  # Colours and cursor (CSI)
    # Titles and links (OSC); DCS, SOS, PM and APC.
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x08\n-\x1f\x7f-\x9f]*+(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*+[0-~]?"  # character sets, keypad; or a lone ESC
)
_ERASE: Final = "\x00"  # our mark for "erase from here to the end of the line"
_MOVES = re.compile(r"([\r\b\x00])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """Return `text` as a terminal would show it: no escape sequence, nothing overwritten.

    No control character is left but newline and tab. Carriage returns, backspaces and erased lines have their effect
    within a line; other movement of the cursor has none.
    """
    text = _SEQUENCE.sub(_effect, text.replace(_ERASE, ""))
    if _MOVES.search(text):
        text = "\n".join(map(_overwritten, text.split("\n")))
    return _CONTROL.sub("", text)


def without(text: str, patterns: Sequence[re.Pattern[str]]) -> str:
    """Return `text` less what `patterns` match, line by line; a line of which nothing is left is dropped.

    Lines over `limits.PATTERN_LINE_CHARS` are not matched, and nothing is after `limits.PATTERN_BUDGET_S` of CPU time:
    the text is a stranger's, and a harmless pattern may be slow on it.
    """
    if not patterns:
        return text
    deadline = time.thread_time() + limits.PATTERN_BUDGET_S
    lines: list[str] = []
    for line in text.split("\n"):
        rest = line
        if len(line) <= limits.PATTERN_LINE_CHARS and time.thread_time() < deadline:
            for pattern in patterns:
                rest = pattern.sub("", rest)
        if rest.strip() or not line.strip():
            lines.append(rest)
    return "\n".join(lines)


def _effect(sequence: re.Match[str]) -> str:
    parameters, command = sequence[1], sequence[2]
    if command == "K":
        # Erasing the whole line leaves the cursor where it is; what follows is in practice a carriage return.
        return {"": _ERASE, "0": _ERASE, "2": "\r" + _ERASE}.get(parameters, "")
    if command == "G" and parameters in {"", "0", "1"}:
        return "\r"
    return ""


def _overwritten(line: str) -> str:
    """Return what is left of a line after its carriage returns, backspaces and erasures."""
    line = line.rstrip("\r")
    if not _MOVES.search(line):
        return line
    cells: list[str] = []
    column = 0
    for part in _MOVES.split(line):
        if part == "\r":
            column = 0
        elif part == "\b":
            column = max(column - 1, 0)
        elif part == _ERASE:
            del cells[column:]
        else:
            cells[column : column + len(part)] = part
            column += len(part)
    return "".join(cells).rstrip()
