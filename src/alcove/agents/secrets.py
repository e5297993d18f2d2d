"""Secrets: credentials that agents are given by name, and where the value of each comes from.

The table `[secrets]` of `alcove.toml` says for a name where its value is: in a variable of the server's environment
or in a file. A name that is not there is that of a variable. Values are read anew for each run, and written nowhere.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, final

import msgspec

from alcove import limits
from alcove.agents.redaction import Redactor
from alcove.errors import AgentUnavailableError, ConfigurationError
from alcove.settings.model import Table
from alcove.settings.parsing import absolute, nearest

VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FORM: Final = 'write { env = "NAME" } or { file = "path" }, never the value'


class SecretInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A secret as `doctor` and `config` show it: everything but its value.

    Attributes:
        name: Its name, which is that of the variable in a run.
        source: Where its value comes from.
        declared: Whether `[secrets]` says so; else the name itself does.
        available: Whether there is a value that can be given.
        reason: Why not.
        remedy: What to do about it.
    """

    name: str
    source: str
    declared: bool
    available: bool
    reason: str = ""
    remedy: str = ""


@final
class Secrets:
    """Where the values of an installation's secrets are.

    Attributes:
        files: Absolute paths of the files that hold values: no run is ever granted them.
    """

    def __init__(self, tables: Mapping[str, Table], *, folder: Path, environ: Mapping[str, str]) -> None:
        """Check the tables; no value is looked at.

        Args:
            tables: `[secrets]` as written (`Settings.secrets`).
            folder: What relative paths in it are relative to.
            environ: The server's environment.

        Raises:
            ConfigurationError: A table names no source, or has a key that it does not know; no message repeats what
                may be a value that was written in the wrong place.
        """
        self._environ = environ
        self._sources = {name: _source(name, table, folder, environ) for name, table in tables.items()}
        self.files = tuple(str(source) for source in self._sources.values() if isinstance(source, Path))
        self._given: dict[str, str] = {}
        self._redactor = Redactor({})

    def give(self, names: Iterable[str]) -> dict[str, str]:
        """Read and return the values of these secrets, by name.

        Raises:
            AgentUnavailableError: One has no value, or one that cannot be given; it names the secret and the remedy.
        """
        values = {name: self._read(name) for name in names}
        new = {value: name for name, value in values.items() if value not in self._given}
        if new:
            self._given |= new
            self._redactor = Redactor(self._given)
        return values

    def redact(self, text: str) -> str:
        """Return `text` without any value that has been given out since this process began."""
        return self._redactor.text(text)

    def info(self, name: str) -> SecretInfo:
        """Return what may be shown of a secret."""
        source = self._sources.get(name, name)
        shown = SecretInfo(
            name=name,
            source=f"file {source}" if isinstance(source, Path) else f"variable {source}",
            declared=name in self._sources,
            available=True,
        )
        try:
            self._read(name)
        except AgentUnavailableError as error:
            return msgspec.structs.replace(shown, available=False, reason=error.message, remedy=error.remedy)
        return shown

    def describe(self, used: Iterable[str] = ()) -> list[SecretInfo]:
        """Return what may be shown of every secret that is declared, and of those used without."""
        return [self.info(name) for name in sorted({*self._sources, *used})]

    def _read(self, name: str) -> str:
        source = self._sources.get(name, name)
        if isinstance(source, Path):
            value = _content(name, source)
        else:
            value = self._environ.get(source, "")
            if not value:
                # Callers of the API read this: another name, which may be a value written in its place, is not theirs.
                which = name if source == name else "the variable that `alcove config` shows"
                raise _unusable(
                    name,
                    "its variable is not set in the server's environment",
                    f"set {which} there and start Alcove again, or say in [secrets] where the value is",
                )
        _check(name, value)
        return value


def _source(name: str, table: Table, folder: Path, environ: Mapping[str, str]) -> str | Path:
    """Return a variable's name or a file's path."""
    field = f"secrets.{name[:64]}"

    def refusal(problem: str, remedy: str = _FORM) -> ConfigurationError:
        return ConfigurationError(f"[{field}]: {problem}", field=field, remedy=remedy)

    if not VARIABLE.fullmatch(name):
        raise refusal("is not the name of a variable", "use letters, digits and '_', no digit first")
    if len(table) != 1:
        raise refusal("names not exactly one source")
    [(kind, place)] = table.items()
    if kind not in {"env", "file"}:
        raise refusal(f"unknown key {kind!r}", nearest(kind, ("env", "file")))
    if not isinstance(place, str) or not place.strip() or not place.isprintable():
        raise refusal(f"{kind} is no text of one line")
    if kind == "file":
        return absolute(place, folder, environ)
    if not VARIABLE.fullmatch(place):
        # Most likely somebody wrote the value itself: it is not repeated.
        raise refusal("env is not the name of a variable")
    return place


def _content(name: str, path: Path) -> str:
    """Return what a file holds, less the end of its last line."""
    try:
        # Without waiting: a fifo would hold the server up.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _unusable(
            name, f"its file cannot be read: {error.strerror}", "make it a file of the server's user, mode 0600"
        ) from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _unusable(name, "its file is no regular file", "make it a file of the server's user, mode 0600")
        remedy = "give it to the server's user alone: chown, then chmod 600"
        if found.st_uid not in {0, os.geteuid()}:
            raise _unusable(name, "its file belongs to another user", remedy)
        # The group of root is root: systemd gives a service's credentials so.
        if found.st_mode & (0o037 if found.st_gid == 0 else 0o077):
            raise _unusable(name, "its file is open to others", remedy)
        content = os.read(descriptor, limits.SECRET_BYTES + 3)
    finally:
        os.close(descriptor)
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        # Not as the cause: the error holds the bytes.
        raise _unusable(name, "its value is no UTF-8 text", "write it as text") from None


def _check(name: str, value: str) -> None:
    """Refuse a value that could not be found again in what a program says."""
    if len(value) < limits.SECRET_CHARS:
        raise _unusable(
            name,
            f"its value has fewer than {limits.SECRET_CHARS} characters: hiding it would garble every output",
            "use a longer one; what is no secret belongs into the agent's env",
        )
    if not value.isprintable():
        raise _unusable(name, "its value is no text of one line", "write it as one line without control characters")
    if len(value.encode()) > limits.SECRET_BYTES:
        raise _unusable(
            name,
            f"its value is larger than {limits.SECRET_BYTES} bytes",
            "let the program read it from a file that [agents.NAME] read names",
        )


def _unusable(name: str, problem: str, remedy: str) -> AgentUnavailableError:
    return AgentUnavailableError(f"secret {name}: {problem}", field="agent", remedy=remedy)
