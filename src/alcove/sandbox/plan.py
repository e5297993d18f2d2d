"""What the server tells the launcher: a policy, compiled for one rung.

Standard library only. The plan travels in a memory file that only the run's own processes read, so that the spawner,
from which every run is forked, never holds the environment or the message of one.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Rung = Literal["userns", "bwrap", "landlock", "none"]
Network = Literal["none", "host", "proxy"]
"""`proxy` is a network of its own with a proxy of ours as the way out."""


class Kind(TypedDict):
    """What is known of a run before it is ordered: enough to make everything ready for it."""

    rung: Rung
    network: Network
    nest: bool
    probing: bool
    """Whether it is an errand of ours in place of a program."""


class Order(Kind):
    """What the spawner itself has to know to start a run.

    With it come descriptors: those that the run gets (`Kind.network` says how many), then those by which its control
    group is joined.
    """

    id: int
    uid: int | None
    group: int
    """The number of its control group; 0 for none."""


class Target(TypedDict):
    """A live neighbour: its files, its processes and its ways of being talked to."""

    folder: str
    processes: list[tuple[int, int]]
    abstract: str
    tcp: int
    udp: int
    sysv: int
    posix: str


class Errand(TypedDict):
    """What to do: with a target try it, without one be a neighbour in that folder, or fill it."""

    folder: str
    token: str
    target: Target | None
    fill: NotRequired[bool]


class Plan(Kind):
    """What the run's own processes have to know. Paths are absolute."""

    uid: int | None
    argv: list[str]
    env: dict[str, str]
    cwd: str
    write: list[str]
    read: list[str]
    files: dict[str, str]
    limits: dict[str, int]
    errand: Errand | None


class Failure(TypedDict):
    """Why a program was not started."""

    step: str
    errno: int
    detail: str
