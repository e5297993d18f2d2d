"""Log lines: one fact per line, as text for people or as JSON for programs."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from typing import Final, Literal, TextIO

import msgspec

from alcove.clock import SECOND, instant

_STANDARD: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "color_message", "taskName"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def configure(
    form: Literal["text", "json"] = "text", *, level: int = logging.INFO, stream: TextIO | None = None
) -> None:
    """Send every log line of the process to `stream` (standard error by default), replacing earlier handlers."""
    receiver = logging.StreamHandler(stream or sys.stderr)
    receiver.setFormatter(_Formatter(_as_json if form == "json" else _as_text))
    logging.basicConfig(handlers=[receiver], level=level, force=True)
    # What it says of its own life is said here in our words; its errors stay.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def redact_by(redact: Callable[[str], str]) -> None:
    """Have every text of a line, from now on, go through `redact` before it is written."""
    for receiver in logging.getLogger().handlers:
        if isinstance(receiver.formatter, _Formatter):
            receiver.formatter.redact = redact


class _Formatter(logging.Formatter):
    def __init__(self, write: Callable[[logging.LogRecord, str, dict[str, object], str], str]) -> None:
        super().__init__()
        self._write = write
        self.redact: Callable[[str], str] = str

    def format(self, record: logging.LogRecord) -> str:
        # Before it is escaped: a value with a quotation mark in it would not be found afterwards.
        facts: dict[str, object] = {
            name: self.redact(value) if isinstance(value, str) else value
            for name, value in vars(record).items()
            if name not in _STANDARD
        }
        trace = self.redact(self.formatException(record.exc_info)) if record.exc_info else ""
        return self._write(record, self.redact(record.getMessage()), facts, trace)


def _as_text(record: logging.LogRecord, message: str, facts: dict[str, object], trace: str) -> str:
    words = [_at(record), record.levelname, record.name, escaped(message)]
    words += [f"{name}={_value(value)}" for name, value in facts.items()]
    # A traceback keeps its lines, indented, so that none of them can pass for a line of the log.
    lines = [f"    {escaped(line)}" for line in trace.splitlines()]
    return "\n".join([" ".join(words), *lines])


def _as_json(record: logging.LogRecord, message: str, facts: dict[str, object], trace: str) -> str:
    line: dict[str, object] = {
        "at": _at(record),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": message,
        **facts,
    }
    if trace:
        line["trace"] = trace
    return escaped(_encode(_clean(line)).decode())


def escaped(text: str) -> str:
    """Return text in which no character can end a line or steer a terminal."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _value(value: object) -> str:
    text = escaped(str(value))
    return f'"{text}"' if not text or " " in text or '"' in text else text


def _clean(line: dict[str, object]) -> dict[str, object]:
    """Replace lone surrogates, which JSON cannot carry."""
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in line.items()
    }


def _at(record: logging.LogRecord) -> str:
    at = instant(int(record.created * SECOND))
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
