"""What a run may take of the machine: one record, read from tables, and the name of the limit that ended a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from alcove import limits
from alcove.durations import duration_s, duration_text
from alcove.errors import ConfigurationError, InvalidError, LimitError

Name: TypeAlias = Literal["memory", "processes", "cpu", "file_size", "open_files", "output", "disk", "files"]
Written: TypeAlias = Mapping[str, str | int]

_SIZE: Final = re.compile(r"([0-9]{1,9})([KMGT]iB|B)?")
_UNITS: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one run may take at most. The attributes stand in tables under the names of `NAMES`.

    Attributes:
        memory_bytes: Of its whole tree of processes: what they hold in memory, with the private /tmp and /dev/shm.
        processes: Processes and threads of the tree.
        cpu_s: Processor time of the tree.
        file_bytes: The largest file that can be written.
        open_files: Descriptors of one process.
        output_bytes: What it may say, standard output and error together.
        disk_bytes: What workspace, home and temporary files take on the disk: blocks, hard links once.
        disk_files: How many files those are.
    """

    memory_bytes: int = limits.RUN_MEMORY_BYTES
    processes: int = limits.RUN_PROCESSES
    cpu_s: int = limits.RUN_CPU_S
    file_bytes: int = limits.RUN_FILE_BYTES
    open_files: int = limits.RUN_OPEN_FILES
    output_bytes: int = limits.RUN_OUTPUT_BYTES
    disk_bytes: int = limits.RUN_DISK_BYTES
    disk_files: int = limits.RUN_DISK_FILES

    def changed(self, written: Written, *, where: str) -> Limits:
        """Return these limits with those of a table in their place.

        Args:
            written: By name; sizes are bytes or such as `512MiB`, `cpu` is a duration such as `10m`.
            where: The name of the table, for errors.

        Raises:
            ConfigurationError: A name is unknown, or a value is none or out of bounds; `field` names it.
        """
        values: dict[str, int] = {}
        for name, value in written.items():
            if name not in NAMES:
                raise ConfigurationError(
                    f"{where}: there is no limit {name!r}",
                    field=f"{where}.{name}",
                    remedy=f"known: {', '.join(NAMES)}; the wall time is `timeout` in an agent's table",
                )
            values[NAMES[name]] = _value(name, value, f"{where}.{name}")
        return msgspec.structs.replace(self, **values)

    def written(self) -> dict[str, str | int]:
        """Return these limits as a table has them."""
        return {name: _text(name, getattr(self, attribute)) for name, attribute in NAMES.items()}


NAMES: Final[dict[str, str]] = {
    "memory": "memory_bytes",
    "processes": "processes",
    "cpu": "cpu_s",
    "file_size": "file_bytes",
    "open_files": "open_files",
    "output": "output_bytes",
    "disk": "disk_bytes",
    "files": "disk_files",
}
"""By the name in a table, the attribute."""

_SIZES: Final = {"memory", "file_size", "output", "disk"}
# Below these no program starts, or none could say why it did not.
_LEAST: Final = {"memory": 16 * limits.MIB, "processes": 4, "open_files": 16, "output": limits.KIB}
_SAID: Final = {
    "memory": "took more than {} of memory",
    "processes": "had more than {} processes and threads",
    "cpu": "took more than {} of processor time",
    "file_size": "wrote a file of more than {}",
    "output": "said more than {}",
    "disk": "and its session take more than {} of the disk",
    "files": "and its session have more than {} files",
}


class Excess(msgspec.Struct, frozen=True):
    """The limit that ended a run.

    Attributes:
        name: Its name in a table.
        allowed: Its value; seconds for `cpu`, bytes for sizes.
        free: Whether it was not the run's own limit, but the disk that was about to be full for everybody.
    """

    name: Name
    allowed: int
    free: bool = False

    def error(self, agent: str) -> LimitError:
        """Return the error that says so.

        Args:
            agent: Whose table may raise it.
        """
        if self.free:
            return LimitError(
                f"the disk of the workspaces has less than {_text(self.name, self.allowed)} left, and this run was "
                "filling it",
                field="disk",
                limit=self.allowed,
                remedy="free some space on the disk, or give runs less of it: disk in [sandbox.limits]",
            )
        return LimitError(
            f"limit {self.name}: the run {_SAID[self.name].format(_text(self.name, self.allowed))}",
            field=self.name,
            limit=self.allowed,
            remedy=f"give it less to do, or raise {self.name} in [agents.{agent}.limits]"
            + (", or delete files of the session" if self.name in {"disk", "files"} else ""),
        )


def _value(name: str, value: str | int, field: str) -> int:
    try:
        number = duration_s(value) if name == "cpu" and isinstance(value, str) else _number(name, value)
    except InvalidError as error:
        raise ConfigurationError(f"{field}: {error.message}", field=field, remedy=error.remedy) from None
    least = _LEAST.get(name, 1)
    if number is None or not least <= number <= limits.RUN_LIMIT:
        raise ConfigurationError(
            f"{field}: {value!r} cannot be the limit",
            field=field,
            limit=least if number is not None and number < least else limits.RUN_LIMIT,
            remedy=f"use {_text(name, least)} or more",
        )
    return number


def _number(name: str, value: str | int) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not found or (found[2] and name not in _SIZES):
        such = "bytes or a size such as 512MiB" if name in _SIZES else "a whole number"
        raise InvalidError(
            f"{value!r} is no limit", remedy=f"write {'a duration such as 10m' if name == 'cpu' else such}"
        )
    return int(found[1]) * _UNITS[found[2] or "B"]


def _text(name: str, value: int) -> str | int:
    if name == "cpu":
        return duration_text(value)
    if name not in _SIZES:
        return value
    unit = next(unit for unit, size in reversed(_UNITS.items()) if value % size == 0)
    return f"{value // _UNITS[unit]}{unit}" if value else "0B"
