"""What the server tells the launcher: a policy, compiled for one rung.

Standard library only. The plan travels in a memory file that only the run's own processes read, so that the spawner,
from which every run is forked, never holds the environment or the message of one.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from alcove.sandbox.attempts import Errand

Rung = Literal["userns", "bwrap", "landlock", "none"]
Network = Literal["none", "host", "proxy"]
"""`proxy` is a network of its own with a proxy of ours as the way out."""

HIDDEN: tuple[Rung, ...] = ("userns", "bwrap")
"""On which a program sees no process of ours but, as the first of its own namespace, what it cannot end: so that one
can be confined as the program is, and start it as its child."""

DESCRIPTORS = 4 + 4 + 1
"""That come with a run at most: plan and standard ones, one for each hierarchy of its control group, its proxy's."""


class Kind(TypedDict):
    """What is known of a run before it is ordered: enough to make everything ready for it."""

    rung: Rung
    network: Network
    nest: bool


class Order(Kind):
    """What the spawner itself has to know to start a run."""

    id: int
    uid: int | None


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


def read_plan(descriptor: int) -> Plan:
    """Read the plan in a memory file from its beginning; several processes may, one after the other."""
    size = os.fstat(descriptor).st_size
    return json.loads(os.pread(descriptor, size, 0))


def receive(channel: socket.socket, least: int) -> list[int]:
    """Return the descriptors that come with a run, the plan's first; none when it is not to be."""
    # Not `socket.recv_fds`, which lets them through to whatever is started next.
    _, messages, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4 * DESCRIPTORS), socket.MSG_CMSG_CLOEXEC)
    descriptors = [one for *_, data in messages for (one,) in struct.iter_unpack("i", data)]
    return descriptors if len(descriptors) >= least else []


def keep_only(*descriptors: int) -> None:
    """Close every descriptor of this process except these."""
    low = 0
    for one in sorted(descriptors):
        if low < one:
            os.closerange(low, one)
        low = one + 1
    os.closerange(low, 2**31 - 1)
