"""What a rung guarantees, proven by trying."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Guarantee = Literal[
    "file_read", "file_write", "metadata", "processes", "signals", "network", "hosts", "ipc", "limits", "quota"
]

GUARANTEES: Final[dict[str, str]] = {
    "file_read": "another session's files cannot be read or listed",
    "file_write": "another session's files cannot be changed, made or removed",
    "metadata": "another session's files cannot be seen, touched or given other modes",
    "processes": "memory, environment and files of other processes cannot be read, nor can those processes be limited",
    "signals": "processes of other sessions and of the server cannot be signalled",
    "network": "a run without network reaches no network, not even this machine's",
    "hosts": "a run with a list of hosts reaches nothing but those, through its proxy",
    "ipc": "sockets and shared memory of other sessions cannot be reached",
    "limits": "a run cannot take more memory and processes than it was given",
    "quota": "a run cannot fill the disk of the others",
}

DEFAULT_MINIMUM: Final = frozenset({"file_read", "file_write", "metadata", "processes", "signals"})


class Vector(msgspec.Struct, frozen=True, kw_only=True):
    """Which guarantees hold. `GUARANTEES` says what each means."""

    file_read: bool = False
    file_write: bool = False
    metadata: bool = False
    processes: bool = False
    signals: bool = False
    network: bool = False
    hosts: bool = False
    ipc: bool = False
    limits: bool = False
    quota: bool = False

    def missing(self, minimum: frozenset[str]) -> tuple[str, ...]:
        """Return the guarantees of `minimum` that do not hold, in the order of `GUARANTEES`."""
        return tuple(name for name in GUARANTEES if name in minimum and not getattr(self, name))

    def held(self) -> int:
        """Return how many guarantees hold."""
        return sum(bool(getattr(self, name)) for name in GUARANTEES)


class RungReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the probe found out about one rung on this machine."""

    rung: Literal["userns", "bwrap", "landlock", "none"]
    available: bool
    vector: Vector
    holes: dict[str, tuple[str, ...]]
    """By guarantee, the attempts that succeeded."""
    nested: Vector = Vector()
    """What holds for a program that may put a sandbox of its own inside."""
    failure: str
    """Why a confined start failed, `''` when it did not."""
    remedy: str
    """What would make it available or complete, `''` when nothing is missing."""
